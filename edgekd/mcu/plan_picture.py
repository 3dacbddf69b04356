"""A memory plan as one SVG picture: steps to the right, addresses upwards, a rectangle a buffer.

From the standard library alone; the same plan gives the same bytes. Below the buffers stands how many bytes
live at each step, so that the fullest one and the room beside it are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any

_LEFT, _TOP, _WIDE, _HIGH = 84, 92, 860, 360
_CURVE, _GAP, _FEET = 90, 34, 120
_COLOURS = {"input": "#56b4e9", "output": "#009e73", "tensor": "#0072b2", "scratch": "#e69f00"}
_PEAK = "#d55e00"
_LETTER_PX = 5.4  # a small letter's width, about
_MOST_LABELS = 60
_LINE_LETTERS = 165


def plan_svg(answer: Mapping[str, Any]) -> str:
    """answer: of edgekd.mcu.plan_answer.tell."""
    steps: Sequence[Mapping[str, Any]] = answer["steps"]
    width, height = _LEFT + _WIDE + 20, _TOP + _HIGH + _GAP + _CURVE + _FEET
    fast_bytes = int(answer["arena_bytes"])
    most = max(fast_bytes + int(answer["slow_bytes"]), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="20" font-size="13">{escape(_title(answer))}</text>',
        *(
            f'<text x="12" y="{37 + 13 * row}">{escape(line)}</text>'
            for row, line in enumerate(wrap(answer["words"], _LINE_LETTERS)[:2])
        ),
        _legend(),
        _peak_column(answer, len(steps)),
        _frame(_TOP, _HIGH, most, "address, bytes"),
        *(
            _rectangle(block, len(steps), most, fast_bytes if block["region"] == "slow" else 0)
            for block in answer["blocks"]
        ),
        _slow_line(answer, most),
        _frame(_TOP + _HIGH + _GAP, _CURVE, most, "alive, bytes"),
        _curve(steps, most),
        _bound(answer, most),
        *_names(steps),
    ]
    return "".join(parts) + "</svg>\n"


def _title(answer: Mapping[str, Any]) -> str:
    bound = answer["proved_bytes"]
    proof = "proved optimal" if answer["optimal"] else f"at least {bound:,} are needed"
    return f"{answer['model']}: arena of {answer['arena_bytes']:,} bytes, {proof}"


def _legend() -> str:
    x, parts = 12.0, []
    for kind, colour in _COLOURS.items():
        parts.append(f'<rect x="{x:.0f}" y="66" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="75">{kind}</text>')
        x += 30 + len(kind) * 6
    parts.append(f'<rect x="{x:.0f}" y="66" width="10" height="10" fill="{_PEAK}" fill-opacity="0.2"/>')
    return "".join(parts) + f'<text x="{x + 14:.0f}" y="75">the fullest step</text>'


def _x(step: float, steps: int) -> float:
    """The left edge of a step; the first one is -1."""
    return _LEFT + _WIDE * (step + 1) / steps


def _frame(top: int, high: int, most: int, label: str) -> str:
    lines = [f'<rect x="{_LEFT}" y="{top}" width="{_WIDE}" height="{high}" fill="none" stroke="#444444"/>']
    for part in (0.0, 0.5, 1.0):
        y = top + high * (1 - part) + 3
        lines.append(f'<text x="{_LEFT - 5}" y="{y:.0f}" text-anchor="end">{most * part:,.0f}</text>')
    y = top + high / 2
    place = f'x="14" y="{y:.0f}" text-anchor="middle" transform="rotate(-90 14 {y:.0f})"'
    return "".join(lines) + f"<text {place}>{label}</text>"


def _peak_column(answer: Mapping[str, Any], steps: int) -> str:
    if answer["peak"] is None:
        return ""
    x, wide = _x(answer["peak"]["step"], steps), _WIDE / steps
    high = _HIGH + _GAP + _CURVE
    place = f'x="{x:.1f}" y="{_TOP}" width="{wide:.1f}" height="{high}"'
    return f'<rect {place} fill="{_PEAK}" fill-opacity="0.2"/>'


def _slow_line(answer: Mapping[str, Any], most: int) -> str:
    """Where slow RAM begins, drawn on top of the fast one; nothing where there is none."""
    if not answer["slow_bytes"]:
        return ""
    y = _TOP + _HIGH * (1 - answer["arena_bytes"] / most)
    line = f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDE}" y2="{y:.1f}" stroke="black"/>'
    return line + f'<text x="{_LEFT + _WIDE - 4}" y="{y - 4:.1f}" text-anchor="end">slow RAM above</text>'


def _rectangle(block: Mapping[str, Any], steps: int, most: int, base_bytes: int) -> str:
    x, wide = _x(block["first"], steps), _WIDE * (block["last"] - block["first"] + 1) / steps
    high = _HIGH * block["size_bytes"] / most
    y = _TOP + _HIGH * (1 - (base_bytes + block["offset_bytes"] + block["size_bytes"]) / most)
    end = block["offset_bytes"] + block["size_bytes"]
    hint = (
        f"{block['name']} ({block['kind']}): {block['size_bytes']:,} bytes at {block['offset_bytes']:,} to "
        f"{end:,}; steps {block['first']} to {block['last']}; {', '.join(block['tensors']) or 'scratch'}"
    )
    colour = _COLOURS[block["kind"]]
    shape = (
        f'<g><title>{escape(hint)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
        f'height="{max(high, 0.6):.1f}" fill="{colour}" fill-opacity="0.75" stroke="white" '
        'stroke-width="0.6"/>'
    )
    return shape + _label(block, x, y, wide, high) + "</g>"


def _label(block: Mapping[str, Any], x: float, y: float, wide: float, high: float) -> str:
    """The name where it fits, else the size, else nothing."""
    if high < 12:
        return ""
    for text in (f"{block['name']} {block['size_bytes']:,}", f"{block['size_bytes']:,}"):
        if len(text) * _LETTER_PX < wide:
            place = f'x="{x + wide / 2:.1f}" y="{y + high / 2 + 3:.1f}"'
            return f'<text {place} text-anchor="middle" fill="white">{escape(text)}</text>'
    return ""


def _curve(steps: Sequence[Mapping[str, Any]], most: int) -> str:
    """Bytes alive, a bar a step."""
    bottom = _TOP + _HIGH + _GAP + _CURVE
    bars = []
    for row in steps:
        high = _CURVE * row["alive_bytes"] / most
        x, wide = _x(row["step"], len(steps)), _WIDE / len(steps)
        hint = f"{row['layer']} {row['op']}: {row['alive_bytes']:,} bytes alive"
        bars.append(
            f'<rect x="{x + 0.5:.1f}" y="{bottom - high:.1f}" width="{max(wide - 1, 0.5):.1f}" '
            f'height="{high:.1f}" fill="#999999"><title>{escape(hint)}</title></rect>'
        )
    return "".join(bars)


def _bound(answer: Mapping[str, Any], most: int) -> str:
    """The line that no arena can be below."""
    y = _TOP + _HIGH * (1 - answer["proved_bytes"] / most)
    return (
        f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDE}" y2="{y:.1f}" stroke="{_PEAK}" '
        'stroke-dasharray="6 4" stroke-width="1.5"><title>the lower bound</title></line>'
    )


def _names(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The layers' names, slanted, as many as can be read."""
    y = _TOP + _HIGH + _GAP + _CURVE + 12
    every = -(-len(steps) // _MOST_LABELS)
    found = []
    for row in steps[::every]:
        x = _x(row["step"] + 0.5, len(steps))
        place = f'x="{x:.1f}" y="{y}" text-anchor="end" transform="rotate(-45 {x:.1f} {y})"'
        found.append(f"<text {place}>{escape(row['layer'][-24:])}</text>")
    return found
