"""How stored samples become what a model is fed with: bytes are centred, floats pass as they are.

A byte b becomes (b - 128) / 64, which float32 holds exactly: -2 .. 1.984 with mid-grey at zero. Its int8
form has the scale 1/64 and the zero point 0, so that a device turns a camera's byte into the model's
input by subtracting 128.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

CENTRE, STEP = 128, 64


def as_floats(x: Array) -> Floats:
    """float32 of the same shape: (x - 128) / 64 for uint8, x itself for float32."""
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - np.float32(CENTRE)) * np.float32(1 / STEP)
    return np.asarray(x, np.float32)


def border(x: Array) -> int:
    """The stored value that the model sees as zero: what lies beyond an image's edge."""
    return CENTRE if x.dtype == np.uint8 else 0
