"""Runs a trial in a process of its own and judges what came of it.

A trial that says nothing in time is killed with all that it started. How its process ended is evidence, too:
a signal is a crash, SIGSYS a forbidden call; SIGKILL from elsewhere (the kernel short of memory, a person)
says nothing about the release, and the trial is repeated.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgekd
from edgekd.fleet import formats
from edgekd.fleet.agent import machine, slots
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.health import Measured, judge
from edgekd.fleet.agent.trial_child import NO_RUNTIME
from edgekd.fleet.formats import Release

PROGRAM = "import sys;sys.path.insert(0,{place!r});from {module} import main;sys.exit(main())"
CHILD = "edgekd.fleet.agent.trial_child"
MOST_TOLD_BYTES = 1 << 20
THROTTLED_NOW = 0xF  # bits of the Pi's get_throttled that hold now; the higher ones remember


@dataclasses.dataclass
class Told:
    """What the process said and how it ended. done: it came to its end; signal: that it died of; late: we
    killed it."""

    walls: list[str] = dataclasses.field(default_factory=list)
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
    failure: str = ""
    message: str = ""
    done: bool = False
    signal: int = 0
    late: bool = False
    seconds: float = 0.0


class SandboxedTrial:
    """The trial of one model's releases. root: the model's directory; throttled: asks the board."""

    def __init__(
        self, root: Path, model: str, config: Config, throttled: Callable[[], bool] | None = None
    ) -> None:
        self._root, self._model, self._config = root.resolve(), model, config
        self._throttled = throttled or is_throttled
        self.last: dict[str, Any] = {}  # for the report

    def __call__(self, sha256: str, against: str | None) -> machine.Event:
        """Try a slot, against the one that serves."""
        new = self._root / slots.slot(sha256)
        data = (new / slots.NOTE).read_bytes()
        number = int(json.loads(data)["release"])
        release = formats.parse_release(data, self._model, number)
        before = self._throttled()
        told = self._run(self._request(new, against, release), release.health.trial_s)
        throttled = before or self._throttled()
        verdict = verdict_of(told, release.health, throttled)
        self.last = {
            "release": number,
            "sha256": sha256,
            "verdict": getattr(verdict, "reason", "passed"),
            "walls": told.walls,
            "measured": told.measured,
            "message": told.message,
            "seconds": round(told.seconds, 2),
            "throttled": throttled,
        }
        return verdict

    def _request(self, new: Path, against: str | None, release: Release) -> dict[str, Any]:
        config, old = self._config, self._root / slots.slot(against) if against else None
        return {
            "new": str(new),
            "old": str(old) if old else None,
            "health": formats.dump(release.health),
            "user": config.user,
            "cpu_s": int(release.health.trial_s) + 1,
            "file_bytes": config.file_bytes,
            "processes": config.processes,
            "memory_bytes": config.memory_bytes,
        }

    def _run(self, request: dict[str, Any], limit_s: float) -> Told:
        program = PROGRAM.format(place=str(Path(edgekd.__file__).parents[1]), module=CHILD)
        command = [self._config.python or sys.executable, "-I", "-B", "-c", program]
        began_s = time.monotonic()
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            cwd="/",
            start_new_session=True,
        ) as process:
            try:
                told = converse(process, request, began_s + limit_s)
            finally:
                end(process)
        told.signal = max(0, process.returncode - 128, -process.returncode)
        told.seconds = time.monotonic() - began_s
        return told


def converse(process: subprocess.Popen[bytes], request: dict[str, Any], end_s: float) -> Told:
    """Send the request, take the messages until the end of output or of the time."""
    told, unread, taken_bytes = Told(), b"", 0
    if process.stdin is None or process.stdout is None:
        raise ValueError("a trial's process needs pipes")
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        return told
    while True:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or taken_bytes > MOST_TOLD_BYTES:
            told.late = True
            return told
        if not select.select([process.stdout], [], [], left_s)[0]:
            continue
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            return told
        taken_bytes += len(piece)
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            take(told, line)


def take(told: Told, line: bytes) -> None:
    """One message; what is none (a model may write there) is left out."""
    try:
        message = json.loads(line)
    except ValueError:
        return
    for name in ("walls", "measured", "failure", "message", "done"):
        if isinstance(message, dict) and isinstance(message.get(name), type(getattr(told, name))):
            setattr(told, name, message[name])


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its session; in a namespace of their own all its descendants go with it."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.poll()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.poll()  # gone already, or another user's: those die with the first of their namespace
    process.wait()


def verdict_of(told: Told, limits: formats.Health, throttled: bool) -> machine.Event:
    """The verdict on what was told, and on how the process ended."""
    if told.late:
        return machine.TrialDisturbed("throttled") if throttled else machine.TrialFailed("timeout")
    if told.failure == NO_RUNTIME:
        return machine.TrialDisturbed(NO_RUNTIME)
    if told.failure:
        return machine.TrialFailed(told.failure)
    if told.signal == signal.SIGSYS:
        return machine.TrialFailed("forbidden-call")
    if told.signal == signal.SIGXCPU:
        return machine.TrialFailed("timeout")
    if told.signal == signal.SIGKILL:
        return machine.TrialDisturbed("killed")
    if not told.walls and not told.signal:  # it never came to the model: this device's own fault
        return machine.TrialDisturbed(NO_RUNTIME)
    if told.signal or not told.done:
        return machine.TrialFailed("crashed")
    try:
        return judge(Measured(**told.measured, throttled=throttled), limits)
    except TypeError:
        return machine.TrialFailed("crashed")


def is_throttled() -> bool:
    """Whether a Raspberry Pi says that it is slowed down now; False on a board that does not say."""
    program = shutil.which("vcgencmd")
    if program is None:
        return False
    try:
        answer = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
        return bool(int(answer.strip().rpartition("=")[2], 0) & THROTTLED_NOW)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
