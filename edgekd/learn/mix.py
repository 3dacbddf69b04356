"""A mix: several knowledge directories that a student learns from at once, each with a weight.

A directory with `mix.json` beside the parts' own directories. Nothing is mixed on disk: at each step the
rows of every part are read and their weighted sum is what the student is taught.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data import Dataset
from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.evaluate.metrics import correct
from edgekd.learn.knowledge import FILE, IDS, Floats, Knowledge, read_header, read_knowledge
from edgekd.learn.shards import files_of, places
from edgekd.recipe import SHARES_TOLERANCE, MixPart

MIX, SCHEMA = "mix.json", 1
_MEND = "make the knowledge again"


def open_knowledge(directory: Path, data: Dataset) -> Knowledge:
    """The knowledge in `directory`: one teacher's, an ensemble's, or a mix of several directories.

    Raises what `read_knowledge` and `read_mix` raise.
    """
    return (
        read_mix(directory, data) if (directory / MIX).is_file() else read_knowledge(directory / FILE, data)
    )


def mixed(parts: Sequence[tuple[Knowledge, float]]) -> Knowledge:
    """Several teachers' knowledge of the same views as one: z = sum of w_k z_k, sample by sample, class by
    class, in float64 and rounded once to float32.

    parts: knowledge and weight; the weights are above 0 and sum to 1. A single part is given back as it is.
    Raises ConfigError for weights that are no shares, VerifyError where parts are not of the same data,
    split, classes and views, or one is there twice.
    """
    shares = [weight for _, weight in parts]
    if not shares or not all(w > 0 for w in shares) or abs(sum(shares) - 1) > SHARES_TOLERANCE:
        said = ", ".join(f"{share:g}" for share in shares) or "none"
        raise ConfigError(f"the weights of a mix are {said}; take shares above 0 that sum to 1")
    first = parts[0][0]
    for number, (part, _) in enumerate(parts[1:], 2):
        _refuse_unlike(first, part, number)
    if len({part.sha256 for part, _ in parts}) != len(parts):
        raise VerifyError("a mix has the same knowledge twice; name it once, with the sum of the weights")
    if len(parts) == 1:
        return first
    teachers: dict[str, float] = {}
    for part, weight in parts:
        for digest, share in part.teachers.items():
            teachers[digest] = teachers.get(digest, 0.0) + weight * share

    def read(view: int, rows: npt.NDArray[np.int64]) -> Floats:
        total = sum(weight * part.read(view, rows).astype(np.float64) for part, weight in parts)
        return np.asarray(total, np.float32)

    named = json.dumps(sorted((part.sha256, weight) for part, weight in parts))
    sha256 = hashlib.sha256(named.encode()).hexdigest()
    return dataclasses.replace(first, teachers=teachers, sha256=sha256, read=read)


def _refuse_unlike(first: Knowledge, part: Knowledge, number: int) -> None:
    rows: tuple[tuple[str, Any, Any], ...] = (
        ("data set", part.dataset_sha256, first.dataset_sha256),
        ("split", part.split, first.split),
        ("class order", part.classes, first.classes),
        ("augmentation", part.augment, first.augment),
        ("seed of the views", part.seed, first.seed),
        ("number of views", part.views, first.views),
        ("number of classes kept", part.kept, first.kept),
    )
    for what, found, needed in rows:
        if found != needed:
            raise VerifyError(
                f"knowledge {number} of the mix has another {what} than the first ({found}, not {needed}); "
                "make both from one data set with the same [knowledge] and seed"
            )


def write_mix(sources: Sequence[MixPart], data: Dataset, out: Path) -> dict[str, Any]:
    """Stage: copy the directories that [[mix]] names into `out`, checked against `data` and each other.

    Returns parts, views, bytes, and the share of the plain training samples that the mix has right. Raises
    what `read_knowledge` and `mixed` raise.
    """
    rows = []
    for number, source in enumerate(sources, 1):
        name = f"part-{number:02d}"
        if not read_knowledge(Path(source.knowledge) / FILE, data).teachers:
            raise VerifyError(f"{source.knowledge} holds no predictions; leave it out of [[mix]]")
        _copy(Path(source.knowledge), out / name)
        rows.append({"directory": name, "weight": source.weight})
    (out / MIX).write_text(json.dumps({"schema": SCHEMA, "parts": rows}, indent=1, sort_keys=True) + "\n")
    knowledge = read_mix(out, data)
    every = np.arange(len(knowledge.ids), dtype=np.int64)
    return {
        "parts": len(rows),
        "views": knowledge.views,
        "file_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "accuracy_train_plain": correct(data.y[knowledge.ids], knowledge.read(0, every)) / len(every),
        "sha256": knowledge.sha256,
    }


def _copy(source: Path, target: Path) -> None:
    """The files that knowledge consists of; nothing else that lies there."""
    header = read_header(source / FILE)
    counts = (int(header[key]) for key in ("views", "samples", "shard_samples"))
    shards = [name for place in places(*counts) for name in files_of(place, int(header["kept"]))]
    target.mkdir()
    for name in (FILE, IDS, *shards):
        shutil.copyfile(source / name, target / name)


def read_mix(directory: Path, data: Dataset) -> Knowledge:
    """Open and check the mix in `directory`. Raises ArtifactError, VerifyError or ConfigError."""
    path = directory / MIX
    try:
        header = json.loads(path.read_text("utf-8"))
        schema = header["schema"]
        rows = [(str(row["directory"]), float(row["weight"])) for row in header["parts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a readable mix ({error}); {_MEND}") from None
    if schema != SCHEMA:
        raise ArtifactError(f"{path} has schema {schema} and this version reads {SCHEMA}; {_MEND}")
    if any(Path(name).name != name or name in (".", "..") for name, _ in rows):
        raise ArtifactError(f"{path} names a directory outside its own; {_MEND}")
    return mixed([(read_knowledge(directory / name / FILE, data), weight) for name, weight in rows])
