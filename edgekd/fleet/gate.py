"""The fleet's gate: whether a rollout stops, pauses, waits or widens, from what its devices answered.

Pure functions of data; docs/methods/rollout-gate.md has the mathematics. Stopping is a sequential test: the
evidence may be looked at after every answer. Devices count in the order in which they were admitted, one
outcome each, for the order of arrival convicts good releases (failures report first). An admitted device
without an answer counts as a success for the stop and, past its deadline, as a failure for the widening.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgekd.evaluate.intervals import clopper_pearson

# Chance of ever stopping a release that fails at the tolerated rate: evidence of 1 / ALPHA : 1 is asked for.
ALPHA = 1e-3
# Beta prior of the failure rate, cut off below the tolerated rate: most of its mass is below a third.
PRIOR_FAILURES, PRIOR_SUCCESSES = 1, 9
CONFIDENCE = 0.95  # one-sided, of the upper bound that limits the next wave

Outcome = Literal["open", "confirmed", "failed", "silent"]
OUTCOMES: tuple[Outcome, ...] = ("open", "confirmed", "failed", "silent")
_OPEN, _CONFIRMED, _FAILED, _SILENT = range(4)


def log_evidence(failures: int, devices: int, tolerated: float) -> float:
    """Natural logarithm of the evidence against "the failure rate is at most `tolerated`".

    A mixture e-value: the likelihood under the prior Beta(1, 9) restricted to rates above `tolerated`, over
    the likelihood at `tolerated`. With whole numbers the incomplete beta integral is a binomial tail:

        E = B(1 + k, 9 + n - k) / B(1, 9) * P(Bin(n + 9, p0) <= k) / ((1 - p0)^9 * p0^k * (1 - p0)^(n - k))

    Under any rate up to `tolerated` the chance that E ever reaches 1 / alpha is at most alpha, however often
    one looks (Ville's inequality; Robbins 1970; Netflix's sequential canary tests, arXiv 2205.14762).
    """
    k, n, p0 = failures, devices, tolerated
    prior = _log_beta(PRIOR_FAILURES, PRIOR_SUCCESSES) + PRIOR_SUCCESSES * math.log1p(-p0)
    posterior = _log_beta(PRIOR_FAILURES + k, PRIOR_SUCCESSES + n - k)
    tail = log_binomial_tail(k, n + PRIOR_SUCCESSES, p0)
    return posterior + tail - prior - k * math.log(p0) - (n - k) * math.log1p(-p0)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_binomial_tail(k: int, n: int, p: float) -> float:
    """ln P(Bin(n, p) <= k), summed from the largest term down until nothing is added."""
    if k >= n:
        return 0.0
    top = min(k, int((n + 1) * p))
    log_top = (
        math.lgamma(n + 1)
        - math.lgamma(top + 1)
        - math.lgamma(n - top + 1)
        + top * math.log(p)
        + (n - top) * math.log1p(-p)
    )
    odds = p / (1 - p)
    total = _falling(top, n, 1 / odds, -1, 0) + _falling(top, n, odds, 1, k) + 1.0
    return min(0.0, log_top + math.log(total))


def _falling(top: int, n: int, odds: float, step: int, end: int) -> float:
    """The terms beside the largest, relative to it, in one direction."""
    total, term, i = 0.0, 1.0, top
    while i != end:
        term *= odds * (i / (n - i + 1) if step < 0 else (n - i) / (i + 1))
        i += step
        total += term
        if term < 1e-17 * (1 + total):
            break
    return total


def upper_bound(failures: int, devices: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound of the failure rate (Clopper and Pearson 1934); 1 where nothing is known."""
    return clopper_pearson(failures, devices, 2 * confidence - 1).high


class Ledger:
    """One outcome a device, in order of admission, and the evidence that they amount to.

    Answers may come twice, late or in any order: a failure stays a failure, a late answer replaces silence,
    and an answer of a device that was never admitted is ignored. So the same answers in any order give the
    same ledger.
    """

    def __init__(self, tolerated: float) -> None:
        self.tolerated = tolerated
        self._place: dict[str, int] = {}
        self._outcomes = bytearray()
        self._counts = [0, 0, 0, 0]
        self._failed: list[int] = []  # places, ascending
        self._evidence: list[float] = []  # behind each of them

    def admit(self, devices: Iterable[str]) -> None:
        """Take devices in, in this order; one that is in stays where it is."""
        for device in devices:
            if device not in self._place:
                self._place[device] = len(self._place)
                self._outcomes.append(_OPEN)
                self._counts[_OPEN] += 1

    def answer(self, device: str, outcome: Outcome) -> bool:
        """Note an outcome; whether it changed anything."""
        place, new = self._place.get(device), OUTCOMES.index(outcome)
        if place is None:
            return False
        old = self._outcomes[place]
        settled = old == _FAILED or (new == _SILENT and old != _OPEN)
        if settled or new in (old, _OPEN):
            return False
        self._outcomes[place] = new
        self._counts[old] -= 1
        self._counts[new] += 1
        if new == _FAILED:
            self._weigh(place)
        return True

    def _weigh(self, place: int) -> None:
        at = bisect.bisect(self._failed, place)
        self._failed.insert(at, place)
        behind = range(at, len(self._failed))
        self._evidence[at:] = [log_evidence(j + 1, self._failed[j] + 1, self.tolerated) for j in behind]

    def outcome(self, device: str) -> Outcome | None:
        """What is known of a device; None: it was never admitted."""
        place = self._place.get(device)
        return None if place is None else OUTCOMES[self._outcomes[place]]

    def devices(self, outcome: Outcome) -> list[str]:
        """The admitted devices with this outcome, in order."""
        wanted = OUTCOMES.index(outcome)
        return [device for device, place in self._place.items() if self._outcomes[place] == wanted]

    @property
    def admitted(self) -> int:
        return len(self._place)

    @property
    def open(self) -> int:
        return self._counts[_OPEN]

    @property
    def confirmed(self) -> int:
        return self._counts[_CONFIRMED]

    @property
    def failed(self) -> int:
        return self._counts[_FAILED]

    @property
    def silent(self) -> int:
        return self._counts[_SILENT]

    @property
    def answered(self) -> int:
        """Devices that count for the widening: confirmed, failed, or silent past the deadline."""
        return self.admitted - self.open

    @property
    def log_evidence(self) -> float:
        """The greatest evidence behind any admitted device: it never falls by later successes."""
        return max(self._evidence, default=0.0)

    def path(self) -> list[tuple[int, float]]:
        """(devices admitted up to a failure, evidence there as odds), for the plot."""
        pairs = zip(self._failed, self._evidence, strict=True)
        return [(place + 1, math.exp(min(700.0, e))) for place, e in pairs]


@dataclass(frozen=True)
class Limits:
    """What a rollout may cost. tolerated: p0, signed with the release; max_failed_devices: how many devices
    the next wave may be expected to lose; canaries: size of the first wave."""

    tolerated: float
    max_failed_devices: float
    canaries: int

    @staticmethod
    def of(tolerated: float, devices: int, canaries: int, max_failed_devices: float | None = None) -> Limits:
        """`max_failed_devices` is by default one and a half times what the rate tolerates, 8 at least."""
        default = max(8.0, math.ceil(1.5 * tolerated * devices))
        return Limits(tolerated, default if max_failed_devices is None else max_failed_devices, canaries)


Action = Literal["stop", "pause", "wait", "ask", "widen", "finish"]


@dataclass(frozen=True)
class Verdict:
    """What to do, and why in one sentence. allowed: devices that may take part after it, canaries included.

    "ask": no bound allows even one device more, so a person decides. log_odds: evidence against the
    tolerated rate; bound: upper bound of the failure rate, silence counted as failure; None: the answers
    are not complete enough to ask for it.
    """

    action: Action
    why: str
    allowed: int
    log_odds: float
    bound: float | None


def judge(
    ledger: Ledger,
    control: Ledger,
    limits: Limits,
    devices: int,
    allowed: int,
    *,
    lost_canaries: int = 0,
    is_over: bool = False,
    has_yes: bool = False,
) -> Verdict:
    """The gate's verdict.

    ledger: the devices of the rollout; control: devices on the old release over the same time, which never
    set the tolerated rate: where they fail the same test, the environment is to blame and nothing is
    convicted. devices: how many the rollout is for; allowed: how many may take part now. lost_canaries:
    canaries that failed or fell silent and that no person has accepted. is_over: every device that may take
    part has begun, or its time to begin is over. has_yes: a person said yes to one wave without a bound.
    """
    odds, limit = ledger.log_evidence, math.log(1 / ALPHA)

    def verdict(action: Action, why: str, now: int = allowed, bound: float | None = None) -> Verdict:
        return Verdict(action, why, now, odds, bound)

    if odds >= limit and control.log_evidence >= limit:
        return verdict("pause", environment(control))
    if odds >= limit:
        return verdict("stop", conviction(ledger))
    if lost_canaries:
        return verdict("pause", f"{count(lost_canaries, 'canary')} did not confirm: look at it, then resume")
    if ledger.open or not is_over:
        return verdict("wait", f"{ledger.open} of {ledger.admitted} admitted devices have not answered yet")
    bound = upper_bound(ledger.failed + ledger.silent, ledger.answered) if ledger.answered else 1.0
    if allowed >= devices:
        return verdict("finish", f"{tally(ledger)} of {count(devices, 'device')}", bound=bound)
    room = min(max(ledger.answered, limits.canaries), math.floor(limits.max_failed_devices / bound + 1e-9))
    grown = min(devices, ledger.answered + room)
    if grown > allowed:
        return verdict("widen", widening(ledger, bound, allowed, grown), grown, bound)
    if has_yes:
        grown = min(devices, allowed + max(1, allowed))
        return verdict("widen", "widened by the operator's yes", grown, bound)
    return verdict("ask", shortage(ledger, limits, bound), bound=bound)


def environment(control: Ledger) -> str:
    return (
        f"paused: {control.failed} of {control.admitted} devices on the old release fail, too:"
        " the environment is to blame, not the release"
    )


def conviction(ledger: Ledger) -> str:
    """ "stopped after 6 of 212: evidence 1,400 : 1 against 1 %"."""
    odds = math.exp(min(700.0, ledger.log_evidence))
    shown = f"{odds:,.0f}" if odds < 1e9 else f"{odds:.1e}"
    return (
        f"stopped after {ledger.failed} of {ledger.admitted}: evidence {shown} : 1 against"
        f" {100 * ledger.tolerated:g} %"
    )


def widening(ledger: Ledger, bound: float, allowed: int, grown: int) -> str:
    return (
        f"from {allowed} to {count(grown, 'device')}: {tally(ledger)}, at most {100 * bound:.2g} % fail"
        f" ({100 * CONFIDENCE:g} % sure)"
    )


def shortage(ledger: Ledger, limits: Limits, bound: float) -> str:
    return (
        f"{tally(ledger)}: so few answers leave up to {100 * bound:.2g} % failures possible, and one device"
        f" more may not be lost ({limits.max_failed_devices:g} allowed): say yes to widen"
    )


def tally(ledger: Ledger) -> str:
    parts = [f"{ledger.confirmed} confirmed", f"{ledger.failed} failed"]
    return ", ".join(parts + ([f"{ledger.silent} silent"] if ledger.silent else []))


def count(number: int, noun: str) -> str:
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


def least_failures(tolerated: float) -> int:
    """How many devices must fail, all of the first ones, before the evidence can stop a rollout."""
    number = 1
    while log_evidence(number, number, tolerated) < math.log(1 / ALPHA):
        number += 1
    return number


def waves(limits: Limits, devices: int) -> list[tuple[int, float]]:
    """The plan where every device confirms: (devices that may take part, bound behind them) a wave.

    The last size is below `devices` where no bound allows more and a person is asked.
    """
    ledger, control, steps = Ledger(limits.tolerated), Ledger(limits.tolerated), []
    allowed = min(limits.canaries, devices)
    while True:
        fresh = [str(i) for i in range(ledger.admitted, allowed)]
        ledger.admit(fresh)
        for device in fresh:
            ledger.answer(device, "confirmed")
        found = judge(ledger, control, limits, devices, allowed, is_over=True)
        steps.append((allowed, found.bound or 0.0))
        if found.action != "widen":
            return steps
        allowed = found.allowed
