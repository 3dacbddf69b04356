"""The agent of one device over a transport: put it there, run it, send it signed files; it answers in JSON.

Push is the agent's own installer, driven over SSH: nothing here decides what may be installed. Every wait has
an end, so a frozen device costs its deadline and no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.device.transport import Conversation, LinkCutError, Transport
from edgekd.errors import DeviceError, EdgekdError, VerifyError
from edgekd.fleet.shipping import FILE, agent_archive

ROOT = "edgekd-agent"  # below the login's home; /var/lib/edgekd where the whole system runs it
MOST_SAID_BYTES = 4 << 20
PIECE_BYTES = 1 << 16
REFUSED = VerifyError.exit_code

# Writes the agent and its settings below a root, each file whole or not at all; then lets it set itself up.
ENROL = """
import json,os,subprocess,sys
b=sys.stdin.buffer;q=json.loads(b.readline())
if sys.version_info<(3,11):sys.exit('edgekd-old-python %d.%d'%sys.version_info[:2])
r=os.path.expanduser(q['root']);os.makedirs(os.path.join(r,'roots'),exist_ok=True)
for name,size in q['files']:
    p=os.path.join(r,name);d=b''
    while len(d)<size:
        c=b.read(size-len(d))
        if not c:sys.exit('the link ended in the middle of a file')
        d+=c
    with open(p+'.new','wb') as f:
        f.write(d);f.flush();os.fsync(f.fileno())
    os.replace(p+'.new',p)
h=os.open(r,os.O_RDONLY);os.fsync(h);os.close(h)
sys.exit(subprocess.run([sys.executable,os.path.join(r,'edgekd-agent.pyz'),'setup','--root',r]).returncode)
"""


@dataclass(frozen=True)
class Answer:
    """What the agent printed: its JSON, None where it printed none; its last word on standard error."""

    value: dict[str, Any] | None
    status: int | None
    said: str


class RemoteAgent:
    """The agent below `root`, absolute or relative to the login's home. total_s: deadline of each call."""

    def __init__(self, transport: Transport, root: str = ROOT, total_s: float = 300.0) -> None:
        self._transport, self.root, self._total_s = transport, root, total_s

    def enrol(self, settings: str, roots: Sequence[bytes]) -> dict[str, Any]:
        """Put agent, agent.toml and both roots there, and make the device's key; {"device", "key"}.

        roots: the first root of `releases` and of `rollout`. Raises DeviceError.
        """
        files = [(FILE, agent_archive()), ("agent.toml", settings.encode())]
        files += zip(("roots/releases.json", "roots/rollout.json"), roots, strict=True)
        request = {"root": self.root, "files": [(name, len(data)) for name, data in files]}
        answer = self._talk([self._transport.python, "-c", ENROL], request, (data for _, data in files))
        return self._value(answer)

    def run(self, command: str, *options: str) -> dict[str, Any]:
        """Run one command of the agent; VerifyError with its reason where it refuses."""
        return self._value(self._talk(self._command(command, *options), None, ()))

    def report(self) -> dict[str, Any]:
        """What the device says of itself, refusal or not."""
        return self._value(self._talk(self._command("status"), None, ()), refusals=False)

    def install(self, files: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
        """Send signed files and let the agent install from them; its report, refusal or not."""
        request = {"files": [(path, len(data)) for path, data in files]}
        answer = self._talk(self._command("receive"), request, (data for _, data in files))
        return self._value(answer, refusals=False)

    def _command(self, command: str, *options: str) -> list[str]:
        return [self._transport.python, f"{self.root}/{FILE}", command, "--root", self.root, *options]

    def _talk(self, argv: Sequence[str], request: dict[str, Any] | None, data: Iterable[bytes]) -> Answer:
        end_s = time.monotonic() + self._total_s
        conversation = self._transport.start(argv)
        try:
            if request is not None:
                self._send(conversation, json.dumps(request).encode() + b"\n", end_s)
                for each in data:
                    self._send(conversation, each, end_s)
            text = self._read(conversation, end_s)
            status, said = conversation.finish(min(5.0, self._left_s(end_s)))
        finally:
            conversation.close()
        return Answer(_last_json(text), status, (said.strip().splitlines() or [""])[-1])

    def _send(self, conversation: Conversation, data: bytes, end_s: float) -> None:
        for begin in range(0, len(data), PIECE_BYTES):
            limit_s = min(self._transport.timeout_s * 3, self._left_s(end_s))
            try:
                conversation.send(data[begin : begin + PIECE_BYTES], limit_s)
            except LinkCutError:
                self._read(
                    conversation, end_s
                )  # what it says of its own end is worth more than a broken pipe
                return

    def _read(self, conversation: Conversation, end_s: float) -> bytes:
        text = b""
        while piece := conversation.receive(self._left_s(end_s)):
            text += piece
            if len(text) > MOST_SAID_BYTES:
                raise DeviceError(f"{self._transport.name}: it prints without end; mend its login's profile")
        return text

    def _left_s(self, end_s: float) -> float:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise LinkCutError(f"{self._transport.name} was not done within {self._total_s:g} s; run again")
        return left_s

    def _value(self, answer: Answer, *, refusals: bool = True) -> dict[str, Any]:
        name, said = self._transport.name, answer.said.removeprefix("edgekd-agent: ")
        if answer.value is not None and (answer.status == 0 or not refusals):
            return answer.value
        kind: type[EdgekdError] = VerifyError if answer.status == REFUSED else DeviceError
        if "edgekd-old-python" in said:
            raise DeviceError(f"{name}: Python {said.split()[-1]} is too old; the agent needs 3.11 or newer")
        if answer.status is None:
            raise LinkCutError(f"the link to {name} was cut; run the same command again")
        if "can't open file" in said or "No such file" in said:
            raise DeviceError(f"{name}: there is no agent in {self.root}; enrol the device first")
        raise kind(f"{name}: {said or f'the agent ended with status {answer.status} and no word'}")


def _last_json(text: bytes) -> dict[str, Any] | None:
    """The last line that is a JSON object: a login shell may print before it."""
    for line in reversed(text.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None
