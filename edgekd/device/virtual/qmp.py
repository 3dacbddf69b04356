"""QEMU's control socket: one JSON object a line, a question and its answer (the QEMU Machine Protocol)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.errors import DeviceError

TIMEOUT_S = 30.0
SNAPSHOT_TIMEOUT_S = 180.0


class Qmp:
    """A connection to a running QEMU. QEMU answers one connection at a time: close it soon."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            with _short(path) as name:
                self._socket.connect(name)
            self._stream = self._socket.makefile("rwb")
            self._answer()
            self.call("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"the virtual machine at {path.parent} does not answer: {error}") from None

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, command: str, **arguments: Any) -> Any:
        """One command's result; DeviceError with QEMU's own words when it refuses."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._stream.write(json.dumps(request).encode() + b"\n")
        self._stream.flush()
        while True:
            answer = self._answer()
            if "error" in answer:
                raise DeviceError(f"the virtual machine refuses {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]

    def say(self, line: str) -> str:
        """A line for QEMU's monitor, for what has no command of its own (savevm); returns what it prints."""
        return str(self.call("human-monitor-command", **{"command-line": line}))

    def _answer(self) -> dict[str, Any]:
        """The next message that is no event."""
        while True:
            line = self._stream.readline()
            if not line:
                raise DeviceError("the virtual machine ended while it was asked")
            message: dict[str, Any] = json.loads(line)
            if "event" not in message:
                return message


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of a socket that is short enough for one (108 bytes), however deep its folder lies."""
    handle = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)
