"""Where a recipe's samples come from: each source gives x, y, class names and its test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.arrays import Arrays, read_arrays, read_function, read_windows
from edgekd.data.images import read_images
from edgekd.errors import ConfigError, MissingDependencyError
from edgekd.progress import Progress
from edgekd.recipe import DataParams

DIGITS_TEST_SAMPLES = 360


@dataclass(frozen=True, eq=False)
class Source:
    """x: uint8 or float32 [N, ...]; y: int64 [N].

    test: how many samples to draw for the test split, or the ids that the data set fixes.
    unreadable: names of files that were left out.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    test: int | npt.NDArray[np.int64]
    unreadable: tuple[str, ...] = ()


def read_source(params: DataParams, progress: Progress) -> Source:
    """The samples that `[data]` names. Raises ConfigError where there would be no test split."""
    source = SOURCES[params.name](params, progress)
    if params.vectors:
        source = replace(source, x=source.x.reshape(len(source.x), -1))
    if isinstance(source.test, int) and source.test < 1:
        raise ConfigError("the samples bring no test split of their own; set data.test_samples")
    return source


def _digits(params: DataParams, progress: Progress) -> Source:
    """1,797 handwritten digits, float32 [N, 1, 8, 8] in 0 .. 1, with a drawn test split of a fixed seed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError(
            "the data set digits needs scikit-learn; install it with: pip install 'edgekd[learn]'"
        ) from None
    raw = load_digits()
    x = (np.asarray(raw.images, np.float32) / np.float32(16))[:, None]
    if x.shape != (1797, 1, 8, 8):
        raise ConfigError(
            f"scikit-learn's digits have shape {x.shape}, not 1797 x 8 x 8; reinstall scikit-learn"
        )
    names = tuple(str(c) for c in range(10))
    return Source(x, np.asarray(raw.target, np.int64), names, DIGITS_TEST_SAMPLES)


def _image_folder(params: DataParams, progress: Progress) -> Source:
    images = read_images(params, progress)
    count = len(images.y)
    test: int | npt.NDArray[np.int64] = np.arange(count - images.test, count, dtype=np.int64)
    return Source(
        images.x, images.y, images.classes, test if images.test else params.test_samples, images.unreadable
    )


def _npz(params: DataParams, progress: Progress) -> Source:
    return _of_arrays(read_arrays(Path(params.path), channels_last=params.channels_last), params)


def _csv(params: DataParams, progress: Progress) -> Source:
    rows, step = params.window_rows, params.step_rows or params.window_rows
    return _of_arrays(
        read_windows(Path(params.path), label=params.label_column, rows=rows, step=step), params
    )


def _function(params: DataParams, progress: Progress) -> Source:
    """The module's file is `path`; what it imports is looked for beside its outermost package first."""
    file, module = Path(params.path), params.function.partition(":")[0]
    folder = file.parents[module.count(".") + (file.name == "__init__.py")]
    return _of_arrays(read_function(params.function, folder, channels_last=params.channels_last), params)


def _of_arrays(arrays: Arrays, params: DataParams) -> Source:
    """A Source; ConfigError for samples that no convolution can move over."""
    if min(arrays.x.shape[2:]) < 2 and not params.vectors:
        raise ConfigError(
            f"the samples are {' x '.join(map(str, arrays.x.shape[1:]))}, and the networks "
            "convolve over two dimensions of 2 at least; give windows of rows, [N, H, W], or set data.vectors"
        )
    count = len(arrays.y)
    test = np.arange(count - arrays.test, count, dtype=np.int64) if arrays.test else params.test_samples
    return Source(arrays.x, arrays.y, arrays.classes, test)


# Sources by the name that a recipe gives.
SOURCES: dict[str, Callable[[DataParams, Progress], Source]] = {
    "digits": _digits,
    "image-folder": _image_folder,
    "npz": _npz,
    "csv": _csv,
    "function": _function,
}
