"""`fleet.sim`: "with 300 devices and 1 %, how many would I lose?", from words to a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from edgekd.errors import ConfigError
from edgekd.fleet.gate import ALPHA, Limits, least_failures, waves
from edgekd.fleet.simulate import Fleet, Summary, sweep
from edgekd.progress import Progress, silent

RATES = (0.005, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0)
MOST_DEVICES, MOST_RUNS = 1_000_000, 100_000
_WIDTH, _HEIGHT, _LEFT, _TOP, _BASE = 640, 320, 60, 56, 270
_COLOURS = {"stopped": "#d55e00", "paused": "#e69f00", "asked": "#56b4e9", "finished": "#009e73"}


@dataclass(frozen=True)
class Question:
    """A fleet, what its rollout may cost, and how it is simulated."""

    fleet: Fleet
    limits: Limits
    rates: tuple[float, ...]
    runs: int
    seed: int
    resumes: bool


def question(words: Mapping[str, str | bool]) -> Question:
    """From option texts. Raises ConfigError with the option's name and its range."""
    devices = _whole(words, "devices", 1000, 1, MOST_DEVICES)
    tolerated = _share(words, "tolerated", 0.01, 1e-6, 0.5)
    canaries = _whole(words, "canaries", min(10, devices), 1, devices)
    most = str(words.get("max_failed") or "")
    allowed = _number("max-failed", most, 0, devices) if most else None
    rates = tuple(
        _rate("rates", each) for each in str(words.get("rates") or "").split(",") if each.strip()
    ) or tuple(sorted({*RATES, tolerated}))
    return Question(
        Fleet(
            devices=devices,
            silent=_share(words, "silent", 0.0, 0, 1),
            absent=_share(words, "absent", 0.0, 0, 1),
        ),
        Limits.of(tolerated, devices, canaries, allowed),
        rates,
        _whole(words, "runs", 200, 1, MOST_RUNS),
        _whole(words, "seed", 1, 0, 2**31 - 1),
        bool(words.get("resumes")),
    )


def _number(name: str, text: str, low: float, high: float) -> float:
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ConfigError(f"--{name} {text}: give a number from {low:g} to {high:g}")
    return value


def _whole(words: Mapping[str, str | bool], name: str, default: int, low: int, high: int) -> int:
    text = str(words.get(name) or "")
    value = _number(name, text, low, high) if text else default
    if value != int(value):
        raise ConfigError(f"--{name} {text}: give a whole number from {low:,} to {high:,}")
    return int(value)


def _share(words: Mapping[str, str | bool], name: str, default: float, low: float, high: float) -> float:
    text = str(words.get(name) or "")
    return _number(name, text, low, high) if text else default


def _rate(name: str, text: str) -> float:
    return _number(name, text, 0, 1)


def answer(asked: Question, progress: Progress = silent) -> dict[str, Any]:
    """{"simulated": True, ..., "plan": waves of a release that never fails, "rates": a row a failure rate}.

    lost: devices on which the release failed (each went back by itself), those already under way included.
    """
    summaries: dict[float, Summary] = {}
    for done, rate in enumerate(asked.rates):
        progress("simulating rollouts", done, len(asked.rates))
        how = {"resumes": asked.resumes}
        summaries |= sweep(asked.fleet, asked.limits, [rate], asked.runs, asked.seed, **how)
    progress("simulating rollouts", len(asked.rates), len(asked.rates))
    return {
        "simulated": True,
        "devices": asked.fleet.devices,
        "silent": asked.fleet.silent,
        "absent": asked.fleet.absent,
        "tolerated": asked.limits.tolerated,
        "canaries": asked.limits.canaries,
        "max_failed_devices": asked.limits.max_failed_devices,
        "false_stop_at_most": ALPHA,
        "least_failures_to_stop": least_failures(asked.limits.tolerated),
        "operator": "resumes every pause" if asked.resumes else "absent: the first pause ends the rollout",
        "seed": asked.seed,
        "plan": [
            {"allowed": size, "bound": bound} for size, bound in waves(asked.limits, asked.fleet.devices)
        ],
        "rates": [{"failing": rate, **asdict(found)} for rate, found in summaries.items()],
    }


def picture(found: Mapping[str, Any]) -> str:
    """The shares of endings at each failure rate, as an SVG of stacked bars."""
    rows = found["rates"]
    step = (_WIDTH - _LEFT - 20) / len(rows)
    parts = []
    for i, row in enumerate(rows):
        x, y = _LEFT + i * step + step * 0.15, float(_BASE)
        for status, colour in _COLOURS.items():
            high = row["shares"].get(status, 0.0) * (_BASE - _TOP)
            y -= high
            place = f'x="{x:.1f}" y="{y:.1f}" width="{step * 0.7:.1f}" height="{high:.1f}"'
            parts.append(f'<rect {place} fill="{colour}"/>')
        said = f"{100 * row['failing']:g} %"
        lost = f"{row['lost_median']:.0f} lost"
        parts.append(f'<text x="{x + step * 0.35:.1f}" y="{_BASE + 16}" text-anchor="middle">{said}</text>')
        parts.append(f'<text x="{x + step * 0.35:.1f}" y="{_BASE + 32}" text-anchor="middle">{lost}</text>')
    key = "".join(
        f'<rect x="{_LEFT + 110 * n}" y="30" width="10" height="10" fill="{colour}"/>'
        f'<text x="{_LEFT + 14 + 110 * n}" y="39">{status}</text>'
        for n, (status, colour) in enumerate(_COLOURS.items())
    )
    title = escape(
        f"simulated: {found['devices']:,} devices, {100 * found['tolerated']:g} % tolerated;"
        " how rollouts end by the release's failure rate"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="18" font-size="13">{title}</text>{key}{"".join(parts)}</svg>\n'
    )
