"""Knowledge: a teacher's predictions over the training split, in a directory that needs no teacher.

`knowledge.json` says which teacher, data set, split, classes and augmentation they belong to; shards of
float16 logits lie beside it and are memory-mapped. Views are not stored as pixels: the seed is, and the
student replays them. The format is docs/formats/knowledge.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data import Dataset
from edgekd.data.augment import NAMES, view_of, views_checksum
from edgekd.errors import ArtifactError, VerifyError
from edgekd.learn.shards import Shards, open_shards, sha256_of
from edgekd.recipe import AugmentParams

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

SCHEMA = 2
FILE = "knowledge.json"
IDS = "ids.npy"
_MEND = "make the knowledge again"


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What teachers said of one split.

    ids: int64 [samples], rows of the data set. views, seed, augment: what was predicted.
    teachers: digest -> share of the mean that the logits are; empty: nobody was asked.
    kept: classes stored a sample (0: all). sha256: of the content.
    read(view, rows): temperature-free logits float32 [len(rows), classes] of rows of `ids`, of vectors what
    the teacher gives again [len(rows), numbers]; [len(rows), 0] where nobody was asked.
    """

    ids: Ids
    split: str
    classes: tuple[str, ...]
    views: int
    seed: int
    augment: AugmentParams
    teachers: dict[str, float]
    dataset_sha256: str
    kept: int
    sha256: str
    read: Callable[[int, npt.NDArray[np.int64]], Floats]

    def view(self, x: Array, ids: Ids, index: int, population: int) -> Floats:
        """The pixels of view `index` of the samples `ids`, stored as `x`: float32 [N, ...].

        population: the data set's number of samples.
        """
        return view_of(x, ids, self.augment, seed=self.seed, view=index, population=population)


def header_of(
    data: Dataset,
    *,
    split: str,
    teachers: dict[str, float],
    seed: int,
    augment: AugmentParams,
    views: int,
    kept: int,
    shard_samples: int,
) -> dict[str, Any]:
    """The header of knowledge of `data`, all but its shards."""
    ids = data.splits[split]
    return {
        "schema": SCHEMA,
        "split": split,
        "classes": list(data.classes),
        "teachers": teachers,
        "dataset_sha256": data.sha256,
        "labels_sha256": _labels_sha256(data, ids),
        "seed": seed,
        "augment": {"name": NAMES[augment.kind], **asdict(augment)},
        "views": views,
        "samples": len(ids),
        "kept": kept,
        "shard_samples": shard_samples,
        "views_sha256": _views_sha256(data, ids, augment, seed, views),
    } | ({"outputs": data.outputs} if data.reconstructed else {})


def write_header(header: dict[str, Any], shards: list[dict[str, Any]], directory: Path) -> str:
    """Write `knowledge.json` and return the content's sha256."""
    whole = header | {"shards": shards, "ids_sha256": sha256_of(directory / IDS)}
    digest = _content_sha256(whole)
    text = json.dumps(whole | {"content_sha256": digest}, indent=1, sort_keys=True) + "\n"
    (directory / FILE).write_text(text, "utf-8")
    return digest


def read_header(path: Path) -> dict[str, Any]:
    """The header in `path`, of this schema and unchanged; else ArtifactError."""
    try:
        header: dict[str, Any] = json.loads(path.read_text("utf-8"))
        stated, schema = header["content_sha256"], header["schema"]
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; {_MEND}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a whole knowledge header ({error}); {_MEND}") from None
    if schema != SCHEMA:
        raise ArtifactError(f"{path} has schema {schema} and this version reads {SCHEMA}; {_MEND}")
    if stated != _content_sha256({k: v for k, v in header.items() if k != "content_sha256"}):
        raise ArtifactError(f"{path} does not match its checksum: it was changed or damaged; {_MEND}")
    return header


def read_knowledge(path: Path, data: Dataset, *, split: str = "train", teacher_sha256: str = "") -> Knowledge:
    """Open and check the knowledge whose header is `path` (and its teacher's digest, where one is given).

    Raises ArtifactError when a file is absent, truncated or changed, VerifyError when all is whole but of
    another split, data set, class order, augmentation or teacher.
    """
    header = read_header(path)
    try:
        augment = dict(header["augment"])
        name = augment.pop("name")
        kept, samples, views = int(header["kept"]), int(header["samples"]), int(header["views"])
        teachers = {str(k): float(v) for k, v in header["teachers"].items()}
        params, seed = AugmentParams(**augment), int(header["seed"])
        stated = header["labels_sha256"], header["views_sha256"], header["dataset_sha256"]
        classes = tuple(header["classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: the header lacks or mistypes {error}; {_MEND}") from None
    if name != NAMES.get(params.kind):
        raise VerifyError(
            f"{path} has views by augmentation {name!r}, which this version does not replay; {_MEND}"
        )
    rows = (
        ("data set", stated[2], data.sha256),
        ("split", header["split"], split),
        ("class order", ", ".join(classes), ", ".join(data.classes)),
        ("teacher", "+".join(teachers), teacher_sha256 or "+".join(teachers)),
    )
    for what, found, needed in rows:
        if found != needed:
            raise VerifyError(f"{path} is of another {what} ({found[:40]}, not {needed[:40]}); {_MEND}")
    shards = open_shards(path.parent, header) if teachers else None
    ids = _ids(path.parent, header, data, split, samples)
    if _labels_sha256(data, ids) != stated[0]:
        raise VerifyError(f"{path} was made with other labels than the data set's; {_MEND}")
    if _views_sha256(data, ids, params, seed, views) != stated[1]:
        raise VerifyError(f"{path}: replaying its views gives other pixels than the teacher saw; {_MEND}")
    return Knowledge(
        ids,
        split,
        classes,
        views,
        seed,
        params,
        teachers,
        data.sha256,
        kept,
        header["content_sha256"],
        _reader(shards, data.outputs, kept),
    )


def _reader(shards: Shards | None, classes: int, kept: int) -> Callable[[int, npt.NDArray[np.int64]], Floats]:
    def read(view: int, rows: npt.NDArray[np.int64]) -> Floats:
        if shards is None:
            return np.empty((len(rows), 0), np.float32)
        values, index = shards.rows(view, rows)
        return values if index is None else expanded(values, index, classes)

    return read


def expanded(values: Floats, index: npt.NDArray[np.int64], classes: int) -> Floats:
    """Log-probabilities [N, classes] of the stored ones.

    values: float32 [N, kept + 1], of the classes `index` [N, kept] and, last, of all others together, which
    share it equally.
    """
    kept = index.shape[1]
    others = values[:, -1:] - np.float32(np.log(classes - kept))
    whole = np.repeat(others, classes, axis=1)
    np.put_along_axis(whole, index, values[:, :-1], axis=1)
    return whole


def _ids(directory: Path, header: dict[str, Any], data: Dataset, split: str, samples: int) -> Ids:
    if sha256_of(directory / IDS) != header.get("ids_sha256"):
        raise ArtifactError(f"{directory / IDS} does not match its checksum; {_MEND}")
    try:
        ids = np.load(directory / IDS, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{directory / IDS} is not readable ({error}); {_MEND}") from None
    if len(ids) != samples or not np.array_equal(ids, data.splits[split]):
        raise VerifyError(f"{directory}: its sample ids are not those of the split {split!r}; {_MEND}")
    return data.splits[split]


def _content_sha256(header: dict[str, Any]) -> str:
    """sha256 of the header as canonical JSON; it holds every shard's own."""
    return hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _labels_sha256(data: Dataset, ids: Ids) -> str:
    return hashlib.sha256(data.y[ids].astype("<i8").tobytes()).hexdigest()


def _views_sha256(data: Dataset, ids: Ids, augment: AugmentParams, seed: int, views: int) -> str:
    few = ids[:64]
    return views_checksum(data.x[few], few, augment, seed=seed, views=views)
