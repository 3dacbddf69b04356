"""The data set type, the stage that writes one, and the reader that checks it.

Directory: `x.npy` (samples as they are stored, memory-mapped when read), `dataset.npz` (y, one id
array a split), `dataset.json` (name, classes, checksum) and, where images could not be read,
`unreadable.txt`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.npz import read_npz, write_npz
from edgekd.data.pixels import as_floats
from edgekd.data.sources import read_source
from edgekd.data.splits import SPLITS, Ids, make_splits
from edgekd.errors import ArtifactError
from edgekd.progress import Progress, silent
from edgekd.recipe import Recipe

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SCHEMA = 2


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and the splits they belong to.

    x: [N, ...] as stored, uint8 or float32, a read-only map of the file; y: int64 [N].
    splits: sorted, disjoint ids for "train", "calibration", "validation" and "test".
    sha256: of x, y, the classes and the splits; artifacts made from this data carry it.
    """

    name: str
    x: Array
    y: Labels
    classes: tuple[str, ...]
    splits: dict[str, Ids]
    sha256: str

    @property
    def reconstructed(self) -> bool:
        """Whether samples are vectors, which models give again; else models tell classes apart."""
        return self.x.ndim == 2

    @property
    def outputs(self) -> int:
        """How many numbers a model says of a sample."""
        return int(self.x.shape[1]) if self.reconstructed else len(self.classes)

    def check_normal(self) -> None:
        """Raise ArtifactError unless a model that learns what is normal can be trained here and judged.

        Label 0 is normal, 1 is not: the training splits hold 0 alone, the test split both.
        """
        for split in ("train", "calibration", "validation"):
            others = int((self.y[self.splits[split]] != 0).sum())
            if others:
                raise ArtifactError(
                    f"the {split} split holds {others} samples that are not of class 0 ({self.classes[0]}); "
                    "an autoencoder learns what is normal: give y as 0 and 1, and the 1 in y_test alone"
                )
        found = set(self.y[self.splits["test"]].tolist())
        if found != {0, 1}:
            named = ", ".join(self.classes[label] for label in sorted(found))
            raise ArtifactError(
                f"the test split holds only {named}; AUC needs normal (0) and abnormal (1) samples in y_test"
                if len(found) == 1
                else f"the test split holds the classes {named}; AUC needs two: give y_test as 0 and 1"
            )

    def part(self, split: str) -> tuple[Floats, Labels]:
        """(x, y) of one split, in the order of its ids; x as the model is fed with it (float32)."""
        ids = self.splits[split]
        return as_floats(self.x[ids]), self.y[ids]


def prepare(recipe: Recipe, out: Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Stage: read the recipe's samples, split them, write them into `out`. Returns counts, checksum."""
    params = recipe.data
    source = read_source(params, progress)
    splits = make_splits(
        source.y,
        test=source.test,
        calibration=params.calibration_samples,
        validation=params.validation_samples,
        seed=recipe.seed,
    )
    checksum = _checksum(source.x, source.y, source.classes, splits)
    np.save(out / "x.npy", source.x, allow_pickle=False)
    write_npz(out / "dataset.npz", {"y": source.y, **splits})
    header = {"schema": SCHEMA, "name": params.name, "classes": list(source.classes), "sha256": checksum}
    (out / "dataset.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", "utf-8")
    if source.unreadable:
        (out / "unreadable.txt").write_text("".join(f"{n}\n" for n in source.unreadable), "utf-8")
    counts: dict[str, Any] = {f"{name}_samples": len(ids) for name, ids in splits.items()}
    return counts | {"unreadable": len(source.unreadable), "sha256": checksum}


def load_dataset(directory: Path) -> Dataset:
    """Read what `prepare` wrote. Raises ArtifactError when it is absent, broken or changed."""
    try:
        header = json.loads((directory / "dataset.json").read_text("utf-8"))
        arrays = read_npz(directory / "dataset.npz")
        splits = {name: arrays[name].astype(np.int64) for name in SPLITS}
        x, y = np.load(directory / "x.npy", mmap_mode="r", allow_pickle=False), arrays["y"].astype(np.int64)
        data = Dataset(header["name"], x, y, tuple(header["classes"]), splits, header["sha256"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ArtifactError(f"{directory} holds no readable data set ({error}); prepare it again") from None
    if _checksum(x, y, data.classes, splits) != data.sha256:
        raise ArtifactError(f"{directory} does not match its checksum; prepare it again")
    return data


def _checksum(x: Array, y: Labels, classes: tuple[str, ...], splits: dict[str, Ids]) -> str:
    digest = hashlib.sha256(json.dumps([SCHEMA, x.dtype.str, x.shape, classes]).encode())
    digest.update(np.ascontiguousarray(x).data)
    for array in (y.astype("<i8"), *(splits[name].astype("<i8") for name in SPLITS)):
        digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b"|")
    return digest.hexdigest()
