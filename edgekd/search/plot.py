"""A search's trials as one SVG picture: accuracy over cost, RAM and flash, side by side, the front joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from edgekd.search.study import COSTS

_WIDE, _HIGH, _LEFT, _TOP, _GAP = 250, 220, 56, 54, 60
_FRONT, _OTHER = "#d55e00", "#999999"
_TITLES = {"cycles": "modelled cycles", "instructions": "instructions"}
_TITLES |= {"ram_bytes": "RAM, bytes", "flash_bytes": "flash, bytes"}


def front_svg(result: Mapping[str, Any]) -> str:
    """result: of edgekd.search.study.result_of."""
    rows = [row for row in result["rows"] if not row["stopped"]]
    names = (result["cost"], *COSTS)
    width = _LEFT + len(names) * (_WIDE + _GAP)
    title = f"{len(rows)} students, {result['stopped']} stopped early; on the front: {len(result['front'])}"
    panels = "".join(
        _panel(rows, result["front"], name, _LEFT + at * (_WIDE + _GAP)) for at, name in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_TOP + _HIGH + 50}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="20" font-size="13">{escape(title)}</text>'
        '<text x="12" y="38">accuracy on the validation split, over what the generated code costs</text>'
        f"{panels}</svg>\n"
    )


def _panel(rows: Sequence[Mapping[str, Any]], front: Sequence[int], name: str, left: int) -> str:
    most = max([row["costs"][name] for row in rows] + [1])
    values = [row["accuracy"] for row in rows] or [0.0, 1.0]
    low, high = min(values), max(max(values), min(values) + 0.01)

    def at(row: Mapping[str, Any]) -> tuple[float, float]:
        x = left + _WIDE * row["costs"][name] / most
        return x, _TOP + _HIGH * (1 - (row["accuracy"] - low) / (high - low))

    parts = [
        f'<rect x="{left}" y="{_TOP}" width="{_WIDE}" height="{_HIGH}" fill="none" stroke="#444444"/>',
        f'<text x="{left + _WIDE}" y="{_TOP + _HIGH + 14}" text-anchor="end">{most:,}</text>',
        f'<text x="{left}" y="{_TOP + _HIGH + 14}">0</text>',
        f'<text x="{left + _WIDE // 2}" y="{_TOP + _HIGH + 32}" text-anchor="middle">{_TITLES[name]}</text>',
    ]
    for value in (low, (low + high) / 2, high):
        y = _TOP + _HIGH * (1 - (value - low) / (high - low)) + 3
        parts.append(f'<text x="{left - 4}" y="{y:.0f}" text-anchor="end">{value:.3f}</text>')
    for row in rows:
        x, y = at(row)
        on_front = row["trial"] in front
        colour = _FRONT if on_front else _OTHER
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if on_front else 2.5}" fill="{colour}"/>')
        if on_front:
            parts.append(f'<text x="{x + 5:.1f}" y="{y - 4:.1f}" fill="{_FRONT}">{row["trial"]}</text>')
    return "".join(parts)
