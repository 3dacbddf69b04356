"""Which variant to keep: a pure function of what was measured. The fastest within the accuracy budget.

A candidate is a variant with a number of threads. It is out when it could not run, when its golden outputs
are off, or when its accuracy falls by more than the budget. Of the others the fastest is kept, where two
whose difference is smaller than the noise are a tie, and a tie goes to fewer threads, then to exact
answers, then to less memory. On an emulated processor times say nothing: there instructions are ranked.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

# What breaks a tie that memory does not, and stands where nothing can be ranked.
ORDER = ("int8", "litert", "native", "float")
NOISE_SHARE = 0.95  # of all splits of the rounds in two halves: the A/A difference that is called noise


def noise_of(rounds: Sequence[float]) -> float:
    """A/A noise of one candidate from its medians a round: the relative difference of its own two halves.

    Over all ways to split the rounds in two equal halves, |median(A) - median(B)| / median(all), at the
    95th percentile; 0 below four rounds.
    """
    half, middle = len(rounds) // 2, median(rounds) if rounds else 0.0
    if half < 2 or not middle:
        return 0.0
    used = rounds[: 2 * half]
    differences = []
    for chosen in itertools.combinations(range(1, 2 * half), half - 1):
        left = [used[0], *(used[i] for i in chosen)]
        right = [used[i] for i in range(1, 2 * half) if i not in chosen]
        differences.append(abs(median(left) - median(right)) / middle)
    differences.sort()
    return differences[min(len(differences) - 1, int(NOISE_SHARE * len(differences)))]


def choose(candidates: Sequence[dict[str, Any]], *, max_drop: float, emulated: bool) -> dict[str, Any]:
    """Judge candidates; see the file's first lines for the rule.

    Each has `variant`, `threads`, `failure` (text or None), `golden` (or None), `drop` (of accuracy against
    the reference, or None), `p50_us`, `noise`, `instructions`, `instructions_noise`, `rss_rise_bytes`.
    Returns {"chosen": {"variant", "threads"} or None, "ranked_by": "time", "instructions" or None,
    "verdicts": [{"verdict": "kept", "slower", "tie" or "out", "why"}]}, in the given order.
    """
    out = {place: why for place, each in enumerate(candidates) if (why := reason_against(each, max_drop))}
    left = [place for place in range(len(candidates)) if place not in out]
    key, noise = ("instructions", "instructions_noise") if emulated else ("p50_us", "noise")
    ranked = [place for place in left if candidates[place][key] is not None]
    if not left:
        best, ranked_by, ties = None, None, set[int]()
    elif not ranked:
        best, ranked_by, ties = min(left, key=lambda p: preference(candidates[p])), None, set(left)
    else:
        ranked_by = "instructions" if emulated else "time"
        fastest = min(ranked, key=lambda place: float(candidates[place][key]))
        ties = {p for p in ranked if is_tie(candidates[fastest], candidates[p], key, noise)}
        best = min(ties, key=lambda place: preference(candidates[place]))
    verdicts = []
    for place, each in enumerate(candidates):
        if place in out:
            verdicts.append({"verdict": "out", "why": out[place]})
        elif best is None or ranked_by is None:
            verdicts.append(unranked(place == best))
        else:
            verdicts.append(compared(each, candidates[best], place in ties, key, noise))
    chosen = None if best is None else {k: candidates[best][k] for k in ("variant", "threads")}
    return {"chosen": chosen, "ranked_by": ranked_by, "verdicts": verdicts}


def reason_against(each: dict[str, Any], max_drop: float) -> str | None:
    """Why a candidate may not be kept, whatever its speed; None when it may."""
    if each["failure"]:
        return str(each["failure"])
    golden = each["golden"]
    if golden is not None and not golden["within_tolerance"]:
        worst = golden["max_difference_steps"]
        if worst is None:
            return "answers no finite number on the golden samples"
        allowed = golden["tolerance_steps"]
        return f"differs by {worst:.3g} steps on the golden samples, {allowed:g} allowed"
    if each["drop"] is not None and each["drop"] > max_drop + 1e-12:
        return f"loses {each['drop']:.4f} against the reference, {max_drop:g} allowed"
    return None


def preference(each: dict[str, Any]) -> tuple[Any, ...]:
    """What a tie goes to first: few threads, exact answers, little memory, the order of ORDER."""
    exact = bool(each["golden"] and each["golden"]["exact"])
    name = each["variant"]
    place = ORDER.index(name) if name in ORDER else len(ORDER)
    memory = each["rss_rise_bytes"]
    return (each["threads"], not exact, memory if memory is not None else float("inf"), place)


def is_tie(fastest: dict[str, Any], other: dict[str, Any], key: str, noise: str) -> bool:
    """Whether two candidates differ by less than the larger of their noises."""
    least = float(fastest[key])
    allowed = max(fastest[noise] or 0.0, other[noise] or 0.0)
    return other is fastest or float(other[key]) - least <= allowed * least


def compared(each: dict[str, Any], best: dict[str, Any], tied: bool, key: str, noise: str) -> dict[str, str]:
    """A ranked candidate's verdict against the one that is kept."""
    unit = "instructions" if key == "instructions" else "time"
    if each is best:
        return {"verdict": "kept", "why": f"least {unit} within the accuracy budget"}
    if each[key] is None:
        return {"verdict": "slower", "why": f"its {unit} could not be measured"}
    ratio = float(each[key]) / float(best[key])
    against = f"{best['variant']} with {best['threads']} thread{'s' * (best['threads'] > 1)}"
    if tied:
        allowed = 100 * max(each[noise] or 0.0, best[noise] or 0.0)
        return {
            "verdict": "tie",
            "why": f"{100 * (ratio - 1):+.1f} % of {unit} against {against}, within the noise of "
            f"{allowed:.1f} %; the other needs fewer threads, is exact or takes less memory",
        }
    return {"verdict": "slower", "why": f"{ratio:.2f} x the {unit} of {against}"}


def unranked(is_best: bool) -> dict[str, str]:
    """The verdict where there is nothing to rank by."""
    why = "an emulated processor's times are not ranked, and it counts no instructions"
    if is_best:
        return {"verdict": "kept", "why": f"first in order: {why}"}
    return {"verdict": "tie", "why": why}
