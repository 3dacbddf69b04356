"""Which trials no other one beats, and how much of the space of figures they dominate.

Figures of a trial: (loss, cost, ram, flash) with every one the less the better; loss is 1 - accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

Figures = tuple[float, ...]


def dominates(a: Figures, b: Figures) -> bool:
    """Whether `a` is no worse anywhere and better somewhere."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def front(points: Sequence[Figures]) -> list[int]:
    """The places of the points that none dominates; of equal ones the first."""
    kept = []
    for index, point in enumerate(points):
        beaten = any(dominates(other, point) for other in points)
        if not beaten and point not in points[:index]:
            kept.append(index)
    return kept


def hypervolume(points: Sequence[Figures], reference: Figures) -> float:
    """The volume of what `points` dominate, up to `reference` (Zitzler and Thiele 1999); exact.

    By slices: along the last figure the points come in one after the other; between two of them the volume is
    that of one dimension less, times the gap.

    >>> hypervolume([(1.0, 3.0), (2.0, 1.0)], (4.0, 4.0))  # 3 * 1 + 2 * 3 - 2 * 1 covered twice
    7.0
    """
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(p[0] for p in inside)
    inside = sorted({inside[i] for i in front(inside)}, key=lambda p: p[-1])
    total = 0.0
    for index, point in enumerate(inside):
        upper = inside[index + 1][-1] if index + 1 < len(inside) else reference[-1]
        if upper > point[-1]:
            total += (upper - point[-1]) * hypervolume([p[:-1] for p in inside[: index + 1]], reference[:-1])
    return total
