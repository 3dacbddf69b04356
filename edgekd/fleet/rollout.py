"""A rollout as a fold over its event log, and what to do next: pure, so that any watcher decides the same.

`Rollout.apply(event)` takes events in the order of the log; `decide(now_s)` returns the events that a watcher
appends next (silence past the deadline, then the gate's verdict). What the static host must say follows from
the state alone (`wanted`), so a watcher that dies between writing the log and signing does it over again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

from edgekd.fleet.formats import PPM, wave_hash
from edgekd.fleet.gate import Ledger, Limits, Outcome, Verdict, judge

Kind = Literal[
    "started",
    "admitted",
    "answered",
    "control",
    "widened",
    "paused",
    "resumed",
    "stopped",
    "finished",
    "recalled",
]
Status = Literal["planned", "running", "paused", "stopped", "finished", "recalled"]

ENDED: frozenset[Status] = frozenset({"stopped", "finished", "recalled"})
GATE = "gate"  # who paused, stopped, widened or finished, where no person did


@dataclass(frozen=True)
class Event:
    """One line of the log. at_s: Unix seconds by the clock of who wrote it; by: a person, or "gate".

    admitted, answered, control: `devices`, in order; answered and control: their `outcome`. widened:
    `allowed`, devices that may take part. resumed: `devices`, lost canaries that this person accepts;
    `has_yes`, a yes to one wave that no bound allows; `afresh`: what failed is tried again and all evidence
    so far is dropped (the environment was to blame).
    """

    kind: Kind
    at_s: float
    by: str = GATE
    devices: tuple[str, ...] = ()
    outcome: Outcome = "open"
    allowed: int = 0
    has_yes: bool = False
    afresh: bool = False
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What is fixed before a rollout starts.

    devices: everybody it is for, in the order in which they may take part (`ordered`); canaries: how many of
    them are named outright; limits: the gate's; deadline_s: an admitted device that has not answered after
    so long has failed, and a device that has not begun so long after its wave widened is no longer waited
    for; control: devices that stay on the old release for comparison take no part and are not listed.
    """

    rollout: str
    model: str
    release: int
    salt: str
    devices: tuple[str, ...]
    limits: Limits
    deadline_s: float


def ordered(salt: str, devices: Iterable[str]) -> tuple[str, ...]:
    """The order in which devices may take part: by `wave_hash`, random by salt."""
    return tuple(sorted(devices, key=lambda device: (wave_hash(salt, device), device)))


def ppm_of(plan: Plan, allowed: int) -> int:
    """The least ppm at which the first `allowed` devices are in: exact unless two hashes are within 1 ppm."""
    if allowed <= 0:
        return 0
    if allowed >= len(plan.devices):
        return PPM
    return min(PPM, (wave_hash(plan.salt, plan.devices[allowed - 1]) * PPM >> 64) + 1)


@dataclass
class Rollout:
    """The state behind the events so far."""

    plan: Plan
    status: Status = "planned"
    allowed: int = 0
    widened_at_s: float = 0.0
    why: str = ""
    has_yes: bool = False
    attempt: int = 1
    accepted: set[str] = field(default_factory=set)
    ledger: Ledger = field(init=False)
    control: Ledger = field(init=False)
    members: frozenset[str] = frozenset()  # everybody it is for
    _waiting: deque[tuple[float, str]] = field(default_factory=deque)
    _canaries: frozenset[str] = frozenset()
    _lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.plan.limits.tolerated)
        self.control = Ledger(self.plan.limits.tolerated)
        self.members = frozenset(self.plan.devices)
        self._canaries = frozenset(self.plan.devices[: self.plan.limits.canaries])

    def apply(self, event: Event) -> None:
        """Take the next event of the log. What a later state cannot mean any more is ignored, not refused:
        two watchers that both wrote "paused" leave one pause."""
        if event.kind == "admitted":
            self.ledger.admit(event.devices)
            self._waiting.extend((event.at_s, device) for device in event.devices)
        elif event.kind == "answered":
            self._answered(event)
        elif event.kind == "control":
            self.control.admit(event.devices)
            for device in event.devices:
                self.control.answer(device, event.outcome)
        elif self.status not in ENDED:
            self._steered(event)
        elif event.kind == "recalled":
            self.status, self.why = "recalled", event.why

    def _answered(self, event: Event) -> None:
        for device in event.devices:
            if self.ledger.answer(device, event.outcome) and device in self._canaries:
                (self._lost.discard if event.outcome == "confirmed" else self._lost.add)(device)

    def _steered(self, event: Event) -> None:
        if event.kind == "started" and self.status == "planned":
            self.status, self.widened_at_s = "running", event.at_s
            self.allowed = min(self.plan.limits.canaries, len(self.plan.devices))
        elif event.kind == "widened" and event.allowed > self.allowed:
            self.allowed, self.widened_at_s, self.has_yes = event.allowed, event.at_s, False
        elif event.kind == "resumed" and self.status != "planned":
            self.status, self.has_yes = "running", event.has_yes
            self.accepted |= set(event.devices)
            if event.afresh:
                self._start_afresh()
        elif event.kind == "paused":
            self.status = "paused"
        elif event.kind in ("stopped", "finished", "recalled"):
            self.status = event.kind
        self.why = event.why

    def _start_afresh(self) -> None:
        """Keep who confirmed; everybody else is admitted again, at a higher attempt."""
        kept = self.ledger.devices("confirmed")
        self.attempt += 1
        self._lost.clear()
        self._waiting.clear()
        self.ledger, self.control = (Ledger(self.plan.limits.tolerated) for _ in range(2))
        self.ledger.admit(kept)
        for device in kept:
            self.ledger.answer(device, "confirmed")

    @property
    def lost_canaries(self) -> tuple[str, ...]:
        """Canaries that failed or fell silent, and that nobody has accepted."""
        return tuple(sorted(self._lost - self.accepted))

    def verdict(self, now_s: float) -> Verdict:
        """The gate's answer to the state at this time."""
        begun = self.ledger.admitted >= self.allowed
        return judge(
            self.ledger,
            self.control,
            self.plan.limits,
            len(self.plan.devices),
            self.allowed,
            lost_canaries=len(self._lost - self.accepted),
            is_over=begun or self._is_past(self.widened_at_s, now_s),
            has_yes=self.has_yes,
        )

    def decide(self, now_s: float) -> list[Event]:
        """The events to append now; none where there is nothing to do. Apply them before asking again."""
        if self.status in ENDED or self.status == "planned":
            return []
        silent = self._silent(now_s)
        if silent:
            return [Event("answered", now_s, devices=silent, outcome="silent", why="no answer in time")]
        found = self.verdict(now_s)
        if found.action == "stop":
            return [Event("stopped", now_s, why=found.why)]
        if self.status == "paused":  # by a person or the gate: only evidence moves it on by itself
            return []
        if found.action == "pause":
            return [Event("paused", now_s, why=found.why)]
        if found.action == "widen":
            return [Event("widened", now_s, allowed=found.allowed, why=found.why)]
        return [Event("finished", now_s, why=found.why)] if found.action == "finish" else []

    def _is_past(self, at_s: float, now_s: float) -> bool:
        """Whether a deadline that began at `at_s` is over; one that begins a whole deadline from now was
        written by a clock that has stepped back since, and is not waited for."""
        return not at_s - self.plan.deadline_s <= now_s < at_s + self.plan.deadline_s

    def _silent(self, now_s: float) -> tuple[str, ...]:
        while self._waiting and self.ledger.outcome(self._waiting[0][1]) != "open":
            self._waiting.popleft()
        late = takewhile(lambda waiting: self._is_past(waiting[0], now_s), self._waiting)
        return tuple(device for _, device in late if self.ledger.outcome(device) == "open")

    @property
    def wanted(self) -> tuple[int, str, int]:
        """(ppm, state, attempt) for the signed wave: a stopped or paused rollout takes nobody in."""
        state = "running" if self.status in ("running", "finished") else "paused"
        first = self.allowed <= self.plan.limits.canaries and self.allowed < len(self.plan.devices)
        return (0 if first else ppm_of(self.plan, self.allowed)), state, self.attempt


def replay(plan: Plan, events: Sequence[Event]) -> Rollout:
    """The state behind a whole log."""
    rollout = Rollout(plan)
    for event in events:
        rollout.apply(event)
    return rollout


def advance(rollout: Rollout, now_s: float, append: list[Event]) -> None:
    """Decide until nothing is left to do, applying each event and adding it to `append`."""
    while events := rollout.decide(now_s):
        for event in events:
            rollout.apply(event)
            append.append(replace(event, at_s=now_s))
