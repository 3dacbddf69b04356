"""The sensitivities as one SVG picture: a pair of bars a layer, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from edgekd.quantize.mixed import Sensitivity

_WIDTH, _LEFT, _RIGHT, _TOP, _BAR, _GAP = 640, 190, 60, 46, 12, 10
_COLOURS = {4: "#0072b2", 2: "#d55e00"}
_DECADES = 6  # shown below the largest


def sensitivity_svg(rows: Sequence[Sensitivity], bits: Mapping[str, int]) -> str:
    """Loss by layer at 4 and 2 bits; the bits that were chosen stand behind each layer's name."""
    top = math.ceil(math.log10(max([row.loss for row in rows if row.bits in _COLOURS] + [1e-6])))
    width = _WIDTH - _LEFT - _RIGHT
    parts, y = [], float(_TOP)
    for layer in dict.fromkeys(row.layer for row in rows):
        said = escape(f"{layer} ({bits[layer]} bits)")
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 1.3 * _BAR:.0f}" text-anchor="end">{said}</text>')
        for row in (r for r in rows if r.layer == layer and r.bits in _COLOURS):
            share = 1 + (math.log10(max(row.loss, 10.0 ** (top - _DECADES))) - top) / _DECADES
            long, colour = share * width, _COLOURS[row.bits]
            parts.append(
                f'<rect x="{_LEFT}" y="{y:.0f}" width="{long:.1f}" height="{_BAR}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{_LEFT + long + 4:.1f}" y="{y + _BAR - 2:.0f}">{row.loss:.1e}</text>')
            y += _BAR
        y += _GAP
    key = "".join(
        f'<rect x="{_LEFT + 90 * n}" y="28" width="10" height="10" fill="{colour}"/>'
        f'<text x="{_LEFT + 14 + 90 * n}" y="37">{number} bits</text>'
        for n, (number, colour) in enumerate(_COLOURS.items())
    )
    title = "squared change of the outputs / their variance, one layer alone with fewer bits"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/><text x="12" y="18" font-size="13">{title}</text>'
        f"{key}{''.join(parts)}</svg>\n"
    )
