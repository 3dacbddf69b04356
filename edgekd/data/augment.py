"""Augmented views as a pure function of (seed, purpose, view, sample id): the same pixels everywhere.

Shift and rotation, bilinear, zeros beyond the border, vectorised over the samples. All geometry is
in integers (1/65536 pixel, 1/256 for the interpolation weights), so that a view that the teacher
saw on one machine is replayed bit for bit on another; the float work is four products and a sum in
a fixed order. Known to knowledge files as `NAME`; a change of the pixels needs a new name.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from edgekd.data.randomness import words
from edgekd.recipe import AugmentParams

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NAME = "shift-rotate-1"

_ONE = 65_536  # a pixel, in the geometry's integers
_WORDS = 4  # raw words a sample: shift y, shift x, angle, one spare


def augmented(x: Floats, ids: Ints, params: AugmentParams, *, seed: int, purpose: str, view: int) -> Floats:
    """View `view` of the samples `ids`, whose plain pixels are `x` float32 [N, C, H, W]; same shape."""
    raw = words(seed, purpose, view, count=_WORDS * (int(ids.max()) + 1)).reshape(-1, _WORDS)[ids]
    unit = (raw >> np.uint64(32)).astype(np.int64)  # 0 .. 2^32-1
    shift = round(params.shift_px * _ONE)
    shift_y, shift_x = (_uniform(unit[:, i], shift) for i in (0, 1))
    angle = _uniform(unit[:, 2], round(params.rotation_deg * 1000))
    source_y, source_x = _source(x.shape[2], x.shape[3], shift_y, shift_x, angle)
    return _bilinear(x, source_y, source_x)


def view_of(x: Floats, ids: Ints, params: AugmentParams, *, seed: int, view: int) -> Floats:
    """A view for which knowledge is stored: view 0 is the plain sample, the others are augmented."""
    if view == 0:
        return x
    return augmented(x, ids, params, seed=seed, purpose="knowledge-view", view=view)


def views_checksum(x: Floats, ids: Ints, params: AugmentParams, *, seed: int, views: int) -> str:
    """sha256 over the first and last view's pixels of up to 64 samples: proves that a replay is exact."""
    digest = hashlib.sha256()
    for view in sorted({0, 1 % views, views - 1}):
        digest.update(view_of(x[:64], ids[:64], params, seed=seed, view=view).astype("<f4").tobytes())
    return digest.hexdigest()


def _uniform(unit: Ints, bound: int) -> Ints:
    """Integers in -bound .. bound from uniform 32-bit ones."""
    return ((unit * (2 * bound + 1)) >> 32) - bound


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
