"""Arrays without numpy: .npy files mapped into memory, rows of them, and one sample's layout."""

from __future__ import annotations

import array
import ast
import math
import mmap
import struct
from pathlib import Path
from typing import Any

from .files import damaged

CODES = {"<f4": "f", "<f8": "d", "<i8": "q", "|i1": "b", "|u1": "B"}  # a device is little-endian


class Rows:
    """An .npy file [N, ...] as rows of plain values; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises AgentError `mismatch` when `path` is no .npy file of a type that a bundle holds."""
        try:
            with path.open("rb") as stream:
                mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            (length,) = struct.unpack_from("<H", mapped, 8)
            header = ast.literal_eval(bytes(mapped[10 : 10 + length]).decode("latin-1"))
            self.shape = tuple(int(extent) for extent in header["shape"])
            code = CODES[header["descr"]]
            count = math.prod(self.shape)
            body = mapped[10 + length :][: count * struct.calcsize(code)]
            self.values: memoryview[Any] = body.cast(code)  # type: ignore[call-overload]
        except (OSError, ValueError, KeyError, TypeError, SyntaxError, struct.error):
            raise damaged(path) from None
        if len(self.values) != count or header["fortran_order"]:
            raise damaged(path)

    def __len__(self) -> int:
        return self.shape[0]

    def row(self, index: int) -> memoryview[Any]:
        """The values of one row, of any rank, one after the other."""
        width = math.prod(self.shape[1:])
        return self.values[index * width : (index + 1) * width]


def sample_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape [1, ...] of a sample that lies as [1, C, H, W] in the bundle, under `layout`."""
    if layout == "NHWC" and len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    return shape


def sample_values(row: memoryview[Any], shape: tuple[int, ...], layout: str) -> array.array[float]:
    """One sample's float32 values under `layout`; `row` lies as `shape`, [1, C, H, W] for an image."""
    values = array.array("f", row.tobytes())
    channels = shape[1] if len(shape) == 4 else 1
    if layout != "NHWC" or channels == 1:
        return values
    plane, result = len(values) // channels, array.array("f", bytes(4 * len(values)))
    for channel in range(channels):
        result[channel::channels] = values[channel * plane : (channel + 1) * plane]
    return result
