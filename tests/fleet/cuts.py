"""Power cuts over the agent's own code: one random story a seed, on a disk that loses what was not synced.

`story(seed)` runs an update (or a revert) over a `TornDisk`, cuts it once to three times at any changing
call, in recovery too, and raises `Broken` unless the device has a whole old or new model after each cut, and
comes to the one right end when it is let run. tests/fleet/test_cuts.py runs thousands of cuts, the soak
`fleet-cuts` a million.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from edgekd.fleet.agent import machine, slots
from edgekd.fleet.agent.fetch import Wanted, fetch
from edgekd.fleet.agent.installer import Installer
from edgekd.fleet.agent.state import Candidate, State
from tests.fleet.torn_disk import PowerCut, TornDisk

SCENARIOS = (
    "first",  # nothing serves yet
    "good",  # an update that passes
    "bad",  # one that fails its trial
    "back",  # the confirmed release is unwell
    "asked",  # somebody asks for the one before
    "recall",  # the rollout names the older release, whose slot is still there
    "third",  # an update over two slots: the oldest is removed
    "damaged",  # a bit of the serving slot has flipped
)


class Broken(AssertionError):
    """A promise was not kept."""


@dataclass(frozen=True)
class Made:
    """A release: its number, its release.json and its files' bytes."""

    number: int
    note: bytes
    files: dict[str, bytes]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.note).hexdigest()

    def wanted(self) -> list[Wanted]:
        return [
            Wanted(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in self.files.items()
        ]


@cache
def release(number: int) -> Made:
    """Release `number`; `labels` is the same in all, so that a slot can give it."""
    rng = random.Random(number)
    files = {
        "bundle/model": rng.randbytes(1300),
        "bundle/golden": rng.randbytes(500),
        "bundle/labels": b"the same in all",
        "bench.json": rng.randbytes(40),
    }
    table = {
        path: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        for path, data in files.items()
    }
    return Made(number, json.dumps({"release": number, "files": table}).encode(), files)


def source(made: Made) -> Callable[[Wanted, int], Iterator[bytes]]:
    """The release's files in pieces of 700 bytes."""

    def pieces(wanted: Wanted, offset: int) -> Iterator[bytes]:
        data = made.files[wanted.path]
        yield from (data[begin : begin + 700] for begin in range(offset, len(data), 700))

    return pieces


class Device:
    """The agent's code over one disk. bad: hashes whose trial fails."""

    def __init__(self, disk: TornDisk, bad: frozenset[str] = frozenset()) -> None:
        self.disk, self._bad, self.restarts = disk, bad, 0
        self.installer = Installer(disk, self._trial, self._restart)
        self.installer.start()

    def _trial(self, sha256: str, against: str | None) -> machine.Event:
        if not slots.is_whole(self.disk, sha256):
            raise Broken("a trial of a slot that is not whole")
        self.disk.seal(slots.slot(sha256))  # counts as a call: the power may go during the trial
        return machine.TrialFailed("golden") if sha256 in self._bad else machine.TrialPassed()

    def _restart(self) -> None:
        self.restarts += 1

    def offer(self, made: Made, rollout: str = "r") -> State:
        """What a poll does with an admitted release."""
        offer = Candidate(made.sha256, made.number, rollout, 1)
        state = self.installer.state
        if (state.serves(offer.sha256) and not state.damaged) or state.is_quarantined(offer):
            return state
        if state.at_rest:
            fetch(self.disk, made.sha256, made.note, made.wanted(), source(made))
        return self.installer.handle(machine.Fetched(offer, 1))


@cache
def base(*numbers: int) -> TornDisk:
    """A disk on which these releases were installed, one after the other."""
    disk = TornDisk()
    device = Device(disk)
    for number in numbers:
        device.offer(release(number), rollout=f"r{number}")
    return disk.copy()


@dataclass(frozen=True)
class Story:
    """Where it begins, what each start of the agent does, and which releases may serve."""

    begins: TornDisk
    visit: Callable[[TornDisk], Device]
    may_serve: frozenset[str]
    ends_with: str | None
    quarantined: frozenset[str] = frozenset()


@cache
def scenario(name: str) -> Story:
    """The story without its cuts."""
    one, two, three = (release(number) for number in (1, 2, 3))
    both = frozenset((one.sha256, two.sha256))

    def update(made: Made, bad: bool = False) -> Callable[[TornDisk], Device]:
        def visit(disk: TornDisk) -> Device:
            device = Device(disk, frozenset((made.sha256,)) if bad else frozenset())
            device.offer(made, rollout="new")
            return device

        return visit

    def revert(event: machine.Event) -> Callable[[TornDisk], Device]:
        def visit(disk: TornDisk) -> Device:
            device = Device(disk)
            if device.installer.state.serves(two.sha256):
                device.installer.handle(event)
            return device

        return visit

    unwell, asked = machine.Unwell(two.sha256, "crashed"), machine.RevertAsked("asked")
    only_two = frozenset((two.sha256,))
    return {
        "first": Story(base(), update(one), frozenset((one.sha256,)), one.sha256),
        "good": Story(base(1), update(two), both, two.sha256),
        "bad": Story(base(1), update(two, bad=True), both - only_two, one.sha256, only_two),
        "back": Story(base(1, 2), revert(unwell), both, one.sha256, only_two),
        "asked": Story(base(1, 2), revert(asked), both, one.sha256, only_two),
        "recall": Story(base(1, 2), update(one), both, one.sha256),
        "third": Story(base(1, 2), update(three), frozenset((two.sha256, three.sha256)), three.sha256),
        "damaged": Story(_flipped(base(1)), update(one), frozenset((one.sha256,)), one.sha256),
    }[name]


def _flipped(disk: TornDisk) -> TornDisk:
    """The disk with one bit of the serving model changed."""
    fresh = disk.copy()
    model = fresh._file(f"{slots.slot(release(1).sha256)}/bundle/model")
    model.data[700] ^= 4
    model.kept = bytes(model.data)
    return fresh


@cache
def calls_of(name: str) -> int:
    """How many changing calls the scenario makes when nothing is cut."""
    disk = scenario(name).begins.copy()
    scenario(name).visit(disk)
    return disk.calls


def story(seed: int) -> int:
    """One story; returns how often it was cut. Raises Broken with the seed."""
    rng = random.Random(seed)
    name = SCENARIOS[rng.randrange(len(SCENARIOS))]
    told = scenario(name)
    disk, cuts = told.begins.copy(), 0
    disk.cut_at = rng.randint(1, calls_of(name))
    try:
        while True:
            try:
                device = told.visit(disk)
                break
            except PowerCut:
                cuts += 1
                disk = disk.cut(rng)
                _check_serving(disk, told, name)
                if cuts < 3 and rng.random() < 0.6:
                    disk.cut_at = rng.randint(1, calls_of(name))
        _check_end(device, told, cuts)
    except (Exception, Broken) as error:
        raise Broken(f"seed {seed}, {name}, {cuts} cuts: {type(error).__name__}: {error}") from error
    return cuts


def _check_serving(disk: TornDisk, told: Story, name: str) -> None:
    """What a boot finds: a whole model that may serve (none only where there was none, or it was damaged)."""
    serving = slots.current(disk)
    if serving is None:
        if name != "first":
            raise Broken("nothing serves")
    elif serving not in told.may_serve:
        raise Broken("something serves that must not")
    elif not slots.is_whole(disk, serving) and name != "damaged":
        raise Broken("what serves is not whole")


def _check_end(device: Device, told: Story, cuts: int) -> None:
    state, disk = device.installer.state, device.disk
    worn_out = cuts >= machine.MOST_TRIALS and state.reason == "trial-cut"
    if not worn_out and (
        slots.current(disk) != told.ends_with or not slots.is_whole(disk, told.ends_with or "")
    ):
        raise Broken(f"ends with {slots.current(disk)} in {state}")
    if not worn_out and not told.quarantined <= state.quarantine.keys():
        raise Broken("not quarantined")
    if not state.at_rest or set(disk.names("slots")) != set(state.wanted()):
        raise Broken(f"left in {state} with {disk.names('slots')}")
    again = disk.copy()  # a start later changes nothing
    repeated = told.visit(again)
    if again.calls or repeated.installer.state != state:
        raise Broken(f"a repeated run makes {again.calls} calls in {repeated.installer.state}")
