"""How the host talks to a Linux device: start one program there and hold a conversation with it.

That is the whole interface. Putting, checking and renaming files is done by the agent at the other end of
the conversation, so no SFTP server is needed, a device's own error reaches the user, and a dropped link
leaves the device in a state that the agent chose. Two implementations: this machine (here) and SSH (ssh.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgekd.errors import ConfigError, DeviceError, MissingDependencyError

CHUNK_BYTES = 1 << 16


class LinkCutError(DeviceError):
    """The conversation ended from the other side, or nothing moved for too long."""


class Conversation(Protocol):
    """One program's standard input and output. Every call ends within its time limit."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`; LinkCutError when the link ends or takes nothing for `timeout_s`."""

    def receive(self, timeout_s: float) -> bytes:
        """The next bytes of standard output, b"" at its end; LinkCutError after `timeout_s` of silence."""

    def finish(self, timeout_s: float) -> tuple[int | None, str]:
        """After the end of output: exit status (None: unknown) and the tail of standard error."""

    def close(self) -> None:
        """End the conversation at once, whatever state it is in."""


class Transport(Protocol):
    """A device that programs can be started on. `name` is how messages call it."""

    name: str
    python: str
    timeout_s: float

    def start(self, argv: Sequence[str]) -> Conversation:
        """Start a program in the login's home; DeviceError when the device does not let us."""

    def close(self) -> None:
        """Let go of the device."""

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalTransport:
    """This machine as the device. Programs start in `directory`, so a relative root lies under it."""

    def __init__(self, directory: Path, python: str = "python3", timeout_s: float = 20.0) -> None:
        self.name, self.python, self.timeout_s = "this machine", python, timeout_s
        self._directory = directory

    def start(self, argv: Sequence[str]) -> Conversation:
        """Start a program; MissingDependencyError when it does not exist."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return LocalConversation(argv, self._directory)
        except FileNotFoundError:
            raise MissingDependencyError(
                f"{self.name} has no program {argv[0]!r}; install it or set connection.python of the target"
            ) from None
        except OSError as error:
            raise DeviceError(f"{self.name} cannot start {argv[0]!r}: {error.strerror}; mend that") from None

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalConversation:
    """A child process on this machine; its pipes do not block, so that every wait has an end."""

    def __init__(self, argv: Sequence[str], directory: Path) -> None:
        with contextlib.ExitStack() as files:
            self._errors = files.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=directory,
                bufsize=0,
                start_new_session=True,
            )
            self._files = files.pop_all()
        if self._process.stdin is None or self._process.stdout is None:
            raise DeviceError(f"{argv[0]!r} was started without pipes; run again")
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            if not select.select([], [self._input], [], timeout_s)[1]:
                raise LinkCutError(f"the program took nothing for {timeout_s:g} s; run the command again")
            try:
                view = view[os.write(self._input.fileno(), view[:CHUNK_BYTES]) :]
            except BrokenPipeError:
                raise LinkCutError(
                    "the program ended before it had everything; run the command again"
                ) from None

    def receive(self, timeout_s: float) -> bytes:
        """The next bytes of output."""
        if not select.select([self._output], [], [], timeout_s)[0]:
            raise LinkCutError(f"the program said nothing for {timeout_s:g} s; run the command again")
        return os.read(self._output.fileno(), CHUNK_BYTES)

    def finish(self, timeout_s: float) -> tuple[int | None, str]:
        """Exit status and the tail of standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self._errors.seek(0)
        return self._process.returncode, self._errors.read().decode("utf-8", "replace")[-2000:]

    def close(self) -> None:
        """Close the pipes, which ends the agent; kill the program when it stays."""
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._files.close()


class Deadline:
    """Time that is left: a limit for each wait, and one for the whole."""

    def __init__(self, stall_s: float, total_s: float, doing: str) -> None:
        self._stall_s, self._end_s, self._doing = stall_s, time.monotonic() + total_s, doing
        self._total_s = total_s

    def left_s(self) -> float:
        """The limit of the next wait; LinkCutError when the whole time is used up."""
        left = self._end_s - time.monotonic()
        if left <= 0:
            raise self._used_up()
        return min(self._stall_s, left)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Around a wait of `left_s`: where the whole time ends it, the whole is named."""
        try:
            yield
        except LinkCutError:
            if time.monotonic() >= self._end_s:
                raise self._used_up() from None
            raise

    def _used_up(self) -> LinkCutError:
        return LinkCutError(f"{self._doing} took more than {self._total_s:g} s; run the command again")


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """`[user@]host[:port]` (IPv6 in brackets) as user, host, port; ConfigError for anything else."""
    user, at, rest = text.rpartition("@")
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        colon, port = tail[:1], tail[1:]
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    bad_port = bool(colon) and not (colon == ":" and port.isdecimal() and 0 < int(port) < 65536)
    if not host or host.startswith("-") or bad_port or (at and not user) or any(c.isspace() for c in text):
        raise ConfigError(f"{text!r} is no address; write user@host or user@host:port")
    return user or None, host, int(port) if port else None
