"""The table of k-means: the optimum, by trying every table there is, and beside Lloyd's iterations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekd.compress.tables import LARGEST, best_table, error_of


def drawn(seed: int, count: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(seed))
    values = np.clip(np.rint(random.normal(size=count) * spread), -2 * LARGEST, 2 * LARGEST) / 2
    return values, random.random(count)


@pytest.mark.parametrize("entries", [2, 3])
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_no_other_table_is_better(count: int, entries: int) -> None:
    for seed in range(25):
        values, importances = drawn(seed, count, 5)
        table = best_table(values, importances, entries)
        assert table.dtype == np.int8 and len(table) == entries and 0 in table
        assert (np.diff(table.astype(int)) >= 0).all()
        whole = range(-8, 9)
        others = itertools.product(whole, repeat=entries - 1)
        least = min(error_of(values, importances, np.array([0, *other])) for other in others)
        assert error_of(values, importances, table) <= least + 1e-9


@pytest.mark.parametrize("entries", [4, 16])
def test_as_good_as_lloyds_iterations_from_any_start(entries: int) -> None:
    values, importances = drawn(1, 600, 70)
    least = error_of(values, importances, best_table(values, importances, entries))
    for seed in range(20):
        random = np.random.Generator(np.random.Philox(seed + 100))
        centres = random.choice(values, entries)
        for _ in range(30):
            nearest = np.abs(values[:, None] - centres).argmin(axis=1)
            weight = np.bincount(nearest, importances, entries)
            total = np.bincount(nearest, importances * values, entries)
            centres = np.where(weight > 0, total / np.maximum(weight, 1e-9), centres)
        whole = np.rint(centres)
        whole[np.abs(whole).argmin()] = 0
        assert least <= error_of(values, importances, whole) + 1e-9


def test_values_that_fit_are_kept() -> None:
    assert best_table(np.array([-3.0, 7.0, 7.0]), np.ones(3), 4).tolist() == [-3, 0, 0, 7]
    assert best_table(np.zeros(5), np.ones(5), 4).tolist() == [0, 0, 0, 0]
    every = np.arange(-127.0, 128)
    assert np.array_equal(best_table(every, np.ones(255), 256), np.sort(np.append(every, 0)))


def test_what_matters_more_moves_the_table() -> None:
    values = np.array([10.0, 20.0, 50.0])
    assert best_table(values, np.array([1.0, 1.0, 1.0]), 2).tolist() == [0, 50]
    assert best_table(values, np.array([1.0, 1.0, 0.0]), 2).tolist() == [0, 15]
    assert best_table(values, np.zeros(3), 2).tolist() == [0, 50]  # nobody said: all alike
    assert best_table(np.array([200.0]), np.ones(1), 2).tolist() == [0, LARGEST]
