"""Soak `fleet-gate`: the shipped gate over thousands of simulated rollouts, beside the rules of others.

10,000 devices, 5 % of them silent, tolerated rate 1 %. Twice: an operator who resumes every pause, so that
only evidence stops anything, and one who is absent, so that the first pause ends it. The other rules see
the same devices in order of arrival, as they do in practice; none of them waits for silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from edgekd.fleet.gate import Limits
from edgekd.fleet.simulate import Fleet, simulate, sweep

RATES = (0.005, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0)
DEVICES, SILENT, TOLERATED = 10_000, 0.05, 0.01

# (failed so far, answered so far, devices of the group) -> stop.
Rule = Callable[[int, int, int], bool]


def wilson_low(failed: int, answered: int, z: float = 2.58) -> float:
    """Lower end of Wilson's interval of a share."""
    if not answered:
        return 0.0
    share, square = failed / answered, z * z / answered
    half = z * math.sqrt(share * (1 - share) / answered + square / (4 * answered))
    return (share + square / 2 - half) / (1 + square)


OTHERS: dict[str, Rule] = {
    "hawkBit: failed > 5 % of the group": lambda failed, answered, group: failed > 0.05 * group,
    "rate > 5 % after 10 answers": lambda failed, answered, group: (
        answered >= 10 and failed > 0.05 * answered
    ),
    "Wilson lower bound > 1 %": lambda failed, answered, group: wilson_low(failed, answered) > TOLERATED,
}


def rollouts(seed: int, count: int) -> dict[str, Any]:
    """`count` rollouts at each rate under ours, and under each other rule."""
    fleet, limits = Fleet(devices=DEVICES, silent=SILENT), Limits.of(TOLERATED, DEVICES, 10)
    found: dict[str, Any] = {}
    for name, resumes in (("resumes", True), ("absent", False)):
        rows = sweep(fleet, limits, RATES, count, seed, resumes=resumes)
        found[f"operator {name}"] = {f"{rate:g}": asdict(row) for rate, row in rows.items()}
    outages = [_outage(seed, i) for i in range(max(1, count // 10))]
    found["convicted in an outage of the network"] = sum(status == "stopped" for status in outages)
    found["rollouts in an outage"] = len(outages)
    found["other rules"] = {name: _others(rule, seed, count) for name, rule in OTHERS.items()}
    return {"devices": DEVICES, "silent": SILENT, "tolerated": TOLERATED} | found


def _outage(seed: int, i: int) -> str:
    rng = np.random.default_rng([seed, 77, i])
    start = float(rng.uniform(0, 40_000))
    fleet = Fleet(devices=1000, outage_from_s=start, outage_s=2 * 86_400.0)
    return simulate(fleet, Limits.of(TOLERATED, 1000, 10), rng, resumes=True).status


def _others(rule: Rule, seed: int, count: int) -> dict[str, Any]:
    """Share stopped and devices lost at each rate, in waves that double from ten, order of arrival."""
    rows = {}
    for rate in RATES:
        ends = [_one(rule, rate, np.random.default_rng([seed, i, round(rate * 1e6)])) for i in range(count)]
        lost = [lost for _, lost in ends]
        rows[f"{rate:g}"] = {
            "stopped": sum(stopped for stopped, _ in ends) / count,
            "lost_median": float(np.median(lost)),
            "lost_p95": float(np.percentile(lost, 95)),
        }
    return rows


def _one(rule: Rule, rate: float, rng: np.random.Generator) -> tuple[bool, int]:
    bad = rng.random(DEVICES) < rate
    failed = answered = start = 0
    size = 10
    while start < DEVICES:
        wave = bad[start : start + size]
        begin = rng.random(len(wave)) * 900
        times = begin + np.where(wave, rng.exponential(60, len(wave)), 600 + rng.exponential(120, len(wave)))
        mute = rng.random(len(wave)) < SILENT
        order = np.argsort(times, kind="stable")
        order = order[~mute[order]]
        for seen in np.flatnonzero(wave[order]):
            failed += 1
            if rule(failed, answered + int(seen) + 1, start + len(wave)):
                under_way = wave & (begin <= times[order[seen]])
                return True, int(bad[:start].sum() + under_way.sum())
        answered += len(order)
        start += len(wave)
        size = min(start, DEVICES - start)
    return False, int(bad.sum())
