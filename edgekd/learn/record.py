"""Making knowledge from a teacher, and holding a knowledge file to its teacher; students need neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data import Dataset, load_dataset
from edgekd.data.randomness import permutation
from edgekd.errors import VerifyError
from edgekd.evaluate.metrics import accuracy
from edgekd.learn.knowledge import FILE, Knowledge, read_knowledge, save_knowledge
from edgekd.learn.teacher import Teacher, load_teacher
from edgekd.learn.torch_tools import deterministic, predict
from edgekd.progress import Progress, silent
from edgekd.recipe import Recipe

SPLIT = "train"

# A prediction in another batch may round differently; float16 has 11 significant bits.
_RELATIVE, _ABSOLUTE = 2.0**-8, 0.02
_VERIFIED_SAMPLES = 64


def write_knowledge(
    dataset_dir: Path, teacher_dir: Path, recipe: Recipe, out: Path, *, progress: Progress = silent
) -> dict[str, Any]:
    """Stage: predict every view of the training split, write `knowledge.safetensors` into `out`, verify it.

    Returns views, bytes, bytes a sample and view, the teacher's accuracy on the plain and augmented views.
    """
    data, teacher, params = load_dataset(dataset_dir), load_teacher(teacher_dir), recipe.knowledge
    _check_teacher(teacher, data, teacher_dir)
    ids, labels = data.splits[SPLIT], data.part(SPLIT)[1]
    knowledge = Knowledge(
        np.zeros((params.views, len(ids), len(data.classes)), np.float16),
        ids,
        SPLIT,
        data.classes,
        recipe.seed,
        params.augment,
        teacher.sha256,
        data.sha256,
        "",
    )
    with deterministic(recipe.threads):
        for view in range(params.views):
            knowledge.logits[view] = predict(teacher.net, knowledge.view(data, view)).astype(np.float16)
            progress("knowledge", view + 1, params.views)
    digest = save_knowledge(knowledge, data, out / FILE)
    verify_knowledge(out / FILE, teacher_dir, dataset_dir, seed=recipe.seed, threads=recipe.threads)
    size = (out / FILE).stat().st_size
    hits = [accuracy(labels, view) for view in knowledge.logits]
    return {
        "views": params.views,
        "file_bytes": size,
        "bytes_a_view_of_a_sample": round(size / (params.views * len(ids)), 2),
        "teacher_accuracy_train_plain": hits[0],
        "teacher_accuracy_train_views": float(np.mean(hits[1:] or hits)),
        "sha256": digest,
    }


def verify_knowledge(
    file: Path, teacher_dir: Path, dataset_dir: Path, *, seed: int = 0, threads: int = 1
) -> None:
    """Predict up to 64 samples of the first and last view again and compare with what `file` holds.

    Raises what `read_knowledge` raises, and VerifyError where the teacher says otherwise than the file.
    """
    data, teacher = load_dataset(dataset_dir), load_teacher(teacher_dir)
    knowledge = read_knowledge(file, data, split=SPLIT, teacher_sha256=teacher.sha256)
    rows = np.sort(permutation(seed, "verify", count=len(knowledge.ids))[:_VERIFIED_SAMPLES])
    for view in sorted({0, knowledge.views - 1}):
        with deterministic(threads):
            again = predict(teacher.net, knowledge.view(data, view)[rows])
        stored = knowledge.logits[view][rows].astype(np.float32)
        wrong = ~np.isclose(again, stored, rtol=_RELATIVE, atol=_ABSOLUTE).all(axis=1)
        if wrong.any():
            sample = int(knowledge.ids[rows[wrong.argmax()]])
            raise VerifyError(
                f"{file}: view {view} of sample {sample} is not what the teacher predicts; "
                "make the knowledge again"
            )


def _check_teacher(teacher: Teacher, data: Dataset, directory: Path) -> None:
    if teacher.dataset_sha256 != data.sha256 or teacher.classes != data.classes:
        raise VerifyError(f"{directory} was trained on another data set; train the teacher again")
