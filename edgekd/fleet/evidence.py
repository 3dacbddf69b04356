"""The evidence of a rollout as a person sees it: in words, as figures, and as a picture (SVG).

Everything is taken from the state behind the log, so it can be drawn at any time later, by anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from edgekd.fleet.gate import ALPHA, tally
from edgekd.fleet.rollout import Rollout

WIDTH, HEIGHT, LEFT, TOP, BASE, RIGHT = 640, 320, 64, 56, 270, 620
MOST_DECADES = 12.0
ENDS_COLOUR, LINE_COLOUR, STOP_COLOUR = "#666666", "#0072b2", "#d55e00"


def evidence(rollout: Rollout) -> dict[str, Any]:
    """{"rollout", "status", "words", "why", "devices", "admitted", "tolerated", "limit", "path"}.

    path: [devices admitted up to a failure, odds against the tolerated rate there], in order of admission;
    limit: the odds at which a rollout stops.
    """
    ledger = rollout.ledger
    return {
        "rollout": rollout.plan.rollout,
        "model": rollout.plan.model,
        "release": rollout.plan.release,
        "status": rollout.status,
        "words": words(rollout),
        "why": rollout.why,
        "devices": len(rollout.plan.devices),
        "admitted": ledger.admitted,
        "tolerated": ledger.tolerated,
        "limit": 1 / ALPHA,
        "path": [list(point) for point in ledger.path()],
    }


def words(rollout: Rollout) -> str:
    """ "6 failed of 212 admitted (200 confirmed, 6 failed): evidence 1,400 : 1 against 1 %"."""
    ledger = rollout.ledger
    odds = math.exp(min(700.0, ledger.log_evidence))
    shown = f"{odds:,.1f}" if odds < 100 else f"{odds:,.0f}" if odds < 1e9 else f"{odds:.1e}"
    return (
        f"{ledger.failed} failed of {ledger.admitted} admitted ({tally(ledger)}): evidence {shown} : 1"
        f" against {100 * ledger.tolerated:g} %, {1 / ALPHA:,.0f} : 1 would stop it"
    )


def picture(found: Mapping[str, Any]) -> str:
    """`evidence`'s result as an SVG: odds (logarithmic) over the devices in order of admission."""
    limit = float(found["limit"])
    most = max([limit * 10, *(float(odds) for _, odds in found["path"])])
    decades = float(min(MOST_DECADES, math.ceil(math.log10(most))))
    count = max(1, int(found["admitted"]))

    def x(devices: float) -> float:
        return LEFT + (RIGHT - LEFT) * devices / count

    def y(odds: float) -> float:
        return BASE - (BASE - TOP) * min(decades, math.log10(max(odds, 1.0))) / decades

    parts = [_axis(decades, count, y), _line(y(limit), STOP_COLOUR, "stops", dashes="6 4")]
    points, level = [f"{LEFT},{BASE}"], float(BASE)
    for devices, odds in found["path"]:
        points += [f"{x(devices):.1f},{level:.1f}", f"{x(devices):.1f},{y(odds):.1f}"]
        level = y(odds)
        parts.append(f'<circle cx="{x(devices):.1f}" cy="{level:.1f}" r="3" fill="{STOP_COLOUR}"/>')
    points.append(f"{RIGHT},{level:.1f}")
    style = f'fill="none" stroke="{LINE_COLOUR}" stroke-width="2"'
    parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
    name = f"{found['rollout']}: {found['model']} release {found['release']}, {found['status']}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="18" font-size="13">{escape(name)}</text>'
        f'<text x="12" y="36">{escape(found["words"])}</text>{"".join(parts)}'
        f'<text x="{(LEFT + RIGHT) / 2:.0f}" y="{BASE + 34}" text-anchor="middle">devices, in order of '
        "admission; a dot is a failure</text></svg>\n"
    )


def _axis(decades: float, count: int, y: Any) -> str:
    parts = [
        f'<text x="{LEFT - 6}" y="{y(10.0**decade) + 4:.1f}" text-anchor="end">{10**decade:,} : 1</text>'
        for decade in range(0, int(decades) + 1, max(1, int(decades) // 4))
    ]
    parts.append(f'<text x="{LEFT}" y="{BASE + 16}" text-anchor="middle">0</text>')
    parts.append(f'<text x="{RIGHT}" y="{BASE + 16}" text-anchor="end">{count:,}</text>')
    return _line(BASE, ENDS_COLOUR) + "".join(parts)


def _line(at: float, colour: str, label: str = "", dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    said = (
        f'<text x="{RIGHT}" y="{at - 4:.1f}" text-anchor="end" fill="{colour}">{label}</text>'
        if label
        else ""
    )
    return f'<line x1="{LEFT}" y1="{at:.1f}" x2="{RIGHT}" y2="{at:.1f}" stroke="{colour}"{dashed}/>{said}'
