"""One sample from a file, as a model is fed with it: .npy, .npz, an image, a .csv of numbers, a .wav.

Pixels and rows are treated as the recipe's data set treats its own; a user's own model takes numbers as they
are. What does not fit is one sentence that names both shapes.
"""

from __future__ import annotations

import csv
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.images import _decoder
from edgekd.data.npz import read_npz
from edgekd.data.pixels import as_floats
from edgekd.errors import ArtifactError, ConfigError
from edgekd.recipe import DataParams

Floats = npt.NDArray[np.float32]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")


def read_sample(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    """The sample in `path` as float32 of `shape`.

    shape: of the model's input, [1, ...] (NCHW for images). params: the recipe's [data], None for a user's
    own model. An .npz file gives the first of its `x`, an .npy file itself or its first row. Raises
    ArtifactError for what cannot be read or does not fit, ConfigError for another kind of file.
    """
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file; --input takes a sample: .npy, .npz, .csv, .wav or an image"
        )
    kind = path.suffix.lower()
    reader = READERS.get(kind) or (_image if kind in IMAGES else None)
    if reader is None:
        raise ConfigError(
            f"{path}: --input takes .npy, .npz, .csv, .wav or an image, not {kind or 'no suffix'}"
        )
    values = reader(path, shape, params)
    if not np.isfinite(values).all():
        raise ArtifactError(f"{path} holds NaN or infinity; mend it")
    if values.size != int(np.prod(shape)):
        raise ArtifactError(
            f"{path} holds {values.size} values of shape {values.shape} and the model takes {shape[1:]}"
        )
    return np.ascontiguousarray(values, np.float32).reshape(shape)


def _array(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable .npy file ({str(error).splitlines()[0]})") from None
    return _numbers(path, array, shape, params)


def _archive(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    arrays = read_npz(path)
    if "x" not in arrays:
        raise ArtifactError(f"{path} has no array 'x' (it has {', '.join(sorted(arrays)) or 'nothing'})")
    return _numbers(path, arrays["x"], shape, params)


def _numbers(path: Path, array: Any, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    """The first sample of an array, or the array itself; pixels and channels as the data set has them."""
    if array.dtype.kind not in "fiu":
        raise ArtifactError(f"{path} holds {array.dtype}; save numbers")
    size = int(np.prod(shape))
    if array.size != size and array.ndim > 1 and len(array) and array[0].size == size:
        array = array[0]
    last = params is not None and params.channels_last and len(shape) == 4 and array.size == size
    if last and array.shape[-3:] == (shape[2], shape[3], shape[1]):
        array = np.moveaxis(array.reshape(array.shape[-3:]), -1, 0)
    if array.dtype == np.int8:
        return np.asarray(array, np.float32) / np.float32(64)
    return as_floats(array)


def _image(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    if params is None or params.name not in ("image-folder", "digits") or len(shape) != 4:
        raise ConfigError(f"{path} is an image and this model learnt from numbers; save the sample as .npy")
    channels, height, width = shape[1:]
    if height != width or channels not in (1, 3):
        raise ConfigError(f"{path}: images are brought to squares and the model takes {shape[1:]}; save .npy")
    brought = replace(params, size_px=height, channels="rgb" if channels == 3 else "grey")
    try:
        pixels = _decoder(brought)(path.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise ArtifactError(f"{path} is not a readable image ({str(error).splitlines()[0]})") from None
    if params.name == "digits":  # bright strokes on black, 0 to 1
        return np.asarray(pixels, np.float32) / np.float32(255)
    return as_floats(pixels)


def _table(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    """Every number of a .csv file in order; a head and the recipe's label column are left out."""
    try:
        with path.open(newline="", encoding="utf-8") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} is not a readable CSV file ({error})") from None
    label = params.label_column if params is not None and params.name == "csv" else ""
    skip = lines[0].index(label) if lines and label in lines[0] else None
    head = bool(lines) and not all(map(_is_number, lines[0]))
    rows = []
    for number, line in enumerate(lines[head:], start=1 + head):
        cells = [cell for place, cell in enumerate(line) if place != skip]
        if bad := [cell for cell in cells if not _is_number(cell)]:
            raise ArtifactError(f"{path}, line {number}: {bad[0]!r} is no number")
        rows.append([float(cell) for cell in cells])
    if len({len(row) for row in rows}) > 1:
        raise ArtifactError(f"{path}: its lines have {min(map(len, rows))} to {max(map(len, rows))} numbers")
    return np.array(rows, np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _sound(path: Path, shape: tuple[int, ...], params: DataParams | None) -> Floats:
    """16-bit samples in -1 .. 1, of one channel: for a model that takes the wave itself."""
    try:
        with wave.open(str(path), "rb") as opened:
            form = opened.getnchannels(), opened.getsampwidth()
            raw = opened.readframes(opened.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ArtifactError(f"{path} is not a readable .wav file ({error})") from None
    if form != (1, 2):
        raise ArtifactError(f"{path} has {form[0]} channels of {8 * form[1]} bits; give one of 16 bits")
    values = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)
    if values.size != int(np.prod(shape)):
        raise ArtifactError(
            f"{path} holds {values.size} samples of sound and the model takes {shape[1:]}; "
            "where it takes features, compute them and save .npy"
        )
    return values


Reader = Callable[[Path, tuple[int, ...], DataParams | None], Floats]
READERS: dict[str, Reader] = {".npy": _array, ".npz": _archive, ".csv": _table, ".wav": _sound}
