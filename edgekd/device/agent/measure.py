"""Times of repeated inferences, in rounds that take turns, and their percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

ROUNDS = 8
FEWEST_RUNS = 10
LONGEST_BLOCK_S = 5.0
Key = tuple[str, int]  # variant and threads
Clock = Callable[[int, float], list[int]]  # up to so many runs within so many seconds -> nanoseconds


def percentiles(times_ns: Sequence[int]) -> dict[str, Any]:
    """p50, p90, p99 (nearest rank) and mean in microseconds."""
    ordered, count = sorted(times_ns), len(times_ns)
    at = {f"p{p}": ordered[max(0, -(-p * count // 100) - 1)] / 1000 for p in (50, 90, 99)}
    return {**at, "mean": sum(ordered) / count / 1000, "n": count}


def warm_up(clock: Clock, runs: int, max_s: float) -> float | None:
    """Run until warm, at most `max_s`; how long one inference takes, in seconds; None: it fell out."""
    begin = time.monotonic()
    times = clock(max(1, min(3, runs)), max_s)
    while times and len(times) < runs and (left_s := max_s - (time.monotonic() - begin)) > 0:
        more = clock(runs - len(times), left_s)
        if not more:
            return None
        times += more
    return max(1e-7, median(times[len(times) // 2 :]) / 1e9) if times else None


def plan_runs(estimates_s: Mapping[Key, float], runs: int, max_s: float) -> dict[Key, int]:
    """Runs a round for each candidate: `runs` over all rounds, or what fits when all share `max_s`.

    Never fewer than make FEWEST_RUNS in all.
    """
    share_s, fewest = max_s / ROUNDS / max(1, len(estimates_s)), -(-FEWEST_RUNS // ROUNDS)
    wanted = -(-runs // ROUNDS)
    return {key: max(fewest, min(wanted, int(share_s / each_s))) for key, each_s in estimates_s.items()}


def take_turns(
    clocks: Mapping[Key, Clock], counts: Mapping[Key, int], between: Callable[[int], None]
) -> dict[Key, list[list[int]]]:
    """ROUNDS rounds in which each candidate runs its block, every other round in reverse order.

    So a device that grows warm or is disturbed slows all of them alike. `between` is called after each
    round. Returns the times by candidate and round, nothing for one that stopped answering.
    """
    found: dict[Key, list[list[int]]] = {key: [] for key in counts}
    for number in range(ROUNDS):
        order = list(found)
        for key in order if number % 2 == 0 else reversed(order):
            block = clocks[key](counts[key], LONGEST_BLOCK_S)
            if block:
                found[key].append(block)
            else:
                del found[key]
        between(number + 1)
    return found


def summary(rounds: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`latency_us`, `throughput_per_s`, and the `round_medians_us` of one candidate's times."""
    latency = percentiles([each for block in rounds for each in block])
    return {
        "latency_us": latency,
        "throughput_per_s": 1e6 / latency["mean"] if latency["mean"] else None,
        "round_medians_us": [median(block) / 1000 for block in rounds],
    }
