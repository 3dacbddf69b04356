"""Samples that are numbers already: an .npz file, CSV recordings cut into windows, a function of the user's.

All three end as x [N, C, H, W] and classes 0 .. C-1. What is wrong is one sentence with file and place.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.npz import read_npz
from edgekd.errors import ArtifactError, ConfigError, EdgekdError

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrays:
    """x: uint8 or float32 [N, C, H, W]; y: int64 [N]; the last `test` samples are a test split."""

    x: Array
    y: Labels
    classes: tuple[str, ...]
    test: int = 0


def read_arrays(path: Path, *, channels_last: bool) -> Arrays:
    """x and y (x_test, y_test, classes where they are there) of an .npz file.

    x: [N, F], [N, H, W] or [N, C, H, W] ([N, H, W, C]: channels_last); uint8 is kept as pixels, int8 becomes
    x / 64 (what uint8 pixels become, too). y: class numbers or names. Raises ArtifactError.
    """
    arrays = read_npz(path)
    for name in ("x", "y"):
        if name not in arrays:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise ArtifactError(f"{path} has no array {name!r} (it has {found}); save x and y in it")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ArtifactError(f"{path} has only one of x_test and y_test; save both, or neither")
    parts = [(arrays["x"], arrays["y"], "")]
    if "x_test" in arrays:
        parts.append((arrays["x_test"], arrays["y_test"], "_test"))
    return _joined(parts, arrays.get("classes"), str(path), channels_last)


def read_function(name: str, folder: Path, *, channels_last: bool) -> Arrays:
    """What `package.module:function` returns: a dict with the arrays that `read_arrays` reads, or (x, y).

    folder: where the module is looked for first. Raises ConfigError for a name that leads nowhere,
    ArtifactError for what the function raises or returns.
    """
    with importable(folder):
        function = find_function(name)
        try:
            made = function()
        except EdgekdError:
            raise
        except Exception as error:
            raise ArtifactError(
                f"{name} raised {type(error).__name__}: {_first_line(error)}; mend it"
            ) from None
    if isinstance(made, tuple) and len(made) == 2:
        made = {"x": made[0], "y": made[1]}
    if not isinstance(made, dict) or not {"x", "y"} <= set(made):
        raise ArtifactError(
            f"{name} returned {type(made).__name__}; it must return (x, y) or a dict with both"
        )
    parts = [(np.asarray(made["x"]), np.asarray(made["y"]), "")]
    if "x_test" in made and "y_test" in made:
        parts.append((np.asarray(made["x_test"]), np.asarray(made["y_test"]), "_test"))
    classes = np.asarray(made["classes"]) if "classes" in made else None
    return _joined(parts, classes, name, channels_last)


def find_function(name: str) -> Any:
    """The function that `package.module:function` names. Raises ConfigError saying which half is wrong."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{name!r} names no function; write it as package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{name}: {_first_line(error)}; check the module's name and place") from None
    except Exception as error:
        raise ConfigError(
            f"{name}: importing {module_name} raised {type(error).__name__}: {_first_line(error)}; mend it"
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"{name}: module {module_name} has no function {attribute!r}")
    return function


def read_windows(path: Path, *, label: str, rows: int, step: int) -> Arrays:
    """Windows of `rows` rows, one every `step`, of a .csv file or of train/ and test/ folders of them.

    Every column but `label` is a channel of numbers; a window lies within one file and one label. x is
    [N, 1, rows, columns]. Where the test split is drawn from the same files windows must not overlap: a row
    would be in two splits. Raises ArtifactError or ConfigError.
    """
    split = path.is_dir() and (path / "train").is_dir() and (path / "test").is_dir()
    if not split and step < rows:
        raise ConfigError(
            f"data.step_rows is {step} and data.window_rows {rows}: overlapping windows of one recording "
            "would fall into several splits; give train/ and test/ folders, or a step as long as the window"
        )
    columns: tuple[str, ...] = ()
    parts = []
    for folder in (path / "train", path / "test") if split else (path,):
        windows, labels = [], []
        for file in _csv_files(folder):
            names, values, words = _table(file, label)
            if columns and names != columns:
                raise ArtifactError(
                    f"{file} has the columns {', '.join(names)}; others have {', '.join(columns)}"
                )
            columns = names
            for start in _starts(words, rows, step):
                windows.append(values[start : start + rows])
                labels.append(words[start])
        if not windows:
            raise ArtifactError(
                f"{folder} holds no {rows} rows in a row with one {label!r}; take shorter windows"
            )
        parts.append((np.stack(windows)[:, None], np.array(labels), f" of {folder.name}"))
    return _joined(parts, None, str(path), channels_last=False)


def _starts(words: Sequence[str], rows: int, step: int) -> Iterator[int]:
    """First rows of windows that lie within a run of one label."""
    start = 0
    while start + rows <= len(words):
        other = next((i for i in range(start + 1, start + rows) if words[i] != words[start]), None)
        if other is None:
            yield start
            start += step
        else:
            start = other


def _csv_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    files = sorted(place.rglob("*.csv")) if place.is_dir() else []
    if not files:
        raise ArtifactError(f"{place} holds no .csv file; check data.path")
    return files


def _table(file: Path, label: str) -> tuple[tuple[str, ...], npt.NDArray[np.float32], list[str]]:
    """(names of the number columns, values [rows, columns], label of each row)."""
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            lines = list(csv.reader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{file} is not a readable CSV file ({_first_line(error)})") from None
    head = [name.strip() for name in lines[0]] if lines else []
    if label not in head:
        raise ArtifactError(f"{file} has no column {label!r} (it has {', '.join(head) or 'nothing'})")
    at = head.index(label)
    values, words = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        try:
            row = [float(cell) for i, cell in enumerate(line) if i != at]
        except ValueError as error:
            raise ArtifactError(f"{file}, line {number}: {_first_line(error)}; give numbers") from None
        if len(line) != len(head):
            raise ArtifactError(f"{file}, line {number} has {len(line)} cells and the head {len(head)}")
        values.append(row)
        words.append(line[at].strip())
    names = tuple(name for i, name in enumerate(head) if i != at)
    return names, np.array(values, np.float32).reshape(len(values), len(names)), words


def _joined(
    parts: Sequence[tuple[Array, Array, str]], classes: Array | None, where: str, channels_last: bool
) -> Arrays:
    """One Arrays of a training part and, where there is one, a test part behind it."""
    for x, y, name in parts:
        if y.ndim != 1 or len(x) != len(y) or len(y) == 0:
            raise ArtifactError(
                f"{where}: x{name} has shape {x.shape} and y{name} {y.shape}; they must be [N, ...] and [N]"
            )
    kinds = {y.dtype.kind for _, y, _ in parts}
    if len({x.shape[1:] for x, _, _ in parts}) > 1 or not (kinds <= set("iu") or kinds <= set("US")):
        raise ArtifactError(f"{where}: test samples differ from the others in shape or kind of label")
    if len(parts) == 2:
        _disjoint(parts[0][0], parts[1][0], where)
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    numbers, names = _classes(y, classes, where)
    test = len(parts[1][1]) if len(parts) == 2 else 0
    return Arrays(_samples(x, where, channels_last), numbers, names, test)


def _classes(y: Array, given: Array | None, where: str) -> tuple[Labels, tuple[str, ...]]:
    if y.dtype.kind in "US":
        words = np.unique(y)
        numbers, names = np.searchsorted(words, y).astype(np.int64), tuple(str(word) for word in words)
    else:
        numbers = y.astype(np.int64)
        if numbers.min() < 0:
            raise ArtifactError(f"{where}: y holds {numbers.min()}; class numbers start at 0")
        count = int(numbers.max()) + 1
        names = tuple(str(name) for name in given) if given is not None else tuple(map(str, range(count)))
        if len(names) < count:
            raise ArtifactError(f"{where}: y holds class {count - 1} and there are {len(names)} class names")
    if len(np.unique(numbers)) < 2:
        raise ArtifactError(f"{where}: every sample is of one class; there is nothing to learn")
    return numbers, names


def _samples(x: Array, where: str, channels_last: bool) -> Array:
    """x as [N, C, H, W]: uint8 as it is, int8 / 64, everything else float32."""
    if x.dtype.kind not in "fiu" or not 2 <= x.ndim <= 4:
        raise ArtifactError(
            f"{where}: x is {x.dtype} of shape {x.shape}; give numbers, [N, F] to [N, C, H, W]"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int((~np.isfinite(x.reshape(len(x), -1))).any(axis=1).argmax())
        raise ArtifactError(f"{where}: x holds NaN or infinity (first in sample {bad}); remove or mend it")
    if x.ndim == 4 and channels_last:
        x = np.moveaxis(x, -1, 1)
    x = x.reshape(len(x), *[1] * (4 - x.ndim), *x.shape[1:])
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    return np.ascontiguousarray(x, np.float32) / np.float32(64 if x.dtype == np.int8 else 1)


def _disjoint(train: Array, test: Array, where: str) -> None:
    """Raise ArtifactError where a test sample is a training sample, too."""
    known = {hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() for row in train}
    for number, row in enumerate(test):
        if hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest() in known:
            raise ArtifactError(
                f"{where}: test sample {number} is a training sample, too; a split must not know another"
            )


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """`folder` first on the import path inside; the path as it was afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
