"""The data set type, the stage that writes one, and the reader that checks it.

Directory: `dataset.npz` (x, y, one id array a split) and `dataset.json` (name, classes, checksum).
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
from edgekd.data.splits import SPLITS, Ids, make_splits
from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError
from edgekd.recipe import Recipe

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SCHEMA = 1
DIGITS_TEST_SAMPLES = 360


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and the splits they belong to.

    x: float32 [N, C, H, W] in the range that the model is fed with; y: int64 [N].
    splits: sorted, disjoint ids for "train", "calibration", "validation" and "test".
    sha256: of x, y, the classes and the splits; artifacts made from this data carry it.
    """

    name: str
    x: Floats
    y: Labels
    classes: tuple[str, ...]
    splits: dict[str, Ids]
    sha256: str

    def part(self, split: str) -> tuple[Floats, Labels]:
        """(x, y) of one split, in the order of its ids."""
        ids = self.splits[split]
        return self.x[ids], self.y[ids]


def prepare(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Stage: load the recipe's data set, split it, write it into `out`. Returns counts and the checksum."""
    params = recipe.data
    x, y, classes, test = SOURCES[params.name]()
    splits = make_splits(
        y,
        test=test,
        calibration=params.calibration_samples,
        validation=params.validation_samples,
        seed=recipe.seed,
    )
    checksum = _checksum(x, y, classes, splits)
    write_npz(out / "dataset.npz", {"x": x, "y": y, **splits})
    header = {"schema": SCHEMA, "name": params.name, "classes": list(classes), "sha256": checksum}
    (out / "dataset.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", "utf-8")
    counts: dict[str, Any] = {f"{name}_samples": len(ids) for name, ids in splits.items()}
    return counts | {"sha256": checksum}


def load_dataset(directory: Path) -> Dataset:
    """Read what `prepare` wrote. Raises ArtifactError when it is absent, broken or changed."""
    try:
        header = json.loads((directory / "dataset.json").read_text("utf-8"))
        arrays = read_npz(directory / "dataset.npz")
        splits = {name: arrays[name].astype(np.int64) for name in SPLITS}
        x, y = arrays["x"].astype(np.float32), arrays["y"].astype(np.int64)
        data = Dataset(header["name"], x, y, tuple(header["classes"]), splits, header["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} holds no readable data set ({error}); prepare it again") from None
    if _checksum(x, y, data.classes, splits) != data.sha256:
        raise ArtifactError(f"{directory}/dataset.npz does not match its checksum; prepare it again")
    return data


def _checksum(x: Floats, y: Labels, classes: tuple[str, ...], splits: dict[str, Ids]) -> str:
    digest = hashlib.sha256(json.dumps([SCHEMA, x.shape, classes]).encode())
    for array in (x.astype("<f4"), y.astype("<i8"), *(splits[name].astype("<i8") for name in SPLITS)):
        digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


def _digits() -> tuple[Floats, Labels, tuple[str, ...], int]:
    """1,797 handwritten digits, float32 [N, 1, 8, 8] in 0 .. 1, and the size of the fixed test split."""
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
    return x, np.asarray(raw.target, np.int64), tuple(str(c) for c in range(10)), DIGITS_TEST_SAMPLES


# Data sets by name: each gives x, y, class names and the size of its fixed test split.
SOURCES = {"digits": _digits}
