"""Charts as small SVG files, from the standard library alone: the same data give the same bytes.

A chart has one plot area; data coordinates go through `Scale`. White paper is drawn below, so that a plot
reads on a dark page too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 56, 52
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by all eyes

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Data limits to pixels; `log`: by the logarithm."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        by: Callable[[float], float] = math.log if self.log else float
        part = (by(value) - by(self.low)) / (by(self.high) - by(self.low))
        return self.start_px + part * (self.end_px - self.start_px)


@dataclass
class Chart:
    """x, y: (low, high) of the axes in data units."""

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log_x: bool = False
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.to_x = Scale(*self.x, LEFT, WIDTH - RIGHT, self.log_x)
        self.to_y = Scale(*self.y, HEIGHT - BOTTOM, TOP)

    def line(self, points: Points, name: str = "", colour: str = "", dashed: bool = False) -> None:
        """A polyline with an entry in the legend."""
        colour = colour or COLOURS[len(self.legend) % len(COLOURS)]
        path = " ".join(f"{self.to_x(x):.1f},{self.to_y(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if name:
            self.legend.append((name, colour))

    def dot(self, x: float, y: float, colour: str, radius: float = 3.5, opacity: float = 1.0) -> None:
        self.parts.append(
            f'<circle cx="{self.to_x(x):.1f}" cy="{self.to_y(y):.1f}" r="{radius}" fill="{colour}"'
            f' fill-opacity="{opacity}"/>'
        )

    def text(self, x: float, y: float, words: str, anchor: str = "middle", size_px: int = 12) -> None:
        """Words at a place in data units."""
        self._words(self.to_x(x), self.to_y(y), words, anchor, size_px)

    def ticks_x(self, ticks: Sequence[float | tuple[float, str]]) -> None:
        """Ticks below; (place, words) where the words are not the number."""
        for tick in ticks:
            place, words = tick if isinstance(tick, tuple) else (tick, f"{tick:g}")
            at = self.to_x(place)
            self._rule(at, HEIGHT - BOTTOM, at, TOP)
            self._words(at, HEIGHT - BOTTOM + 18, words)

    def ticks_y(self, ticks: Sequence[float]) -> None:
        for tick in ticks:
            at = self.to_y(tick)
            self._rule(LEFT, at, WIDTH - RIGHT, at)
            self._words(LEFT - 8, at + 4, f"{tick:g}", "end")

    def svg(self) -> str:
        """The whole file."""
        self._words(LEFT, 20, self.title, "start", 14)
        self._words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.x_label)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text x="16" y="{middle:.1f}" font-size="12" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle:.1f})">{escape(self.y_label)}</text>'
        )
        for column, (name, colour) in enumerate(self.legend):
            x = LEFT + 140 * column
            self.parts.append(f'<rect x="{x}" y="{TOP - 17}" width="16" height="4" fill="{colour}"/>')
            self._words(x + 22, TOP - 10, name, "start")
        box = (
            f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
            'fill="none" stroke="#444"/>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" role="img"><title>{escape(self.title)}</title>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        )
        return "\n".join([head, box, *self.parts, "</svg>"]) + "\n"

    def _rule(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd" stroke-width="1"/>'
        )

    def _words(self, x: float, y: float, words: str, anchor: str = "middle", size_px: int = 12) -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size_px}" text-anchor="{anchor}"'
        self.parts.append(f"<text {place}>{escape(words)}</text>")
