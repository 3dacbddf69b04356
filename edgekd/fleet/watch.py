"""The watcher: collects reports, appends events, decides, signs. It may die anywhere and be started again.

One `step` is: renew the lease, fold what others wrote, append the answers that came, append the gate's
decisions, then make the static host say what the state wants. The log is written before anything is signed,
and what is signed follows from the state, so a watcher that dies in between signs on its next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from edgekd.fleet.gate import Outcome
from edgekd.fleet.log import EventLog, Follower
from edgekd.fleet.rollout import ENDED, Event, Rollout

Word = Literal["began", "confirmed", "failed", "well", "unwell"]
CONTROLS = 1000  # the last of a rollout's devices, as long as they are on the old release


@dataclass(frozen=True)
class Report:
    """What one device says of a rollout: that it began, confirmed the release, or failed on it; or, of the
    release before, that it is well or unwell.

    Verified before it comes here: signature, device, rollout, and that it is not older than the last one.
    """

    device: str
    word: Word
    at_s: float
    why: str = ""


class Publisher(Protocol):
    """Signs the rollout's wave and lays it on the static host."""

    def published(self) -> tuple[int, str, int] | None:
        """(ppm, state, attempt) that the host says now; None: nothing of this rollout yet."""

    def publish(self, ppm: int, state: str, attempt: int) -> None:
        """Sign and lay out; whole or not at all."""


class Watcher:
    """Watches one rollout. `owner` names this process for the lease (user@host:pid)."""

    def __init__(
        self,
        log: EventLog,
        rollout: str,
        owner: str,
        collect: Callable[[], Iterable[Report]],
        publisher: Publisher,
    ) -> None:
        self.log, self.owner = log, owner
        self.follower = Follower(log, rollout)
        self._collect, self._publisher = collect, publisher
        self.holder: str | None = None  # who holds the lease instead, after a step that only waited

    @property
    def rollout(self) -> Rollout:
        return self.follower.rollout

    def step(self, now_s: float) -> list[Event]:
        """One look; the events that were appended. Nothing is done while another watcher holds the lease."""
        self.holder = self.log.lease(self.follower.name, self.owner, now_s)
        if self.holder is not None:
            self.follower.catch_up()
            return []
        reports = list(self._collect())
        written = self.follower.write(lambda state: answers(state, reports, now_s))
        while decided := self.follower.write(lambda state: state.decide(now_s)):
            written += decided
        self._publish()
        return written

    def sign(self, now_s: float) -> list[Event]:
        """Only make the host say what the state wants, for a person who has just written into the log."""
        self.holder = self.log.lease(self.follower.name, self.owner, now_s)
        if self.holder is None:  # else who watches signs it on the next look
            self._publish()
        return []

    def _publish(self) -> None:
        if self.rollout.status != "planned" and self._publisher.published() != self.rollout.wanted:
            self._publisher.publish(*self.rollout.wanted)

    @property
    def is_over(self) -> bool:
        return self.rollout.status in ENDED

    def close(self) -> None:
        self.log.release(self.follower.name, self.owner)


def answers(state: Rollout, reports: Iterable[Report], now_s: float) -> list[Event]:
    """The reports that say something new, as few events: devices that began, confirmed, failed, in order.

    Of devices outside the rollout's list, duplicates and replays, nothing is left. A device that answers
    without having said that it began is admitted first.
    """
    ours = state.members
    began: dict[str, None] = {}
    ends: dict[str, Report] = {}
    for report in sorted(reports, key=lambda report: report.at_s):
        if report.device not in ours or report.word in ("well", "unwell"):
            continue
        if state.ledger.outcome(report.device) is None:
            began.setdefault(report.device)
        before = ends.get(report.device)
        if report.word != "began" and (before is None or before.word != "failed"):
            ends[report.device] = report
    events = [Event("admitted", now_s, devices=tuple(began))] if began else []
    outcomes: tuple[Outcome, ...] = ("confirmed", "failed")
    for outcome in outcomes:
        fresh = [
            report
            for device, report in ends.items()
            if report.word == outcome and state.ledger.outcome(device) not in (outcome, "failed")
        ]
        if fresh:
            why = "; ".join(dict.fromkeys(report.why for report in fresh if report.why))[:500]
            devices = tuple(report.device for report in fresh)
            events.append(Event("answered", now_s, devices=devices, outcome=outcome, why=why))
    return events + controls(state, reports, now_s)


def controls(state: Rollout, reports: Iterable[Report], now_s: float) -> list[Event]:
    """What the devices on the release before say: who is well joins the control, who then falls ill fails in
    it. Who was unwell before the rollout looked says nothing of the time since."""
    well: dict[str, None] = {}
    unwell: dict[str, None] = {}
    last = frozenset(state.plan.devices[-CONTROLS:])
    for report in reports:
        known = state.control.outcome(report.device)
        if report.device not in last or state.ledger.outcome(report.device) is not None:
            continue
        if report.word == "well" and known is None:
            well.setdefault(report.device)
        elif report.word == "unwell" and known == "confirmed":
            unwell.setdefault(report.device)
    found = [Event("control", now_s, devices=tuple(well), outcome="confirmed")] if well else []
    return found + ([Event("control", now_s, devices=tuple(unwell), outcome="failed")] if unwell else [])
