"""The rehearsal, `keys.drill`: every role rotated, keys lost, a device that was away, a stolen online key.

On a fleet of its own in a scratch folder, with the shipped code on both sides. Each step says what must
happen and what did; a drill that finds a difference is a fault of edgekd, not of the operator.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgekd.fleet import keys, thief
from edgekd.fleet.drill_fleet import OTHER_HARDWARE, Device, Operator, Time, enrol, passphrase
from edgekd.fleet.home import open_home
from edgekd.progress import Progress, silent

ROTATIONS = ("online-1", "targets-1", "root-1", "targets-2", "root-2", "online-2")


@dataclass(frozen=True)
class Step:
    """What was tried, what must come of it, and what did."""

    part: str
    what: str
    expected: str
    got: str

    @property
    def is_right(self) -> bool:
        return self.expected == self.got


def drill(scratch: Path, now: datetime, progress: Progress = silent) -> list[Step]:
    """Rehearse in the empty folder `scratch`; every step, in order."""
    found = []
    total = len(ROTATIONS) + len(thief.MOVES) + 11
    for step in _steps(scratch, now):
        found.append(step)
        progress("drill", len(found), total)
    return found


def _steps(scratch: Path, now: datetime) -> Iterator[Step]:
    time = Time(now)
    operator = Operator(scratch / "fleet", time)
    for number in (1, 2):
        operator.release(number)
    operator.choose(1)
    device = enrol(scratch / "device", time, operator.host)
    away = enrol(scratch / "away", time, operator.host, "drill-2")
    yield Step("begin", "a new device makes its first visit", "runs 1", device.visit(operator.host))
    yield Step("begin", "another one, before it goes away", "runs 1", away.visit(operator.host))
    yield from _rotations(operator, device)
    yield from _losses(scratch, operator, device, away)
    yield from _thefts(scratch, operator, device)


def _rotations(operator: Operator, device: Device) -> Iterator[Step]:
    """Each role's key replaced, and after each the fleet led to another release."""
    for count, name in enumerate(ROTATIONS):
        operator.rotate(name)
        number = 2 - count % 2
        operator.choose(number)
        what = f"{name} replaced, release {number} chosen"
        yield Step("rotation", what, f"runs {number}", device.visit(operator.host))


def _losses(scratch: Path, operator: Operator, device: Device, away: Device) -> Iterator[Step]:
    operator.lose("root-3")
    done = operator.rotate("root-3")
    what = "one root key lost: the other two replace it"
    yield Step("loss", what, "nothing lacks", "; ".join(done["lacking"]) or "nothing lacks")
    operator.release(3)
    operator.choose(3)
    yield Step("loss", "release 3 signed and chosen after that", "runs 3", device.visit(operator.host))
    what = f"the device that was away over {len(ROTATIONS) + 1} rotations"
    yield Step("loss", what, "runs 3", away.visit(operator.host))
    yield _two_lost(scratch, operator)


def _two_lost(scratch: Path, operator: Operator) -> Step:
    """On a copy of the fleet: with two root keys gone, nothing can be replaced."""
    copy = scratch / "two-lost"
    shutil.copytree(operator.folder, copy)
    home = open_home(copy, operator.time.at)
    for name in ("root-4", "root-5"):
        (copy / f"keys/{name}.key").unlink()
    done = keys.rotate(home, "online-3", passphrase, rounds=1)
    got = done["lacking"][0] if done["lacking"] else "replaced"
    return Step("loss", "two root keys lost", "rollout: root has 1 of 2 signatures", got)


def _thefts(scratch: Path, operator: Operator, device: Device) -> Iterator[Step]:
    """The online key is stolen; every move; then it is replaced, and the moves end."""
    before, behind = scratch / "before", device.twin(scratch / "behind")
    shutil.copytree(operator.host, before)
    operator.release(4, OTHER_HARDWARE)
    operator.floor(2)
    operator.choose(3)
    yield Step("theft", "the floor raised to 2", "runs 3", device.visit(operator.host))
    key = operator.home.ring.signer("online-3", passphrase)
    for number, move in enumerate(thief.MOVES):
        place = scratch / f"move-{number}"
        got = thief.play(move, device, operator.host, before, key, place)
        yield Step("theft", _first_line(move.play), move.answer, got)
    hidden = thief.Move(thief.old_releases, "runs 1")
    got = thief.play(hidden, behind, operator.host, before, key, scratch / "move-behind")
    what = "the same to a device that has not seen the floor: with the network in his hands, another limit"
    yield Step("theft", what, hidden.answer, got)
    yield from _recovery(scratch, operator, device)


def _recovery(scratch: Path, operator: Operator, device: Device) -> Iterator[Step]:
    key = operator.home.ring.signer("online-3", passphrase)
    forward = next(i for i, move in enumerate(thief.MOVES) if move.play is thief.fast_forward)
    victim = Device(scratch / f"move-{forward}" / "device", operator.time, "drill-1")
    operator.rotate("online-3")
    operator.choose(2)
    what = "the key replaced: the device that was led to version 1,000,000"
    yield Step("recovery", what, "runs 2", victim.visit(operator.host))
    yield Step("recovery", "and every other", "runs 2", device.visit(operator.host))
    move = thief.Move(thief.choose_older, "refuses: bad-signature, runs 2")
    got = thief.play(move, device, operator.host, scratch / "before", key, scratch / "after")
    yield Step("recovery", "the stolen key once more", move.answer, got)


def _first_line(function: Callable[..., None]) -> str:
    return (function.__doc__ or "").partition("\n")[0].rstrip(".")
