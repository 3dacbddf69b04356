"""Vectors for the arithmetic of requantization: INT32 edges, ties, and random values.

The Python and the C implementation are held to the same ones (tests/mcu may import this module).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
EDGES = (
    *(INT32_MIN, INT32_MIN + 1, -(1 << 30) - 1, -(1 << 30), -(1 << 30) + 1, -(3 << 28), -65536, -3, -2, -1),
    *(0, 1, 2, 3, 65535, 3 << 28, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, INT32_MAX - 1, INT32_MAX),
)


def requantization_vectors() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(values, multipliers, shifts), int32 values as int64 [K]: what a requantization may meet.

    Multipliers are 0 or in [2**30, 2**31); shifts are in [-31, 30], and a left shift keeps int32.
    """
    rng = np.random.default_rng(20)
    multipliers = [0, 1 << 30, (1 << 30) + 1, 3 << 29, INT32_MAX - 1, INT32_MAX]
    rows = [(v, m, s) for v in EDGES for m in multipliers for s in range(-31, 1)]
    rows += [(v, m, s) for v in (-128, -1, 0, 1, 127, 255) for m in multipliers for s in range(1, 23)]
    for _ in range(4000):
        shift = int(rng.integers(-31, 8))
        bits = int(rng.integers(1, 32 - max(shift, 0)))
        value = int(rng.integers(-(1 << (bits - 1)), 1 << (bits - 1))) if bits > 1 else 0
        rows.append((value, int(rng.integers(1 << 30, 1 << 31)), shift))
    values, multipliers_, shifts = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return values, multipliers_, shifts
