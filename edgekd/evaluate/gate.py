"""The gate: may the chain go on with this model? Figures in, one verdict out; noise neither passes nor fails.

A drop is known by its 95 % interval. Above the budget as a whole: the model fails. Below it as a whole:
it passes. Holding it: the samples do not say, and the recipe does (docs/methods/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.evaluate.intervals import samples_to_decide

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"


@dataclass(frozen=True)
class Budget:
    """What a recipe's [gate] allows; shares of 1."""

    max_drop: float
    least: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """outcome: PASSED, FAILED or UNDECIDED; reason: half a sentence with the figures."""

    outcome: str
    reason: str


def judge(headline: Mapping[str, Any], budget: Budget) -> Verdict:
    """Hold an evaluation's headline (edgekd.evaluate.evaluation) to `budget`."""
    verdicts = [_level(headline, budget.least)] if budget.least > 0 else []
    if headline["drop"]:
        verdicts.append(_drop(headline, budget.max_drop))
    for outcome in (FAILED, UNDECIDED):
        for verdict in verdicts:
            if verdict.outcome == outcome:
                return verdict
    reasons = "; ".join(verdict.reason for verdict in verdicts)
    return Verdict(PASSED, reasons or f"{_level_text(headline)}; nothing to compare with")


def _drop(headline: Mapping[str, Any], budget: float) -> Verdict:
    drop = headline["drop"]
    moved = (
        f"fell by {100 * drop['value']:.2f}" if drop["value"] >= 0 else f"rose by {-100 * drop['value']:.2f}"
    )
    reason = (
        f"{headline['metric']} on {headline['split']} {moved} points (95 % interval of the fall "
        f"{100 * drop['low']:.2f} to {100 * drop['high']:.2f}, {headline['samples']} samples) against "
        f"{drop['against']}, and gate.max_accuracy_drop allows {100 * budget:.2f}"
    )
    if drop["low"] > budget:
        return Verdict(FAILED, reason)
    if drop["high"] <= budget:
        return Verdict(PASSED, reason)
    return Verdict(UNDECIDED, reason + _needed(headline, budget))


def _needed(headline: Mapping[str, Any], budget: float) -> str:
    """About how many samples would decide, where that can be told."""
    drop = headline["drop"]
    if drop.get("lost") is None:
        return ""
    disagreement = (drop["lost"] + drop["gained"]) / headline["samples"]
    needed = samples_to_decide(drop["value"], disagreement, budget)
    return f"; about {needed:,} samples would decide" if needed and needed > headline["samples"] else ""


def _level(headline: Mapping[str, Any], least: float) -> Verdict:
    reason = f"{_level_text(headline)}, and gate.min_accuracy asks for {least:.4f}"
    if headline["high"] < least:
        return Verdict(FAILED, reason)
    return Verdict(PASSED if headline["low"] >= least else UNDECIDED, reason)


def _level_text(headline: Mapping[str, Any]) -> str:
    return (
        f"{headline['metric']} on {headline['split']} is {headline['value']:.4f} (95 % interval "
        f"{headline['low']:.4f} to {headline['high']:.4f}, {headline['samples']} samples)"
    )
