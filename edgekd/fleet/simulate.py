"""A simulated fleet under the shipped gate: what a rollout would cost, before it is started.

The rollout's state and decisions are `rollout.py`'s own, called as the watcher calls them: at every tick
with the events since the last one. Only the devices are made up: when they begin, how they answer, who is
bad, silent, or cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekd.fleet.gate import Limits
from edgekd.fleet.rollout import ENDED, Event, Plan, Rollout, advance


@dataclass(frozen=True)
class Fleet:
    """Who is simulated. Times in seconds.

    failing: share of devices on which the release fails; silent: share that begins and never answers;
    absent: share that never begins. poll_s: a device begins within so long; a failure answers after fail_s
    on average, a success after soak_s and then reply_s on average. outage_from_s, outage_s: nobody begins or
    answers meanwhile (the network is down). environment: from this time on every device that tries anything
    fails, those on the old release too; None: never. control: devices on the old release that report.
    """

    devices: int = 1000
    failing: float = 0.0
    silent: float = 0.0
    absent: float = 0.0
    poll_s: float = 900.0
    fail_s: float = 60.0
    soak_s: float = 600.0
    reply_s: float = 120.0
    outage_from_s: float = 0.0
    outage_s: float = 0.0
    environment: float | None = None
    control: int = 0


@dataclass(frozen=True)
class Ending:
    """How one simulated rollout ended. status: "stopped", "paused", "finished", "asked" or "unended"; lost:
    devices that failed, those already under way included; took_s: simulated seconds."""

    status: str
    lost: int
    admitted: int
    took_s: float
    why: str


def simulate(
    fleet: Fleet,
    limits: Limits,
    rng: np.random.Generator,
    *,
    deadline_s: float = 7200.0,
    tick_s: float = 60.0,
    resumes: bool = False,
    longest_s: float = 60 * 86_400.0,
) -> Ending:
    """One rollout to its end.

    resumes: an operator who answers every pause with "resume" and every question with yes: the worst there
    is, so that only evidence stops anything. Without, the first pause or question ends the rollout.
    """
    world = _World(fleet, rng)
    plan = Plan("simulated", "model", 1, "00" * 16, world.names, limits, deadline_s)
    rollout, now_s = Rollout(plan), 0.0
    rollout.apply(Event("started", 0.0))
    world.open(0, rollout.allowed, 0.0)
    while now_s < longest_s:
        before = rollout.allowed
        for event in world.until(now_s):
            rollout.apply(event)
        advance(rollout, now_s, [])
        if rollout.status in ENDED:
            break
        is_asking = rollout.status == "running" and rollout.verdict(now_s).action == "ask"
        if rollout.status == "paused" or is_asking:
            if not resumes or rollout.why.startswith("paused:"):
                break
            rollout.apply(Event("resumed", now_s, "operator", rollout.lost_canaries, has_yes=is_asking))
            advance(rollout, now_s, [])
        world.open(before, rollout.allowed, now_s)
        now_s = max(now_s + tick_s, min(world.next_s(), rollout.widened_at_s + deadline_s))
    status = "asked" if rollout.status == "running" and now_s < longest_s else rollout.status
    return Ending(
        "unended" if now_s >= longest_s else status,
        world.lost,
        rollout.ledger.admitted,
        now_s,
        rollout.why,
    )


class _World:
    """The devices: each has its times to begin and to answer, drawn when its wave opens."""

    def __init__(self, fleet: Fleet, rng: np.random.Generator) -> None:
        self.fleet, self._rng = fleet, rng
        self.names = tuple(f"{i:07d}" for i in range(fleet.devices))
        self._bad = rng.random(fleet.devices) < fleet.failing
        self._mute = rng.random(fleet.devices) < fleet.silent
        self._away = rng.random(fleet.devices) < fleet.absent
        self._queue: list[tuple[float, int, int]] = []  # (time, what, device), by time
        self._control_is_told = fleet.control == 0
        self.lost = 0

    def open(self, start: int, end: int, now_s: float) -> None:
        """Let devices start..end begin from now on."""
        if end <= start:
            return
        fleet, rng, size = self.fleet, self._rng, end - start
        begin = self._delayed(now_s + rng.random(size) * fleet.poll_s)
        bad = self._bad[start:end] | self._is_cursed(begin)
        failure, success = rng.exponential(fleet.fail_s, size), rng.exponential(fleet.reply_s, size)
        answer = self._delayed(begin + np.where(bad, failure, fleet.soak_s + success))
        here = ~self._away[start:end]
        talks = here & ~self._mute[start:end]
        span = np.arange(start, end)
        self._queue += zip(begin[here].tolist(), [0] * int(here.sum()), span[here].tolist(), strict=True)
        kinds = np.where(bad, 1, 2)[talks]
        self._queue += zip(answer[talks].tolist(), kinds.tolist(), span[talks].tolist(), strict=True)
        self._queue.sort(reverse=True)
        self._bad[start:end] = bad

    def _is_cursed(self, at_s: np.ndarray) -> np.ndarray:
        start = self.fleet.environment
        return at_s >= (np.inf if start is None else start)

    def _delayed(self, times: np.ndarray) -> np.ndarray:
        """Times within the outage move behind it."""
        start, end = self.fleet.outage_from_s, self.fleet.outage_from_s + self.fleet.outage_s
        return np.where((times >= start) & (times < end), end + times - start, times)

    def next_s(self) -> float:
        return self._queue[-1][0] if self._queue else float("inf")

    def until(self, now_s: float) -> Iterable[Event]:
        """What happened up to now, as the watcher collects it: in order of time."""
        kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
        while self._queue and self._queue[-1][0] <= now_s:
            _, what, device = self._queue.pop()
            kinds[what].append(self.names[device])
            self.lost += what == 0 and bool(self._bad[device])
        if kinds[0]:
            yield Event("admitted", now_s, devices=tuple(kinds[0]))
        if kinds[1]:
            yield Event("answered", now_s, devices=tuple(kinds[1]), outcome="failed")
        if kinds[2]:
            yield Event("answered", now_s, devices=tuple(kinds[2]), outcome="confirmed")
        if not self._control_is_told:
            yield from self._control(now_s)

    def _control(self, now_s: float) -> Iterable[Event]:
        if self.fleet.environment is not None and now_s >= self.fleet.environment:
            self._control_is_told = True
            names = tuple(f"control-{i}" for i in range(self.fleet.control))
            yield Event("control", now_s, devices=names, outcome="failed")


@dataclass(frozen=True)
class Summary:
    """Many simulated rollouts of one fleet. Shares by status; lost: median, 95th percentile and most."""

    runs: int
    shares: dict[str, float]
    lost_median: float
    lost_p95: float
    lost_most: int
    took_median_s: float


def summarize(endings: Sequence[Ending]) -> Summary:
    lost = np.array([ending.lost for ending in endings])
    counts: dict[str, int] = {}
    for ending in endings:
        counts[ending.status] = counts.get(ending.status, 0) + 1
    return Summary(
        len(endings),
        {status: counts[status] / len(endings) for status in sorted(counts)},
        float(np.median(lost)),
        float(np.percentile(lost, 95)),
        int(lost.max()),
        float(np.median([ending.took_s for ending in endings])),
    )


def sweep(
    fleet: Fleet, limits: Limits, rates: Sequence[float], runs: int, seed: int, **how: bool
) -> dict[float, Summary]:
    """`runs` rollouts at each failure rate; the same seed gives the same figures."""
    return {
        rate: summarize(
            [
                simulate(
                    replace(fleet, failing=rate),
                    limits,
                    np.random.default_rng([seed, i, round(rate * 1e6)]),
                    **how,
                )
                for i in range(runs)
            ]
        )
        for rate in rates
    }
