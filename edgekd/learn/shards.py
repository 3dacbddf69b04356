"""The shards of a knowledge directory: float16 arrays of one view and a run of samples each, memory-mapped.

`v0003-s0001.npy`: view 3, the second run of `shard_samples` samples, float16 [samples, classes], or
[samples, kept + 1] with `v0003-s0001.index.npy` beside it where only the top classes are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

SHARD_SAMPLES = 65_536
ALL_CLASSES = 100  # up to so many classes all logits are kept
_FLOOR = -60.0  # the least log-probability of the classes not kept
_MEND = "make the knowledge again"


@dataclass(frozen=True)
class Place:
    """One shard: view, number within the view, and its samples (a slice of the split's rows)."""

    view: int
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"v{self.view:04d}-s{self.number:04d}"


def places(views: int, samples: int, shard_samples: int) -> Iterator[Place]:
    """Every shard, views outermost."""
    for view in range(views):
        for number, start in enumerate(range(0, samples, shard_samples)):
            yield Place(view, number, start, min(start + shard_samples, samples))


def index_dtype(classes: int) -> str:
    return "<u2" if classes <= 65_536 else "<u4"


def files_of(place: Place, kept: int) -> list[str]:
    """The names of a shard's files."""
    return [f"{place.name}.npy", f"{place.name}.index.npy"] if kept else [f"{place.name}.npy"]


def write_shard(directory: Path, place: Place, logits: Floats, kept: int) -> None:
    """Write one shard whole or not at all. logits: float32 [samples, classes], finite."""
    if not kept:
        _save(directory / f"{place.name}.npy", logits.astype("<f2"))
        return
    values, index = truncated(logits, kept)
    # The values last: a shard is there when they are.
    _save(directory / f"{place.name}.index.npy", index.astype(index_dtype(logits.shape[1])))
    _save(directory / f"{place.name}.npy", values.astype("<f2"))


def truncated(logits: Floats, kept: int) -> tuple[Floats, Rows]:
    """(values [N, kept + 1], index [N, kept]): the top log-probabilities, then all others' sum."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    order = np.argsort(-logs, axis=1, kind="stable")
    index, rest = order[:, :kept], order[:, kept:]
    others = np.take_along_axis(np.exp(logs), rest, axis=1).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        last = np.maximum(np.log(others), _FLOOR)
    values = np.concatenate([np.maximum(np.take_along_axis(logs, index, axis=1), _FLOOR), last], axis=1)
    return values.astype(np.float32), index.astype(np.int64)


def _save(path: Path, array: Array) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def described(directory: Path, place: Place, kept: int) -> list[dict[str, Any]]:
    """The header's rows of one shard."""
    return [
        {
            "file": name,
            "view": place.view,
            "start": place.start,
            "samples": place.stop - place.start,
            "bytes": (directory / name).stat().st_size,
            "sha256": sha256_of(directory / name),
        }
        for name in files_of(place, kept)
    ]


class Shards:
    """All shards of a directory; `rows` gathers from the maps what is asked for."""

    def __init__(self, values: list[list[Array]], index: list[list[Array]], shard_samples: int) -> None:
        self._values, self._index, self._size = values, index, shard_samples

    def rows(self, view: int, rows: Rows) -> tuple[Floats, Rows | None]:
        """(values float32 [len(rows), width], index int64 [len(rows), kept] or None where all are kept)."""
        values = self._gathered(self._values[view], rows).astype(np.float32)
        return values, self._gathered(self._index[view], rows).astype(np.int64) if self._index else None

    def _gathered(self, shards: list[Array], rows: Rows) -> Array:
        if len(shards) == 1:
            return np.asarray(shards[0][rows])
        found = np.empty((len(rows), *shards[0].shape[1:]), shards[0].dtype)
        number = rows // self._size
        for wanted in np.unique(number):
            chosen = number == wanted
            found[chosen] = shards[wanted][rows[chosen] - wanted * self._size]
        return found


def open_shards(directory: Path, header: Mapping[str, Any]) -> Shards:
    """Map and check every shard. Raises ArtifactError naming one that is missing, changed or not finite."""
    try:
        size, kept = int(header["shard_samples"]), int(header["kept"])
        classes = int(header.get("outputs", len(header["classes"])))
        wanted = list(places(int(header["views"]), int(header["samples"]), size))
        stated = {row["file"]: row["sha256"] for row in header["shards"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{directory}: the header lacks or mistypes {error}; {_MEND}") from None
    values: list[list[Array]] = [[] for _ in range(int(header["views"]))]
    index: list[list[Array]] = [[] for _ in values]
    width = kept + 1 if kept else classes
    for place in wanted:
        name, *others = files_of(place, kept)
        shape = (place.stop - place.start, width)
        values[place.view].append(_mapped(directory / name, stated.get(name), shape, ("<f2",)))
        if not np.isfinite(values[place.view][-1]).all():
            raise ArtifactError(f"{directory / name}: a logit is NaN or infinite; {_MEND}")
        for other in others:
            dtypes = (index_dtype(classes),)
            index[place.view].append(_mapped(directory / other, stated.get(other), (shape[0], kept), dtypes))
            if len(index[place.view][-1]) and index[place.view][-1].max() >= classes:
                raise ArtifactError(f"{directory / other} names a class that is not there; {_MEND}")
    return Shards(values, index if kept else [], size)


def _mapped(path: Path, stated: str | None, shape: tuple[int, int], dtypes: tuple[str, ...]) -> Array:
    if sha256_of(path) != stated:
        raise ArtifactError(f"{path} does not match its checksum: it was changed or damaged; {_MEND}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is not a shard ({error}); {_MEND}") from None
    if array.shape != shape or array.dtype.str not in dtypes:
        raise ArtifactError(
            f"{path} holds {array.dtype} of shape {array.shape}, not {dtypes[0]} of {shape}; {_MEND}"
        )
    return np.asarray(array)


def sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; {_MEND}") from None
