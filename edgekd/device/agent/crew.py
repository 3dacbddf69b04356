"""The agent's side of a worker: start it, ask it, and say in words how it ended when it did."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .messages import AgentError

QUIET_S = 180.0  # a runtime is imported from a slow card within this
STDERR_BYTES = 2000


class WorkerLost(Exception):
    """A worker that ended or fell silent; its text says how."""


class Hand:
    """One worker process. Use as a context manager: leaving it ends the process."""

    def __init__(self, directory: Path, variant: str, quiet_s: float = QUIET_S) -> None:
        self._quiet_s, self._unread = quiet_s, b""
        self._errors = os.memfd_create("stderr")
        place, package = home()
        # The worker finds what the agent finds, an environment that was adopted included.
        code = (
            f"import sys;sys.path[:0]={[place, *sys.path]!r};from {package}.main import main;"
            "sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, "worker", "--bundle", str(directory), "--variant", variant]
        kept = [int(place.rpartition("/")[2])] if place.startswith("/proc/self/fd/") else []
        self.start_ns = time.perf_counter_ns()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, pass_fds=kept
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def ask(self, do: str, **given: Any) -> Any:
        """The worker's answer. AgentError: it refused and lives; WorkerLost: it is gone."""
        try:
            self._input.write(json.dumps({"do": do, **given}).encode() + b"\n")
            self._input.flush()
        except OSError:
            raise WorkerLost(self._ending()) from None
        told = json.loads(self._line(do))
        if "error" in told:
            raise AgentError(told["error"], told["message"])
        return told["ok"]

    def _line(self, do: str) -> bytes:
        end_s = time.monotonic() + self._quiet_s
        while b"\n" not in self._unread:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._output], [], [], left_s)[0]:
                self.close()
                raise WorkerLost(f"said nothing for {self._quiet_s:g} s after {do!r} and was ended")
            data = os.read(self._output.fileno(), 1 << 16)
            if not data:
                raise WorkerLost(self._ending())
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _ending(self) -> str:
        """How the process ended, with the last line that it printed."""
        try:
            status = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        size_bytes = os.fstat(self._errors).st_size
        tail = os.pread(self._errors, STDERR_BYTES, max(0, size_bytes - STDERR_BYTES))
        lines = tail.decode("utf-8", "replace").strip().splitlines()
        how = f"was killed by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
        return f"{how} ({lines[-1][:200]})" if lines else how

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._input, self._output):
            try:
                pipe.close()
            except OSError:
                continue
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Hand:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        os.close(self._errors)


def home() -> tuple[str, str]:
    """Where this package is imported from (an archive, also one in memory, or a folder), and its name."""
    package = (__package__ or "").rpartition(".")[2]
    archive = getattr(globals().get("__loader__"), "archive", None)
    return (str(archive) if archive else str(Path(__file__).resolve().parents[1])), package


def signal_name(number: int) -> str:
    """SIGSEGV for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
