"""The builds of a model as one SVG picture: cycles over RAM and over flash, RAM over flash; the front apart.

From the standard library alone; the same builds give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDE, _HIGH, _LEFT, _TOP, _GAP = 270, 240, 74, 56, 84
_FRONT, _OTHER = "#d55e00", "#999999"
_TITLES = {"cycles": "modelled cycles", "ram_bytes": "RAM, bytes", "flash_bytes": "flash, bytes"}
_PANELS = (("ram_bytes", "cycles"), ("flash_bytes", "cycles"), ("flash_bytes", "ram_bytes"))


def front_svg(answer: Mapping[str, Any]) -> str:
    """answer: of edgekd.pipeline.planning.front_of: "model", "target", "builds"."""
    rows = [row for row in answer["builds"] if all(row[axis] is not None for axis in _TITLES)]
    width, height = _LEFT + len(_PANELS) * (_WIDE + _GAP), _TOP + _HIGH + 54 + 14 * _lines(rows)
    title = f"{answer['model']} on {answer['target']}: {len(rows)} builds, figures estimated; front in colour"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="12" y="20" font-size="13">{escape(title)}</text>'
    ]
    for at, (across, up) in enumerate(_PANELS):
        parts.append(_panel(rows, across, up, _LEFT + at * (_WIDE + _GAP)))
    parts += [
        f'<text x="{_LEFT}" y="{y}">{row["number"]}: {escape(row["label"])}</text>'
        for y, row in zip(
            range(_TOP + _HIGH + 54, height, 14), (row for row in rows if row["on_front"]), strict=False
        )
    ]
    return "".join(parts) + "</svg>\n"


def _lines(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["on_front"] for row in rows)


def _panel(rows: Sequence[Mapping[str, Any]], across: str, up: str, left: int) -> str:
    most_x, most_y = (max([row[axis] for row in rows] + [1]) for axis in (across, up))
    bottom = _TOP + _HIGH
    parts = [
        f'<rect x="{left}" y="{_TOP}" width="{_WIDE}" height="{_HIGH}" fill="none" stroke="#444444"/>',
        f'<text x="{left}" y="{bottom + 14}">0</text>',
        f'<text x="{left + _WIDE}" y="{bottom + 14}" text-anchor="end">{most_x:,}</text>',
        f'<text x="{left + _WIDE // 2}" y="{bottom + 30}" text-anchor="middle">{_TITLES[across]}</text>',
        f'<text x="{left}" y="{_TOP - 6}">{_TITLES[up]}</text>',
        f'<text x="{left - 4}" y="{_TOP + 8}" text-anchor="end">{most_y:,}</text>',
        f'<text x="{left - 4}" y="{bottom}" text-anchor="end">0</text>',
    ]
    for row in sorted(rows, key=lambda row: row["on_front"]):  # the front on top
        x = left + _WIDE * row[across] / most_x
        y = bottom - _HIGH * row[up] / most_y
        colour, radius = (_FRONT, 3.5) if row["on_front"] else (_OTHER, 2.5)
        hint = ", ".join(f"{_TITLES[axis]} {row[axis]:,}" for axis in _TITLES)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}">'
            f"<title>{escape(row['label'])}: {hint}</title></circle>"
        )
        if row["on_front"]:
            parts.append(f'<text x="{x + 5:.1f}" y="{y - 4:.1f}" fill="{_FRONT}">{row["number"]}</text>')
    return "".join(parts)
