"""One run of the agent on a device: send it over standard input, then exchange messages.

The agent travels with every call, so host and device always speak the same protocol, and code that
was changed on the device is never trusted to check itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from edgekd.device.archive import agent_archive
from edgekd.device.transport import Deadline, LinkCutError, Transport
from edgekd.errors import (
    BudgetError,
    ConfigError,
    DeviceError,
    EdgekdError,
    MissingDependencyError,
    VerifyError,
)
from edgekd.progress import Progress, silent

MARK = b"@@edgekd-agent-1 "
MAX_NOISE_BYTES = 4 << 20  # what a login shell may print around the agent's messages

# Runs the archive that follows on standard input, from memory: nothing is written on the device. It must be
# valid in old Pythons, to refuse them in words.
BOOT = (
    "import sys,os;b=sys.stdin.buffer;n=int(b.readline());t=b.read(n);"
    "len(t)<n and sys.exit('the link ended in the agent itself');"
    "v='%d.%d'%sys.version_info[:2];"
    "sys.version_info>=(3,11) or sys.exit('edgekd-old-python '+v);"
    "f=os.memfd_create('agent.pyz');o=open(f,'wb',closefd=False);o.write(t);o.close();"
    "sys.path.insert(0,'/proc/self/fd/%d'%f);"
    "from edgekd_agent.main import main;sys.exit(main(sys.argv[1:]))"
)

ERRORS: dict[str, type[EdgekdError]] = {
    "config": ConfigError,
    "cut": LinkCutError,
    "denied": DeviceError,
    "empty": DeviceError,
    "failed": DeviceError,
    "locked": DeviceError,
    "mismatch": VerifyError,
    "runtime": MissingDependencyError,
    "space": BudgetError,
    "unhealthy": VerifyError,
}


class AgentSession:
    """A running agent. Use as a context manager: leaving it ends the agent."""

    def __init__(
        self,
        transport: Transport,
        arguments: Sequence[str],
        *,
        stall_s: float,
        total_s: float,
        progress: Progress = silent,
    ) -> None:
        self._transport, self._progress = transport, progress
        self._deadline = Deadline(stall_s, total_s, f"{transport.name}: the {arguments[0]}")
        self._unread = self._noise = b""  # noise: the last line that was no message
        archive = agent_archive()
        self._conversation = transport.start([transport.python, "-c", BOOT, *arguments])
        try:
            self.send(b"%d\n%s" % (len(archive), archive))
        except BaseException:
            self._conversation.close()
            raise

    def __enter__(self) -> AgentSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conversation.close()

    def send(self, data: bytes) -> None:
        """Send bytes. When the agent has ended, its own last word is raised rather than a broken pipe."""
        try:
            with self._deadline.blamed():
                self._conversation.send(data, self._deadline.left_s())
        except LinkCutError as cut:
            self._raise_last_word()
            raise cut from None

    def send_request(self, request: dict[str, Any]) -> None:
        """Send one line of JSON."""
        self.send(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The agent's next message that is no progress; its errors are raised as ours."""
        while True:
            message = self._next_message()
            if message["type"] == "progress":
                self._progress(message["label"], message["done"], message["total"])
            elif message["type"] == "error":
                kind = ERRORS.get(message["kind"], DeviceError)
                raise kind(f"{self._transport.name}: {message['message']}")
            else:
                return message

    def _next_message(self) -> dict[str, Any]:
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                message = parse_line(line)
                if message is not None:
                    return message
                self._noise = line.strip() or self._noise
                continue
            with self._deadline.blamed():
                data = self._conversation.receive(self._deadline.left_s())
            self._unread += data
            if not data:
                self._raise_ending()
            if len(self._unread) > MAX_NOISE_BYTES:
                raise DeviceError(
                    f"{self._transport.name}: its login shell prints without end; mend its profile"
                )

    def _raise_last_word(self) -> None:
        """After a send failed: read what is left, raise an error message if there is one."""
        try:
            self.receive()
        except LinkCutError:
            return

    def _raise_ending(self) -> None:
        """The output ended without an answer: say why."""
        name, python = self._transport.name, self._transport.python
        status, errors = self._conversation.finish(min(5.0, self._deadline.left_s()))
        said = (self._unread.strip() or self._noise).decode("utf-8", "replace")[-200:]
        last = (errors.strip().splitlines() or [said])[-1]
        if "edgekd-old-python" in errors:
            version = errors.split("edgekd-old-python", 1)[1].split()[0]
            raise DeviceError(
                f"{name}: {python} is Python {version}; edgekd's agent needs 3.11 or newer there"
            )
        if status in (126, 127):
            raise MissingDependencyError(
                f"{name} cannot run {python!r} ({last or 'not found'}); "
                f"install Python >= 3.11 there, or set connection.python of the target"
            )
        if status is None or status < 0 or status > 128:
            raise LinkCutError(
                f"the link to {name} was cut, or the agent killed there; run the same command again"
            )
        raise DeviceError(
            f"{name}: the agent ended with status {status} and no answer: {last or 'no message'}"
        )


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The message in a line of output, or None for whatever else a shell printed."""
    _, mark, rest = line.partition(MARK)
    if not mark:
        return None
    try:
        message = json.loads(rest.strip().removesuffix(b"@@"))
    except ValueError:
        return None
    return message if isinstance(message, dict) and "type" in message else None
