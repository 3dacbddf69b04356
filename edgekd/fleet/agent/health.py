"""Whether a release may serve: measured figures against signed limits. A pure function, and the reasons.

The order is from what is surest to what is noisiest: the answers first, then memory, then time.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.fleet.agent import machine
from edgekd.fleet.formats import Health

# Why a trial fails, as the report says it.
FAILURES = {
    "does-not-load": "the runtime refuses the model, or its file is not what was signed",
    "wrong-shape": "its answers have another shape than the golden ones",
    "not-finite": "it answers with a number that is not finite",
    "wrong-answers": "its answers to the golden vectors leave the signed limits",
    "too-slow": "slower than the one before, in the 10th percentile or the median, or than the limit",
    "memory": "its peak, or its growth over the soak, is above the limit",
    "crashed": "its process died",
    "forbidden-call": "it called the system for what a model must not do",
    "timeout": "the trial was not over in its time",
    "trial-cut": "its trial was cut three times",
    "loop": "it was on its way through too many starts",
}


@dataclass(frozen=True)
class Measured:
    """What a trial found. ratios: new over old in p10 and median; None where there is no old one, and where
    the trial did not come so far. steps: largest difference of a golden answer; None: not finite."""

    shape_is_right: bool = True
    finite: bool = True
    top1: float | None = None
    steps: float | None = None
    ratio_p10: float | None = None
    ratio_median: float | None = None
    median_us: float | None = None
    peak_rss_bytes: int | None = None
    growth_bytes: int | None = None
    inferences: int = 0
    throttled: bool = False


Verdict = machine.TrialPassed | machine.TrialFailed | machine.TrialDisturbed


def judge(measured: Measured, limits: Health) -> Verdict:
    """The verdict. A throttled trial has none: its times say nothing, and it is repeated."""
    reason = _of_answers(measured, limits) or _of_memory(measured, limits)
    if reason:
        return machine.TrialFailed(reason)
    if measured.throttled:
        return machine.TrialDisturbed("throttled")
    return machine.TrialFailed("too-slow") if _is_slow(measured, limits) else machine.TrialPassed()


def _of_answers(measured: Measured, limits: Health) -> str:
    if not measured.shape_is_right:
        return "wrong-shape"
    if not measured.finite or measured.steps is None:
        return "not-finite"
    agrees = measured.top1 is not None and measured.top1 >= limits.golden_top1
    return "" if agrees and measured.steps <= limits.golden_steps + 1e-6 else "wrong-answers"


def _of_memory(measured: Measured, limits: Health) -> str:
    pairs = (
        (measured.peak_rss_bytes, limits.max_peak_rss_bytes),
        (measured.growth_bytes, limits.max_rss_growth_bytes),
    )
    above = any(have is not None and most is not None and have > most for have, most in pairs)
    return "memory" if above else ""


def _is_slow(measured: Measured, limits: Health) -> bool:
    pairs: tuple[tuple[float | None, float], ...] = (
        (measured.ratio_p10, limits.latency_ratio_p10),
        (measured.ratio_median, limits.latency_ratio_median),
    )
    if measured.ratio_p10 is None:
        pairs = ((measured.median_us, limits.max_latency_us or float("inf")),)
    return any(have is not None and have > most for have, most in pairs)
