"""Knowledge: a teacher's predictions over the training split, stored in one file that needs no teacher.

`knowledge.safetensors` holds float16 logits of every view and the sample ids; its header says which
teacher, data set, split, classes and augmentation they belong to. Views are not stored as pixels:
the seed is, and the student replays them. The format is docs/formats/knowledge.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edgekd.data import Dataset
from edgekd.data.augment import NAME, view_of, views_checksum
from edgekd.errors import ArtifactError, VerifyError
from edgekd.recipe import AugmentParams

SCHEMA = 1
FILE = "knowledge.safetensors"
_MEND = "make the knowledge again"


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a teacher said of one split.

    logits: float16 [views, samples, classes], temperature-free; ids: int64 [samples], rows of the data set.
    split, classes, seed, augment: what the views are of. sha256: of the content, as the header states it.
    """

    logits: npt.NDArray[np.float16]
    ids: npt.NDArray[np.int64]
    split: str
    classes: tuple[str, ...]
    seed: int
    augment: AugmentParams
    teacher_sha256: str
    dataset_sha256: str
    sha256: str

    @property
    def views(self) -> int:
        return int(self.logits.shape[0])

    def view(self, data: Dataset, index: int) -> npt.NDArray[np.float32]:
        """The pixels that `logits[index]` were predicted from, float32 [samples, C, H, W]."""
        return view_of(data.x[self.ids], self.ids, self.augment, seed=self.seed, view=index)


def save_knowledge(knowledge: Knowledge, data: Dataset, path: Path) -> str:
    """Write the file and return its content's sha256 (`knowledge.sha256` is ignored)."""
    arrays: dict[str, npt.NDArray[Any]] = {"ids": knowledge.ids, "logits": knowledge.logits}
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "split": knowledge.split,
        "classes": list(knowledge.classes),
        "teacher_sha256": knowledge.teacher_sha256,
        "dataset_sha256": knowledge.dataset_sha256,
        "labels_sha256": _labels_sha256(data, knowledge.ids),
        "seed": knowledge.seed,
        "augment": {"name": NAME, **asdict(knowledge.augment)},
        "views": knowledge.views,
        "views_sha256": _views_sha256(knowledge, data),
    }
    digest = _content_sha256(header, arrays["ids"], arrays["logits"])
    # One metadata key: safetensors keeps them in a hash map, whose order is not fixed.
    path.write_bytes(save(arrays, {"edgekd": _canonical(header | {"content_sha256": digest})}))
    return digest


def read_knowledge(path: Path, data: Dataset, *, split: str = "train", teacher_sha256: str = "") -> Knowledge:
    """Read and check `path` against the data set (and the teacher's digest, where one is given).

    Raises ArtifactError when the file is absent, truncated or changed, VerifyError when it is whole but
    of another split, data set, class order, augmentation or teacher.
    """
    header, ids, logits = _read(path)
    try:
        augment = dict(header["augment"])
        name = augment.pop("name")
        knowledge = Knowledge(
            logits,
            ids,
            header["split"],
            tuple(header["classes"]),
            header["seed"],
            AugmentParams(**augment),
            header["teacher_sha256"],
            header["dataset_sha256"],
            header["content_sha256"],
        )
        stated = header["labels_sha256"], header["views_sha256"], header["views"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: the header lacks or mistypes {error}; {_MEND}") from None
    if name != NAME:
        raise VerifyError(
            f"{path} has views by augmentation {name!r} and this version replays {NAME!r}; {_MEND}"
        )
    _check_origin(path, knowledge, data, split, teacher_sha256)
    _check_arrays(path, knowledge, data, split, stated[2])
    if _labels_sha256(data, ids) != stated[0]:
        raise VerifyError(f"{path} was made with other labels than the data set's; {_MEND}")
    if _views_sha256(knowledge, data) != stated[1]:
        raise VerifyError(f"{path}: replaying its views gives other pixels than the teacher saw; {_MEND}")
    return knowledge


def _check_origin(path: Path, knowledge: Knowledge, data: Dataset, split: str, teacher_sha256: str) -> None:
    """Each pair is what the file says and what it must be."""
    rows = (
        ("data set", knowledge.dataset_sha256, data.sha256),
        ("split", knowledge.split, split),
        ("class order", ", ".join(knowledge.classes), ", ".join(data.classes)),
        ("teacher", knowledge.teacher_sha256, teacher_sha256 or knowledge.teacher_sha256),
    )
    for what, stated, needed in rows:
        if stated != needed:
            raise VerifyError(f"{path} is of another {what} ({stated[:40]}, not {needed[:40]}); {_MEND}")


def _check_arrays(path: Path, knowledge: Knowledge, data: Dataset, split: str, views: int) -> None:
    if not np.array_equal(knowledge.ids, data.splits[split]):
        raise VerifyError(f"{path}: its sample ids are not those of the split {split!r}; {_MEND}")
    expected = (views, len(knowledge.ids), len(data.classes))
    if knowledge.logits.shape != expected or knowledge.logits.dtype != np.float16:
        raise ArtifactError(
            f"{path}: logits are {knowledge.logits.dtype} of shape {knowledge.logits.shape}, "
            f"not float16 of {expected}; {_MEND}"
        )
    if not np.isfinite(knowledge.logits).all():
        raise ArtifactError(
            f"{path}: a logit is NaN or infinite; train the teacher with a smaller learning_rate"
        )


def _read(path: Path) -> tuple[dict[str, Any], npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """Header and arrays, their digest checked."""
    try:
        if path.stat().st_size == 0:
            raise ArtifactError(f"{path} is empty; {_MEND}")
        with safe_open(str(path), framework="numpy") as file:
            header = json.loads((file.metadata() or {})["edgekd"])
            ids, logits = file.get_tensor("ids"), file.get_tensor("logits")
            names = sorted(file.keys())
        stated, schema = header.pop("content_sha256"), header["schema"]
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}; {_MEND}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        detail = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is not a whole knowledge file ({detail}); {_MEND}") from None
    if schema != SCHEMA:
        raise ArtifactError(f"{path} has schema {schema} and this version reads {SCHEMA}; {_MEND}")
    if names != ["ids", "logits"] or stated != _content_sha256(header, ids, logits):
        raise ArtifactError(f"{path} does not match its checksum: it was changed or damaged; {_MEND}")
    return header | {"content_sha256": stated}, ids, logits


def _canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"))


def _content_sha256(header: dict[str, Any], ids: npt.NDArray[Any], logits: npt.NDArray[Any]) -> str:
    """sha256 of the canonical header without `content_sha256`, then each array's dtype, shape and bytes."""
    digest = hashlib.sha256(_canonical(header).encode())
    for array in (ids, logits):
        digest.update(f"|{array.dtype.str}{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _labels_sha256(data: Dataset, ids: npt.NDArray[np.int64]) -> str:
    return hashlib.sha256(data.y[ids].astype("<i8").tobytes()).hexdigest()


def _views_sha256(knowledge: Knowledge, data: Dataset) -> str:
    ids = knowledge.ids
    return views_checksum(data.x[ids], ids, knowledge.augment, seed=knowledge.seed, views=knowledge.views)
