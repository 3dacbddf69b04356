"""Augmented views as a pure function of (seed, purpose, view, sample id): the same pixels everywhere.

`shift-rotate-1`: shift and rotation, bilinear, zeros beyond the border. All geometry is in integers
(1/65536 pixel, 1/256 for the interpolation weights), so that a view that the teacher saw on one
machine is replayed bit for bit on another; the float work is four products and a sum in a fixed order.
`crop-flip-1`: whole-pixel shifts and a mirror, on bytes or floats, no arithmetic at all.
Both are vectorised over the samples, and any subset of samples gives the same pixels as all of them.
Known to knowledge files by those names (`NAMES`); a change of the pixels needs a new name.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.pixels import as_floats, border
from edgekd.data.randomness import words
from edgekd.recipe import AugmentParams

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# The augmentation's kind in a recipe -> its name and version in a knowledge file.
NAMES = {"shift-rotate": "shift-rotate-1", "crop-flip": "crop-flip-1", "none": "none-1"}

_ONE = 65_536  # a pixel, in the geometry's integers
_WORDS = 4  # raw words a sample: down, right, angle or mirror, one spare
_CHECKED_SAMPLES = 64


def augmented(
    x: Array,
    ids: Ints,
    params: AugmentParams,
    *,
    seed: int,
    purpose: str,
    view: int,
    population: int | None = None,
) -> Floats:
    """View `view` of the samples `ids`, stored as `x` [N, C, H, W] (uint8 or float32): float32 [N, C, H, W].

    population: one more than the largest id there is; spares drawing the words anew for each batch.
    """
    if params.kind == "none" or len(ids) == 0:
        return as_floats(x)
    unit = _units(seed, purpose, view, population or int(ids.max()) + 1)[ids]
    if params.kind == "crop-flip":
        return as_floats(_crop_flip(x, unit, params))
    shift = round(params.shift_px * _ONE)
    shift_y, shift_x = (_uniform(unit[:, i], shift) for i in (0, 1))
    angle = _uniform(unit[:, 2], round(params.rotation_deg * 1000))
    source_y, source_x = _source(x.shape[2], x.shape[3], shift_y, shift_x, angle)
    return _bilinear(as_floats(x), source_y, source_x)


def view_of(
    x: Array, ids: Ints, params: AugmentParams, *, seed: int, view: int, population: int | None = None
) -> Floats:
    """A view for which knowledge is stored: view 0 is the plain sample, the others are augmented."""
    if view == 0:
        return as_floats(x)
    where = {"seed": seed, "view": view, "population": population}
    return augmented(x, ids, params, purpose="knowledge-view", **where)  # type: ignore[arg-type]


def views_checksum(x: Array, ids: Ints, params: AugmentParams, *, seed: int, views: int) -> str:
    """sha256 over views 0, 1 and the last of up to 64 samples' pixels: proves that a replay is exact."""
    digest = hashlib.sha256()
    few = slice(_CHECKED_SAMPLES)
    for view in sorted({0, 1 % views, views - 1}):
        digest.update(view_of(x[few], ids[few], params, seed=seed, view=view).astype("<f4").tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _units(seed: int, purpose: str, view: int, population: int) -> Ints:
    """Uniform integers 0 .. 2^32-1, int64 [population, 4]: sample i's are words 4i .. 4i+3 of the stream."""
    raw = words(seed, purpose, view, count=_WORDS * population).reshape(-1, _WORDS)
    return (raw >> np.uint64(32)).astype(np.int64)


def _uniform(unit: Ints, bound: int) -> Ints:
    """Integers in -bound .. bound from uniform 32-bit ones."""
    return ((unit * (2 * bound + 1)) >> 32) - bound


def _crop_flip(x: Array, unit: Ints, params: AugmentParams) -> Array:
    """Shift by whole pixels (word 0 down, word 1 right), mirror where word 2 is odd; grey beyond the edge."""
    pad = params.pad_px
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=border(x))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    top, left = (pad - _uniform(unit[:, i], pad) for i in (0, 1))
    moved: Array = windows[np.arange(len(x)), :, top, left]
    if not params.flip:
        return moved
    mirrored = (unit[:, 2] & 1).astype(bool)
    moved[mirrored] = moved[mirrored][..., ::-1]
    return moved


def _source(height: int, width: int, shift_y: Ints, shift_x: Ints, angle_mdeg: Ints) -> tuple[Ints, Ints]:
    """Where each output pixel comes from, int64 [N, H, W] in 1/65536 pixel."""
    radians = np.deg2rad(angle_mdeg / 1000.0)
    cos = np.rint(np.cos(radians) * _ONE).astype(np.int64)[:, None, None]
    sin = np.rint(np.sin(radians) * _ONE).astype(np.int64)[:, None, None]
    # Twice the distance from the centre, so that it is an integer for even sizes as well.
    y2 = (2 * np.arange(height, dtype=np.int64) - (height - 1))[None, :, None]
    x2 = (2 * np.arange(width, dtype=np.int64) - (width - 1))[None, None, :]
    centre_y, centre_x = (height - 1) * _ONE, (width - 1) * _ONE
    source_y = ((cos * y2 - sin * x2 + centre_y) >> 1) + shift_y[:, None, None]
    source_x = ((sin * y2 + cos * x2 + centre_x) >> 1) + shift_x[:, None, None]
    return source_y, source_x


def _bilinear(x: Floats, source_y: Ints, source_x: Ints) -> Floats:
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)))
    row = np.clip(source_y + _ONE, 0, (height + 1) * _ONE)
    column = np.clip(source_x + _ONE, 0, (width + 1) * _ONE)
    top, left = row >> 16, column >> 16
    down = (((row & 0xFFFF) >> 8).astype(np.float32) / np.float32(256))[:, None]
    right = (((column & 0xFFFF) >> 8).astype(np.float32) / np.float32(256))[:, None]
    sample = np.arange(len(x))[:, None, None]

    def pixel(dy: int, dx: int) -> Floats:
        gathered = padded[sample, :, top + dy, left + dx]  # [N, H, W, C]
        return np.ascontiguousarray(gathered.transpose(0, 3, 1, 2))

    one = np.float32(1)
    above = pixel(0, 0) * (one - right) + pixel(0, 1) * right
    below = pixel(1, 0) * (one - right) + pixel(1, 1) * right
    return np.asarray(above * (one - down) + below * down, np.float32)
