"""Performs the machine's actions on a disk: the only place where its state is read and written.

`Installer.handle` takes an event through `machine.step` until nothing follows: the new state is stored,
whole and durable, then its actions are done in order. Cut anywhere, a new `Installer` and `start` go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from edgekd.fleet.agent import durable, machine, slots
from edgekd.fleet.agent.disk import Disk
from edgekd.fleet.agent.state import Candidate, DamagedStateError, State, dump, parse

STATE_FILE = "state.json"

# The slot to try and the one that serves (None: none does) -> TrialPassed, TrialFailed or TrialDisturbed.
Trial = Callable[[str, str | None], machine.Event]


class Installer:
    """One model's directory. trial: tries a slot; restart: tells the serving unit of a new `current`."""

    def __init__(self, disk: Disk, trial: Trial, restart: Callable[[], None]) -> None:
        self.disk, self._trial, self._restart = disk, trial, restart
        slots.prepare(disk)
        self.state = load(disk)

    def start(self) -> State:
        """What every start of the agent begins with: go on where the last ended, and look at the slots."""
        self.handle(machine.Started())
        for each in (self.state.confirmed, self.state.previous):
            if each is not None and not slots.is_whole(self.disk, each.sha256):
                self.handle(machine.SlotDamaged(each.sha256))
        return self.state

    def handle(self, event: machine.Event) -> State:
        """Take an event, and what follows from it, to its end. Raises OSError where the disk refuses."""
        pending = [event]
        while pending:
            state, actions = machine.step(self.state, pending.pop(0))
            self._store(state)
            for action in actions:
                follows = self._perform(action)
                pending += [follows] if follows else []
        return self.state

    def _store(self, state: State) -> None:
        if state != self.state:
            durable.write_whole(self.disk, STATE_FILE, dump(state))
            self.state = state

    def _perform(self, action: machine.Action) -> machine.Event | None:
        match action:
            case machine.Stage(sha256):
                return self._stage(sha256)
            case machine.Raise(event):
                return event
            case machine.RunTrial(sha256, against):
                return self._trial(sha256, against)
            case machine.Point(sha256):
                durable.point(self.disk, "current", slots.slot(sha256))
            case machine.Restart():
                self._restart()
            case machine.Clean():
                with contextlib.suppress(OSError):  # the next start cleans again
                    slots.clean(self.disk, self.state.wanted())
        return None

    def _stage(self, sha256: str) -> machine.Event:
        try:
            slots.stage(self.disk, sha256)
            return machine.Staged()
        except slots.IncompleteError:
            return machine.StagingFailed("incomplete")
        except OSError as error:
            return machine.StagingFailed("disk-full" if error.errno in durable.FULL else "disk-error")


def load(disk: Disk) -> State:
    """The state of a directory. Without a sound file: what `current` names, where that is whole."""
    if disk.kind(STATE_FILE) == "file":
        try:
            return parse(disk.read(STATE_FILE))
        except DamagedStateError:
            return _adopted(disk)
    return _adopted(disk)


def _adopted(disk: Disk) -> State:
    serving = slots.current(disk)
    if serving is None or not slots.is_whole(disk, serving):
        return State()
    found = Candidate(serving, slots.release_of(disk, serving))
    return State(phase="confirmed", confirmed=found, adopted=True)
