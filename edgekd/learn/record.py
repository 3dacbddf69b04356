"""Making knowledge from a teacher, and holding a knowledge file to its teacher; students need neither."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data import Dataset, load_dataset
from edgekd.data.augment import view_of
from edgekd.data.randomness import permutation
from edgekd.errors import ArtifactError, VerifyError
from edgekd.evaluate.metrics import correct
from edgekd.evaluate.roc import anomaly_scores
from edgekd.learn.ensemble import load_teachers
from edgekd.learn.knowledge import FILE, IDS, Knowledge, header_of, read_header, read_knowledge, write_header
from edgekd.learn.replay import Replay
from edgekd.learn.shards import (
    ALL_CLASSES,
    SHARD_SAMPLES,
    Place,
    described,
    files_of,
    places,
    sha256_of,
    write_shard,
)
from edgekd.learn.teacher import NONE, Teacher, load_teacher, placed_scores
from edgekd.learn.torch_tools import PLAIN, Machine, deterministic, machine_of, predict_rows
from edgekd.learn.training import Watch
from edgekd.progress import Progress
from edgekd.recipe import AugmentParams, KnowledgeParams, Recipe

SPLIT = "train"

# A prediction in another batch may round differently; float16 has 11 significant bits, bfloat16 has 8.
_TOLERANCES = {"fp32": (2.0**-8, 0.02), "bf16": (2.0**-4, 0.25)}
_VERIFIED_SAMPLES = 64


def write_knowledge(
    dataset_dir: Path,
    teacher_dir: Path | Sequence[Path],
    recipe: Recipe,
    out: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
    reuse: Sequence[Path] = (),
) -> dict[str, Any]:
    """Stage: predict every view of the training split, write the knowledge directory `out`, verify it.

    teacher_dir: a teacher's, or one for each of the recipe's [[teachers]], in order: then the weighted mean
    of their logits is stored. reuse: knowledge directories of which shards are taken where they are of the
    same teacher, data and views.
    A killed run leaves whole shards in `watch.work`, and continues behind them. Returns views, bytes, bytes a
    view of a sample, the teacher's accuracy (of vectors: its error) on plain and augmented views; of several,
    their mean's on "validation" as well.
    """
    data, machine = load_dataset(dataset_dir), machine_of(recipe)
    if recipe.teacher.model == NONE:
        return _nobody_asked(data, recipe, out)
    teacher = load_teachers(teacher_dir, recipe, data)
    header = _header(data, dict(teacher.shares), recipe.knowledge, recipe.seed)
    work = watch.work or out
    with deterministic(recipe.threads):
        _predict_all(teacher, data, header, work, machine, reuse, watch.progress)
    np.save(out / IDS, data.splits[SPLIT], allow_pickle=False)
    shards = [row for place in _places(header) for row in _moved(work, out, place, header["kept"])]
    digest = write_header(header, shards, out)
    verify_against(out / FILE, teacher, data, seed=recipe.seed, machine=machine)
    knowledge = read_knowledge(out / FILE, data)
    size = sum(path.stat().st_size for path in out.iterdir())
    what = "error" if data.reconstructed else "accuracy"
    hits = [_score(knowledge, data, view) for view in range(knowledge.views)]
    several: dict[str, Any] = {} if len(teacher.shares) == 1 else {"teachers": len(teacher.shares)}
    if several:
        name = f"{what}_validation"
        with deterministic(recipe.threads):
            several[f"teachers_{name}"] = placed_scores(teacher.net, data, machine)[name]
    return several | {
        "views": knowledge.views,
        "file_bytes": size,
        "bytes_a_view_of_a_sample": round(size / (knowledge.views * len(knowledge.ids)), 2),
        f"teacher_{what}_train_plain": hits[0],
        f"teacher_{what}_train_views": float(np.mean(hits[1:] or hits)),
        "sha256": digest,
    }


def verify_knowledge(
    file: Path,
    teacher_dir: Path,
    dataset_dir: Path,
    *,
    seed: int = 0,
    machine: Machine = PLAIN,
    code: str = "",
) -> None:
    """Predict up to 64 samples of the first and last view again and compare with what `file` holds.

    Raises what `read_knowledge` raises, and VerifyError where the teacher says otherwise than the file.
    """
    verify_against(
        file, load_teacher(teacher_dir, code), load_dataset(dataset_dir), seed=seed, machine=machine
    )


def verify_against(file: Path, teacher: Teacher, data: Dataset, *, seed: int, machine: Machine) -> None:
    """`verify_knowledge` with a teacher, or several as one, and the data already there."""
    knowledge = read_knowledge(file, data, split=SPLIT, teacher_sha256=teacher.sha256)
    rows = np.sort(permutation(seed, "verify", count=len(knowledge.ids))[:_VERIFIED_SAMPLES])
    machine.place(teacher.net)
    for view in sorted({0, knowledge.views - 1}):
        ids = knowledge.ids[rows]
        pixels = knowledge.view(data.x[ids], ids, view, len(data.y))
        with deterministic(machine.threads):
            again = predict_rows(teacher.net, len(ids), lambda part, x=pixels: x[part], machine)  # type: ignore[misc]
        stored = knowledge.read(view, rows)
        if knowledge.kept:
            again = again - np.log(np.exp(again - again.max(1, keepdims=True)).sum(1, keepdims=True))
            again = again - again.max(1, keepdims=True) + stored.max(1, keepdims=True)
            top = np.argsort(-stored, axis=1, kind="stable")[:, : knowledge.kept]
            again, stored = (np.take_along_axis(each, top, axis=1) for each in (again, stored))
        relative, absolute = _TOLERANCES[machine.precision]
        wrong = ~np.isclose(again, stored, rtol=relative, atol=absolute).all(axis=1)
        if wrong.any():
            sample = int(ids[wrong.argmax()])
            raise VerifyError(
                f"{file}: view {view} of sample {sample} is not what the teacher predicts; "
                "make the knowledge again"
            )


def _header(data: Dataset, teachers: dict[str, float], params: KnowledgeParams, seed: int) -> dict[str, Any]:
    classes = len(data.classes)
    kept = 0 if classes <= ALL_CLASSES or data.reconstructed else min(params.top_classes, classes - 1)
    return header_of(
        data,
        split=SPLIT,
        teachers=teachers,
        seed=seed,
        augment=params.augment,
        views=params.views,
        kept=kept,
        shard_samples=SHARD_SAMPLES,
    )


def _places(header: dict[str, Any]) -> list[Place]:
    return list(places(header["views"], header["samples"], header["shard_samples"]))


def _predict_all(
    teacher: Teacher,
    data: Dataset,
    header: dict[str, Any],
    work: Path,
    machine: Machine,
    reuse: Sequence[Path],
    progress: Progress,
) -> None:
    """Every shard that is not there yet, from an older knowledge or by the teacher."""
    params, seed, population = _augment(header), header["seed"], len(data.y)
    replay = Replay(
        data,
        data.splits[SPLIT],
        lambda x, ids, view: view_of(x, ids, params, seed=seed, view=view, population=population),
        views=1 << 30,  # each is shown once: none is kept
    )
    machine.place(teacher.net)
    wanted = _places(header)
    for done, place in enumerate(wanted):
        there = (work / f"{place.name}.npy").is_file() or _taken(work, place, header, reuse)
        if not there:
            count, pixels = place.stop - place.start, replay.part(place.view, place.start)
            logits = predict_rows(teacher.net, count, pixels, machine)
            _refuse_nan(logits, data, place)
            write_shard(work, place, logits, header["kept"])
        progress("knowledge", done + 1, len(wanted))


def _augment(header: dict[str, Any]) -> AugmentParams:
    return AugmentParams(**{k: v for k, v in header["augment"].items() if k != "name"})


def _refuse_nan(logits: Any, data: Dataset, place: Place) -> None:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(logits.astype(np.float16)).all(axis=1)
    if bad.any():
        sample = int(data.splits[SPLIT][place.start + int(bad.argmax())])
        raise ArtifactError(
            f"the teacher's logits of view {place.view} of sample {sample} are NaN, infinite or beyond "
            "float16; train the teacher with a smaller learning_rate"
        )


def _taken(work: Path, place: Place, header: dict[str, Any], reuse: Sequence[Path]) -> bool:
    """Take the shard from older knowledge that differs in its number of views alone."""
    counted = ("views", "views_sha256", "shards", "ids_sha256", "content_sha256")
    for directory in reuse:
        try:
            old = read_header(directory / FILE)
        except ArtifactError:
            continue  # unreadable: then it is no source, and the teacher is asked
        stated = {row["file"]: row["sha256"] for row in old["shards"]}
        same = all(old.get(key) == value for key, value in header.items() if key not in counted)
        names = files_of(place, header["kept"])
        if same and all(name in stated and sha256_of(directory / name) == stated[name] for name in names):
            for name in reversed(names):
                shutil.copyfile(directory / name, work / f"{name}.tmp")
                os.replace(work / f"{name}.tmp", work / name)
            return True
    return False


def _moved(work: Path, out: Path, place: Place, kept: int) -> list[dict[str, Any]]:
    """Bring a shard's files from the work directory to `out`; their rows of the header."""
    for name in files_of(place, kept):
        if work != out:
            shutil.copyfile(work / name, out / name)
    return described(out, place, kept)


def _nobody_asked(data: Dataset, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write knowledge of views alone, for students that learn from labels."""
    np.save(out / IDS, data.splits[SPLIT], allow_pickle=False)
    digest = write_header(_header(data, {}, recipe.knowledge, recipe.seed), [], out)
    return {"views": recipe.knowledge.views, "file_bytes": 0, "sha256": digest}


def _score(knowledge: Knowledge, data: Dataset, view: int) -> float:
    """The teacher's accuracy on a view; of vectors its mean squared error."""
    rows = np.arange(len(knowledge.ids), dtype=np.int64)
    said = knowledge.read(view, rows)
    if data.reconstructed:
        pixels = knowledge.view(data.x[knowledge.ids], knowledge.ids, view, len(data.y))
        return float(np.mean(anomaly_scores(pixels, said)))
    return correct(data.y[knowledge.ids], said) / len(rows)
