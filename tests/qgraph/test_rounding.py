"""Real weights as integers: cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.qgraph.rounding import LARGEST_BIAS, Grid, grid_of, guarded, levels, nearest

WEIGHTS = np.array([[0.7, -0.36, 0.1], [0.0, 0.0, 0.0], [0.014, -0.006, 0.002]], np.float32)


def test_the_values_of_each_width() -> None:
    assert levels(8)[[0, -1]].tolist() == [-127, 127]
    assert levels(4).tolist() == list(range(-7, 8))
    assert levels(2).tolist() == [-2, -1, 0, 1]


def test_eight_bits_have_the_largest_weight_at_127() -> None:
    grid = grid_of(WEIGHTS, 8, 0)
    assert grid.bits == 8 and grid.scales[[0, 2]] == pytest.approx([0.7 / 127, 0.014 / 127])
    assert grid.integers(WEIGHTS).tolist() == [[127, -65, 18], [0, 0, 0], [127, -54, 18]]
    assert grid_of(WEIGHTS, 8, None).scales == pytest.approx([0.7 / 127])


def test_four_bits_by_hand() -> None:
    """0.7 / 7 = 0.1 holds 0.7 and 0.1 exactly and -0.36 with an error of 0.04; the search does no worse."""
    grid = grid_of(WEIGHTS[:1], 4, 0)
    plain = Grid(np.array([0.1], np.float32), levels(4))
    assert plain.integers(WEIGHTS[:1]).tolist() == [[7, -4, 1]]
    error, most = (float(((g.values(WEIGHTS[:1]) - WEIGHTS[:1]) ** 2).sum()) for g in (grid, plain))
    assert error < most == pytest.approx(0.04**2, rel=1e-4)
    assert grid.bits == 4


def test_clipping_one_outlier_is_found() -> None:
    """Two bits, -2 s .. s: 99 weights at 0.1 and one at 1: s = 0.2 costs 0.8**2 + 99 * 0.1**2 = 1.63,
    s = 1 costs 99 * 0.1**2 = 0.99, and with the largest at 0.1 nothing is clipped."""
    weights = np.array([[0.1] * 99 + [1.0]], np.float32)
    assert grid_of(weights, 2, 0).scales == pytest.approx([1.0])
    assert grid_of(weights[:, :99], 2, 0).scales == pytest.approx([0.1])


def test_a_dead_channel_has_the_floor_as_its_scale() -> None:
    scales = grid_of(WEIGHTS, 8, 0, scale_floor=0.5).scales
    assert scales == pytest.approx([0.7 / 127, 0.35 / 127, 0.35 / 127])
    assert (grid_of(WEIGHTS, 8, 0).scales > 0).all()


def test_a_bias_is_kept_inside_an_int32() -> None:
    """bias / (s_in s_w) = 0.5 / (0.01 * 1e-9) = 5e10, 46 times 2**30: s_w becomes 0.5 / (0.01 * 2**30)."""
    before = np.array([1e-9, 0.01], np.float32)
    after = guarded(before, np.array([0.5, -0.5], np.float32), 0.01)
    assert after == pytest.approx([0.5 / (0.01 * LARGEST_BIAS), 0.01], rel=1e-5)
    assert abs(0.5 / (0.01 * float(after[0]))) < LARGEST_BIAS
    one = guarded(np.array([1e-9], np.float32), np.array([0.5, 5.0], np.float32), 0.01)
    assert one == pytest.approx([5.0 / (0.01 * LARGEST_BIAS)], rel=1e-5)


def test_any_ascending_table_rounds_to_the_nearest_entry() -> None:
    table = np.array([-90, -20, 0, 7, 127], np.int8)
    assert nearest(np.array([-200.0, -56, -54, -9, 3.4, 3.6, 68, 500]), table).tolist() == [
        *(-90, -90, -20, 0, 0, 7, 127, 127)
    ]
    assert Grid(np.ones(1, np.float32), table).bits == 4
