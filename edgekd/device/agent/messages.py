"""What the agent says: each answer is one line, `@@edgekd-agent-1 {json} @@`, and a refusal is an AgentError.

The mark keeps text printed by a login shell apart.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

MARK = "@@edgekd-agent-1 "
AUTO = "auto"  # the variant that the device chooses


class AgentError(Exception):
    """A refusal (kind, message) that the host turns into its own error; kinds: docs/formats/linux.md."""


def emit(message_type: str, **fields: Any) -> None:
    """Write one message. The newline in front parts it from what a shell printed without one."""
    data = f"\n{MARK}{json.dumps({'type': message_type, **fields})} @@\n".encode()
    while data:
        data = data[os.write(1, data) :]


class Ticker:
    """Sends a progress message at most once a second."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.said_s = label, total, time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self.said_s > 1:
            self.said_s = time.monotonic()
            emit("progress", label=self.label, done=done, total=self.total)
