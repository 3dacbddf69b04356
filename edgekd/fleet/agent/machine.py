"""What is to be done on one device for one model: (state, event) -> (state, actions). No I/O, no clock.

    idle -> fetched -> staged -> trying(n <= 3) -> confirmed
                 \\         \\          \\-> reverted(reason), the hash quarantined

1. The state that `step` returns is on the disk before its actions begin, and the actions are done in order.
2. The state is the truth and the link `current` follows it: `Point` is among the actions of every start, so a
   cut between the two is mended by the next start.
3. What serves is touched by nothing before the trial has passed: the trial runs beside it.
4. A slot is removed only behind a `Point` that has succeeded (`Clean` comes last).
5. A trial that was cut is begun again, three times in all; one that was disturbed (a throttled processor) is
   repeated, and put off to the next start after `MOST_DISTURBED`. More than `MOST_BOOTS` starts with one
   candidate on its way revert it: no order of cuts makes a loop.
6. A reverted hash is quarantined. It is offered again in vain until the rollout says `attempt` + 1, or
   another rollout wants it.
7. An event that does not fit the phase changes nothing: late and doubled events are harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edgekd.fleet.agent.state import MOST_QUARANTINED, Candidate, Quarantined, State

MOST_TRIALS = 3
MOST_DISTURBED = 3
MOST_BOOTS = 9


# ---- events ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The agent has started, after a cut or in peace."""


@dataclass(frozen=True)
class Fetched:
    """A release that the policy admits lies whole in incoming/. `now_s`: the time it was admitted at."""

    candidate: Candidate
    now_s: int = 0


@dataclass(frozen=True)
class Staged:
    """The candidate lies whole in its slot."""


@dataclass(frozen=True)
class StagingFailed:
    """It does not. permanent: it never will (it contradicts itself); else it may be fetched anew."""

    reason: str
    permanent: bool = False


@dataclass(frozen=True)
class TrialBegins:
    """The trial is about to run."""


@dataclass(frozen=True)
class TrialPassed:
    """The candidate keeps every limit."""


@dataclass(frozen=True)
class TrialFailed:
    """It does not."""

    reason: str


@dataclass(frozen=True)
class TrialDisturbed:
    """Nobody can say: the device was throttled, or out of memory for other reasons."""

    reason: str


@dataclass(frozen=True)
class Unwell:
    """After it was confirmed, the release crashed or erred too often."""

    sha256: str
    reason: str


@dataclass(frozen=True)
class RevertAsked:
    """Somebody wants the release before this one, now."""

    reason: str


@dataclass(frozen=True)
class SlotDamaged:
    """A slot does not read back as it was written."""

    sha256: str


@dataclass(frozen=True)
class FloorSeen:
    """`releases` names this as the least release that may run."""

    floor: int


Event = (
    Started
    | Fetched
    | Staged
    | StagingFailed
    | TrialBegins
    | TrialPassed
    | TrialFailed
    | TrialDisturbed
    | Unwell
    | RevertAsked
    | SlotDamaged
    | FloorSeen
)


# ---- actions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Make the slot from what lies in incoming/; then Staged or StagingFailed."""

    sha256: str


@dataclass(frozen=True)
class Raise:
    """Take this event next."""

    event: Event


@dataclass(frozen=True)
class RunTrial:
    """Try the slot beside the one that serves; then TrialPassed, TrialFailed or TrialDisturbed."""

    sha256: str
    against: str | None


@dataclass(frozen=True)
class Point:
    """Let `current` name this slot, durably."""

    sha256: str


@dataclass(frozen=True)
class Restart:
    """Tell the serving unit that `current` has changed."""


@dataclass(frozen=True)
class Clean:
    """Remove what no state needs: other slots, staging/, incoming/."""


Action = Stage | Raise | RunTrial | Point | Restart | Clean
Result = tuple[State, tuple[Action, ...]]


def step(state: State, event: Event) -> Result:
    """The next state and what to do, in order."""
    return STEPS[type(event)](state, event)


def _nothing(state: State) -> Result:
    return state, ()


def _started(state: State, event: Started) -> Result:
    follow: tuple[Action, ...] = (Point(state.confirmed.sha256),) if state.confirmed else ()
    candidate = state.candidate
    if candidate is None:
        return state, (*follow, Clean())
    counted = state.trials - state.disturbed
    state = replace(state, boots=state.boots + 1, trials=counted, disturbed=0)
    if state.boots > MOST_BOOTS:
        return _reverted(state, "loop")
    if state.phase == "fetched":
        return state, (*follow, Stage(candidate.sha256))
    return state, (*follow, Raise(TrialBegins()))


def _fetched(state: State, event: Fetched) -> Result:
    offer = event.candidate
    serving = state.serves(offer.sha256) and not state.damaged
    if not state.at_rest or serving or state.is_quarantined(offer) or offer.release < state.floor:
        return _nothing(state)
    fresh = replace(state, phase="fetched", candidate=offer, trials=0, disturbed=0, boots=0, reason="")
    return replace(fresh, installed_at_s=event.now_s), (Stage(offer.sha256),)


def _staged(state: State, event: Staged) -> Result:
    if state.phase != "fetched":
        return _nothing(state)
    return replace(state, phase="staged"), (Raise(TrialBegins()),)


def _staging_failed(state: State, event: StagingFailed) -> Result:
    if state.phase != "fetched":
        return _nothing(state)
    return _reverted(state, event.reason) if event.permanent else _dropped(state, event.reason)


def _trial_begins(state: State, event: TrialBegins) -> Result:
    if state.phase not in ("staged", "trying") or state.candidate is None:
        return _nothing(state)
    if state.trials - state.disturbed >= MOST_TRIALS:
        return _reverted(state, "trial-cut")
    serving = None if state.damaged else state.confirmed
    against = serving.sha256 if serving else None
    trying = replace(state, phase="trying", trials=state.trials + 1)
    return trying, (RunTrial(state.candidate.sha256, against),)


def _trial_passed(state: State, event: TrialPassed) -> Result:
    if state.phase != "trying" or state.candidate is None:
        return _nothing(state)
    new = state.candidate
    before = None if state.serves(new.sha256) or state.damaged else state.confirmed
    done = replace(_at_rest(state, ""), phase="confirmed", confirmed=new, previous=before, damaged=False)
    return done, (Point(new.sha256), Restart(), Clean())


def _trial_failed(state: State, event: TrialFailed) -> Result:
    return _reverted(state, event.reason) if state.phase == "trying" else _nothing(state)


def _trial_disturbed(state: State, event: TrialDisturbed) -> Result:
    if state.phase != "trying":
        return _nothing(state)
    again = replace(state, phase="staged", disturbed=state.disturbed + 1, reason=event.reason)
    if again.disturbed >= MOST_DISTURBED:
        return replace(again, trials=0, disturbed=0), ()
    return again, (Raise(TrialBegins()),)


def _unwell(state: State, event: Unwell) -> Result:
    serving = state.confirmed
    if serving is None or serving.sha256 != event.sha256:
        return _nothing(state)
    return _back(state, event.reason, quarantine=True)


def _revert_asked(state: State, event: RevertAsked) -> Result:
    if state.candidate is not None:
        return _reverted(state, event.reason)
    return _back(state, event.reason, quarantine=True)


def _slot_damaged(state: State, event: SlotDamaged) -> Result:
    """A flipped bit is not the release's fault: no quarantine, it may be fetched anew."""
    if state.candidate is not None and state.candidate.sha256 == event.sha256:
        return _dropped(state, "slot-damaged")
    if state.serves(event.sha256):
        return _back(replace(state, damaged=True), "slot-damaged", quarantine=False)
    if state.previous is not None and state.previous.sha256 == event.sha256:
        return replace(state, previous=None), (Clean(),)
    return _nothing(state)


def _floor_seen(state: State, event: FloorSeen) -> Result:
    return replace(state, floor=max(state.floor, event.floor)), ()


def _at_rest(state: State, reason: str) -> State:
    empty = replace(state, candidate=None, trials=0, disturbed=0, boots=0, reason=reason)
    return replace(empty, phase=state.resting_phase)


def _dropped(state: State, reason: str) -> Result:
    """The candidate is given up without a verdict."""
    return _at_rest(state, reason), (Clean(),)


def _reverted(state: State, reason: str) -> Result:
    """The candidate is given up for good; what serves was never touched."""
    if state.candidate is None:
        return _nothing(state)
    listed = _with_quarantined(state.quarantine, state.candidate, reason)
    done = replace(_at_rest(state, reason), phase="reverted", quarantine=listed)
    point: tuple[Action, ...] = (Point(state.confirmed.sha256),) if state.confirmed else ()
    return done, (*point, Clean())


def _back(state: State, reason: str, *, quarantine: bool) -> Result:
    """From the confirmed release to the one before it, where there is one that the floor admits."""
    serving, before = state.confirmed, state.previous
    if serving is None or before is None or before.release < state.floor:
        return replace(state, reason=f"{reason}, and nothing to go back to"), ()
    listed = _with_quarantined(state.quarantine, serving, reason) if quarantine else state.quarantine
    rest = _at_rest(state, reason)
    done = replace(rest, phase="reverted", confirmed=before, previous=None, quarantine=listed, damaged=False)
    return done, (Point(before.sha256), Restart(), Clean())


def _with_quarantined(
    known: Mapping[str, Quarantined], candidate: Candidate, reason: str
) -> dict[str, Quarantined]:
    """The list with one more; the oldest leaves when it is full."""
    others = {name: each for name, each in known.items() if name != candidate.sha256}
    entry = Quarantined(candidate.release, candidate.rollout, candidate.attempt, reason)
    return {**dict(list(others.items())[-(MOST_QUARANTINED - 1) :]), candidate.sha256: entry}


STEPS: dict[type, Callable[..., Result]] = {
    Started: _started,
    Fetched: _fetched,
    Staged: _staged,
    StagingFailed: _staging_failed,
    TrialBegins: _trial_begins,
    TrialPassed: _trial_passed,
    TrialFailed: _trial_failed,
    TrialDisturbed: _trial_disturbed,
    Unwell: _unwell,
    RevertAsked: _revert_asked,
    SlotDamaged: _slot_damaged,
    FloorSeen: _floor_seen,
}
