"""The integers of TFLite's int8 reference kernels: multipliers, the doubly rounded product, gemmlowp's exp.

Everything here is exact: int64 arrays that hold int32 values, and float64 only where TFLite itself
computes a multiplier in double. The C kernels are held to the same vectors (tests/qgraph/vectors.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A real multiplier as (multiplier, shift): real is about multiplier * 2**(shift - 31).

    The multiplier lies in [2**30, 2**31), or is 0 where real is 0 or below about 2**-32
    (a dead channel's scale): then the shift is 0 too. `real` is finite and not negative.
    """
    multipliers, shifts = quantize_multipliers(np.array([real], np.float64))
    return int(multipliers[0]), int(shifts[0])


def quantize_multipliers(real: npt.NDArray[np.float64]) -> tuple[Int32s, Int32s]:
    """`quantize_multiplier` of each element: two int32 arrays of the same shape."""
    fraction, exponent = np.frexp(real)
    fixed = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    shift = exponent.astype(np.int64)
    rounded_up = fixed == 1 << 31
    fixed, shift = np.where(rounded_up, fixed >> 1, fixed), shift + rounded_up
    vanishes = (shift < -31) | (fixed == 0)
    return np.where(vanishes, 0, fixed).astype(np.int32), np.where(vanishes, 0, shift).astype(np.int32)


def wrap_int32(value: npt.ArrayLike) -> Ints:
    """The low 32 bits as a signed number: what an int32 register keeps."""
    wide = np.asarray(value, np.int64)
    return np.asarray(((wide + (1 << 31)) & 0xFFFFFFFF) - (1 << 31), np.int64)


def doubling_high_mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Ints:
    """SaturatingRoundingDoublingHighMul: (a*b*2 + 2**31) >> 32 of int32 values, saturated.

    Ties go towards +infinity; only INT32_MIN * INT32_MIN saturates.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + (1 << 30)) >> 31, INT32_MAX), np.int64)


def rounding_divide_by_pot(value: npt.ArrayLike, exponent: npt.ArrayLike) -> Ints:
    """value / 2**exponent rounded to nearest, ties away from zero; exponent 0 to 62."""
    wide = np.asarray(value, np.int64)
    power = np.asarray(exponent, np.int64)
    half = (np.int64(1) << power) >> 1
    away = (wide < 0) & (power > 0)
    return np.asarray((wide + half - away) >> power, np.int64)


def multiply_by_quantized_multiplier(
    value: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike
) -> Ints:
    """value * multiplier * 2**(shift - 31), rounded twice as TFLite's reference does; broadcasts.

    `value` is int32 (as any integer array), `shift` in [-31, 30]. A left shift that overflows wraps
    to 32 bits, as it does on every machine that runs the kernels.
    """
    power = np.asarray(shift, np.int64)
    shifted = wrap_int32(np.asarray(value, np.int64) << np.maximum(power, 0))
    return rounding_divide_by_pot(doubling_high_mul(shifted, multiplier), np.maximum(-power, 0))


def round_half_away(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """C's round() of each element, as float64 with an integral value."""
    wide = np.asarray(value, np.float64)
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide)


def saturating_left_shift(value: npt.ArrayLike, exponent: int) -> Ints:
    """value * 2**exponent, clamped to int32."""
    shifted = np.asarray(value, np.int64) << exponent
    return np.asarray(np.clip(shifted, INT32_MIN, INT32_MAX), np.int64)


# ---- gemmlowp fixed point: raw int32 values; Qm.n has m integer and n = 31 - m fractional bits ----

_EXP_MINUS_EIGHTH = 1895147668  # exp(-1/8) in Q0.31
_ONE_THIRD = 715827883  # 1/3 in Q0.31
_48_OVER_17, _MINUS_32_OVER_17 = 1515870810, -1010580540  # in Q2.29
# (exponent, exp(-2**exponent) in Q0.31): the bits of the argument above a quarter.
_EXP_OF_BITS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def _exp_of_last_quarter(value: Ints) -> Ints:
    """exp of Q0.31 values in [-1/4, 0): a Taylor polynomial around -1/8."""
    x = value + (1 << 28)
    x2 = doubling_high_mul(x, x)
    x3 = doubling_high_mul(x2, x)
    x4_over_4 = rounding_divide_by_pot(doubling_high_mul(x2, x2), 2)
    tail = rounding_divide_by_pot(doubling_high_mul(x4_over_4 + x3, _ONE_THIRD) + x2, 1)
    return _EXP_MINUS_EIGHTH + doubling_high_mul(_EXP_MINUS_EIGHTH, x + tail)


def exp_on_negative_values(value: Ints, integer_bits: int) -> Ints:
    """exp(value) in Q0.31 for values <= 0 in Q(integer_bits); exp(0) is INT32_MAX."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    last_quarter = (value & (quarter - 1)) - quarter
    result = _exp_of_last_quarter(saturating_left_shift(last_quarter, integer_bits))
    remainder = last_quarter - value
    for exponent, factor in _EXP_OF_BITS:
        if integer_bits > exponent:
            is_set = (remainder >> (fraction_bits + exponent)) & 1
            result = np.where(is_set == 1, doubling_high_mul(result, factor), result)
    return np.where(value == 0, INT32_MAX, result)


def _reciprocal_of_half(value: Ints) -> tuple[Ints, Ints]:
    """(1 + value) / 2 in Q0.31 and 1 / that in Q2.29 (three Newton steps), for value in [0, 1] in Q0.31."""
    total = value + INT32_MAX
    half = np.where(total >= 0, (total + 1) >> 1, -((1 - total) >> 1))
    x = _48_OVER_17 + doubling_high_mul(half, _MINUS_32_OVER_17)
    for _ in range(3):
        error = (1 << 29) - doubling_high_mul(half, x)
        x = x + saturating_left_shift(doubling_high_mul(x, error), 2)
    return half, x


def one_over_one_plus_x(value: Ints) -> Ints:
    """1 / (1 + value) for value in [0, 1], both in Q0.31."""
    return saturating_left_shift(_reciprocal_of_half(value)[1], 1)


def logistic_fixed(value: Ints, integer_bits: int) -> Ints:
    """1 / (1 + exp(-value)) in Q0.31 of values in Q(integer_bits)."""
    positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(value), integer_bits))
    result = np.where(value > 0, positive, INT32_MAX - positive)
    return np.where(value == 0, 1 << 30, result)


def tanh_fixed(value: Ints, integer_bits: int) -> Ints:
    """tanh(value) in Q0.31 of values in Q(integer_bits)."""
    power = exp_on_negative_values(-np.abs(value), integer_bits + 1)
    magnitude = saturating_left_shift(_reciprocal_of_half(power)[1] - (1 << 29), 2)
    return np.sign(value) * magnitude


def reciprocal(value: Ints, integer_bits: int) -> tuple[Ints, Ints]:
    """1 / value for value > 0 in Q(integer_bits), as (Q0.31 mantissa, bits over unit)."""
    bits = np.frexp(value.astype(np.float64))[1].astype(np.int64)
    headroom = 32 - bits
    fraction = (value << headroom) - (1 << 31)
    return one_over_one_plus_x(fraction), integer_bits - headroom


def input_radius(integer_bits: int, left_shift: int) -> int:
    """The largest |input| that a left shift keeps inside Q(integer_bits)."""
    return int(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits) // 2.0**left_shift)
