"""Times of repeated calls by the monotonic clock, and their percentiles."""

from __future__ import annotations

import time
from typing import Any

from .messages import Ticker


def time_runs(call: Any, warmup: int, runs: int, max_s: float) -> list[int]:
    """Nanoseconds of up to `runs` calls after `warmup`; stops after `max_s`, but never before 10 calls."""
    begin, say = time.monotonic(), Ticker("bench", runs)
    for _ in range(warmup):
        call()
        if time.monotonic() - begin > max_s / 2:
            break
    times: list[int] = []
    while len(times) < runs and (len(times) < 10 or time.monotonic() - begin < max_s):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
        say(len(times))
    return times


def percentiles(times_ns: list[int]) -> dict[str, Any]:
    """p50, p90, p99 (nearest rank) and mean in microseconds."""
    ordered, count = sorted(times_ns), len(times_ns)
    at = {f"p{p}": ordered[max(0, -(-p * count // 100) - 1)] / 1000 for p in (50, 90, 99)}
    return {**at, "mean": sum(ordered) / count / 1000, "n": count}
