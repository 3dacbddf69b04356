"""Soak `fleet-field`: rollouts over eight real devices that pull from nginx, a virtual Pi among them.

A good release reaches all in waves; then each bad one in turn (native code that leaks, crashes at the
1,000th input, answers NaN, has another shape, is 3 x slower, is fast but wrong) meets three canaries, and
everybody is on the good release again; then another good one reaches all. `count` times in all.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd import api_rollouts
from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import CPUS, VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from edgekd.doctor import find_program
from tests.fleet import field, native_models
from tests.fleet.hosts import memory_folder
from tests.fleet.made import MODEL
from tests.fleet.test_releasing import ask

DEVICES, CANARIES, WAVE_S, BACK_S = 8, 3, 600.0, 60.0
POLL_S = 6.0  # eight agents share this machine's cores with the host and the watcher


def fleet_field(seed: int, count: int, devices: int = DEVICES) -> dict[str, Any]:
    """`count` rounds; `seed` is for the record alone: salts are drawn anew, times are the machine's."""
    failures: list[str] = []
    rollouts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, memory_folder() as folder, _pi(Path(scratch)) as pi:
        local = devices - (pi is not None)
        files = native_models.releases(Path(scratch) / "made")
        with field.running(folder, local, files, pi, every_s=POLL_S) as found:
            for _ in range(count):
                _round(found, rollouts, failures)
        hardware = sorted(found.hardware.values())
    return {
        "devices": hardware,
        "isolated": os.geteuid() == 0,
        "rollouts": rollouts,
        "counts": {"rollouts": len(rollouts)},
        "differing_bytes": 0,
        "failures": failures,
    }


@contextlib.contextmanager
def _pi(folder: Path) -> Iterator[VirtualPi | None]:
    if find_program("qemu-system-aarch64") is None:
        yield None
        return
    image = ensure_image("bookworm")
    ensure_booted(image, CPUS[0])
    with VirtualPi.start(image, folder / "pi") as pi:
        yield pi


def _round(found: field.Field, rollouts: list[dict[str, Any]], failures: list[str]) -> None:
    good = found.sign("good")
    rollouts.append(_good(found, good, failures))
    for mood in native_models.BAD:
        rollouts.append(_bad(found, mood, good, failures))
        print(rollouts[-1], file=sys.stderr, flush=True)
    rollouts.append(_good(found, found.sign("good"), failures))


def _good(found: field.Field, number: int, failures: list[str]) -> dict[str, Any]:
    told = found.roll_out(number, CANARIES, WAVE_S)
    run = {name: said["release"] for name, said in found.reported().items()}
    events = api_rollouts.events(found.where, told["rollout"])
    waves = [event["allowed"] for event in events if event["kind"] == "widened"]
    if told["status"] != "finished" or set(run.values()) != {number} or len(run) != len(found.links):
        failures.append(f"good release {number}: {told['status']}, {told['why']}, devices run {run}")
    row = {"mood": "good", "status": told["status"], "why": told["why"], "waves": [CANARIES, *waves]}
    print(row, file=sys.stderr, flush=True)
    return row | {"seconds": told["seconds"]}


def _bad(found: field.Field, mood: str, good: int, failures: list[str]) -> dict[str, Any]:
    """One bad release: who met it, why they left it, and whether everybody runs the good one."""
    number = found.sign(mood)
    told = found.roll_out(number, CANARIES, WAVE_S)
    time.sleep(5.0)  # who had begun when the gate paused comes to its end
    said = found.reported()
    lost = {name: _reason(each, number) for name, each in said.items() if _reason(each, number)}
    run = {name: each["release"] for name, each in said.items()}
    longest_s = max((_trial_s(found.reports / f"{name}.json", number) for name in lost), default=0.0)
    checks = {
        f"ended as {told['status']}: {told['why']}": told["status"] in ("stopped", "paused"),
        f"devices run {run}": set(run.values()) == {good} and len(run) == len(found.links),
        f"met by {sorted(lost)}, canaries {told['canaries']}": set(lost) <= {*told["canaries"]},
        f"reasons {lost}": set(lost.values()) == {native_models.MOODS[mood]},
        f"a trial took {longest_s} s": longest_s <= BACK_S,
    }
    failures += [f"{mood}: {what}" for what, is_right in checks.items() if not is_right]
    api_rollouts.recall(found.where, told["rollout"], good, mood, ask)
    return {
        "mood": mood,
        "status": told["status"],
        "why": told["why"],
        "lost": len(lost),
        "reasons": sorted(set(lost.values())),
        "longest_trial_s": longest_s,
        "everybody_back": set(run.values()) == {good},
        "seconds": told["seconds"],
    }


def _reason(said: dict[str, Any], number: int) -> str:
    """Why a device has put a release into quarantine, "" where it has not."""
    return next((each["reason"] for each in said["quarantined"] if each["release"] == number), "")


def _trial_s(report: Path, number: int) -> float:
    """How long the trial took, as the report said that the watcher got; 0 where it says of no trial."""
    trial = json.loads(report.read_bytes())["models"][MODEL]["trial"]
    return float(trial["seconds"]) if trial and trial["release"] == number else 0.0
