"""The arithmetic against its definition, one scalar at a time, and against real functions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.qgraph import arithmetic
from tests.qgraph.vectors import EDGES, INT32_MAX, INT32_MIN, requantization_vectors


def scalar_high_mul(a: int, b: int) -> int:
    """gemmlowp's definition: nudge by the sign, then divide truncating."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudged = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return nudged // (1 << 31) if nudged >= 0 else -(-nudged // (1 << 31))


def scalar_divide(value: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if value < 0 else 0)
    return (value >> exponent) + (1 if (value & mask) > threshold else 0)


def test_doubling_high_mul_is_gemmlowps() -> None:
    rng = np.random.default_rng(1)
    values = [*EDGES, *rng.integers(INT32_MIN, INT32_MAX, 60).tolist()]
    got = arithmetic.doubling_high_mul(np.array(values)[:, None], np.array(values))
    assert got.tolist() == [[scalar_high_mul(a, b) for b in values] for a in values]


def test_high_mul_saturates_only_where_it_must() -> None:
    assert arithmetic.doubling_high_mul(INT32_MIN, INT32_MIN) == INT32_MAX
    assert arithmetic.doubling_high_mul(INT32_MIN, INT32_MAX) == -INT32_MAX
    assert arithmetic.doubling_high_mul(1 << 30, 1) == 1  # a tie
    assert arithmetic.doubling_high_mul(-(1 << 30), 1) == 0  # a tie


@pytest.mark.parametrize("exponent", range(32))
def test_rounding_divide_is_gemmlowps(exponent: int) -> None:
    got = arithmetic.rounding_divide_by_pot(np.array(EDGES), exponent)
    assert got.tolist() == [scalar_divide(value, exponent) for value in EDGES]


def test_rounding_divide_takes_ties_away_from_zero() -> None:
    assert arithmetic.rounding_divide_by_pot([3, -3, 1, -1, 2, -2], 1).tolist() == [2, -2, 1, -1, 1, -1]


def test_multiply_by_quantized_multiplier_is_two_roundings() -> None:
    values, multipliers, shifts = requantization_vectors()
    got = arithmetic.multiply_by_quantized_multiplier(values, multipliers, shifts)
    for value, multiplier, shift, result in zip(values, multipliers, shifts, got, strict=True):
        shifted = int(value) << max(int(shift), 0)
        assert INT32_MIN <= shifted <= INT32_MAX
        assert scalar_divide(scalar_high_mul(shifted, int(multiplier)), max(-int(shift), 0)) == result


def test_a_left_shift_that_overflows_wraps() -> None:
    assert arithmetic.multiply_by_quantized_multiplier(3, 1 << 30, 31 - 1) == scalar_high_mul(
        (3 << 30) - (1 << 32), 1 << 30
    )


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (1.0, (1 << 30, 1)),
        (0.5, (1 << 30, 0)),
        (0.75, (3 << 29, 0)),
        (2.0**-32, (1 << 30, -31)),
        (2.0**-33, (0, 0)),  # shift < -31: nothing would be left
        (1e-300, (0, 0)),
        (math.nextafter(1.0, 0.0), (1 << 30, 1)),  # rounds up to 2**31, so halved
        (1 - 2.0**-32, (1 << 30, 1)),  # a tie rounds away from zero
        (2.0**20, (1 << 30, 21)),
    ],
)
def test_quantize_multiplier(real: float, expected: tuple[int, int]) -> None:
    assert arithmetic.quantize_multiplier(real) == expected


def test_quantize_multiplier_is_near_and_normal() -> None:
    real = np.exp(np.random.default_rng(3).uniform(-20, 15, 2000))
    multipliers, shifts = arithmetic.quantize_multipliers(real)
    assert (multipliers >= 1 << 30).all()
    assert np.allclose(multipliers * 2.0 ** (shifts - 31.0), real, rtol=2.0**-31, atol=0)


def test_round_half_away() -> None:
    values = [0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997, -0.2]
    assert arithmetic.round_half_away(values).tolist() == [1, -1, 2, -2, 3, 0, -0.0]


def test_fixed_point_functions_are_near_the_real_ones() -> None:
    x = np.linspace(-15.9, 15.9, 4001)
    fixed = np.round(x * 2.0**27).astype(np.int64)
    assert np.abs(arithmetic.logistic_fixed(fixed, 4) / 2.0**31 - 1 / (1 + np.exp(-x))).max() < 1e-6
    assert np.abs(arithmetic.tanh_fixed(fixed, 4) / 2.0**31 - np.tanh(x)).max() < 1e-6
    negative = fixed[x <= 0]
    assert np.abs(arithmetic.exp_on_negative_values(negative, 4) / 2.0**31 - np.exp(x[x <= 0])).max() < 1e-6


def test_reciprocal() -> None:
    values = np.array([1 << 19, 3 << 18, 12345678, 1 << 27, (1 << 31) - 1], np.int64)
    mantissa, over_unit = arithmetic.reciprocal(values, 12)
    got = mantissa / 2.0**31 / 2.0**over_unit
    assert np.allclose(got, 2.0**19 / values, rtol=1e-6)
