"""The front and its hypervolume, against counting cells."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest

from edgekd.search import front as module
from edgekd.search.front import dominates, front, hypervolume


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_volume_is_that_of_the_cells_that_are_dominated(dimensions: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox([seed, dimensions]))
    points = [tuple(map(float, row)) for row in rng.integers(0, 7, (12, dimensions))]
    cells = itertools.product(range(6), repeat=dimensions)
    covered = sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells
    )
    assert hypervolume(points, (6.0,) * dimensions) == covered


def test_what_no_other_beats() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (1.0, 3.0), (2.0, 3.0), (3.0, 1.0)]
    assert front(points) == [0, 1, 4]
    assert dominates((1.0, 2.0), (1.0, 3.0)) and not dominates((1.0, 2.0), (1.0, 2.0))


def test_beyond_the_reference_counts_nothing() -> None:
    assert hypervolume([(5.0, 1.0), (1.0, 4.0)], (4.0, 4.0)) == 0.0
    assert hypervolume([], (1.0, 1.0)) == 0.0


def test_docstrings() -> None:
    assert doctest.testmod(module).failed == 0
