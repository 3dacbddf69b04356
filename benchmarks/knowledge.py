"""Knowledge of 50,000 samples x 8 views: size, write and read rates, and what reading costs a student's step.

    python benchmarks/knowledge.py --out benchmarks/results/knowledge.json

Pixels and logits are drawn: rates do not depend on what they say. Steps with and without reading alternate,
so that other load on the machine meets both; each figure is the median of its steps' CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.learn_chain import commit, machine, save  # noqa: E402
from edgekd.data import Dataset  # noqa: E402
from edgekd.data.augment import view_of  # noqa: E402
from edgekd.learn.distill import lesson, new_student  # noqa: E402
from edgekd.learn.knowledge import FILE, IDS, Knowledge, header_of, read_knowledge, write_header  # noqa: E402
from edgekd.learn.losses import student_loss  # noqa: E402
from edgekd.learn.shards import SHARD_SAMPLES, described, places, write_shard  # noqa: E402
from edgekd.learn.structure import MODELS  # noqa: E402
from edgekd.learn.torch_tools import Machine, deterministic  # noqa: E402
from edgekd.recipe import load_recipe  # noqa: E402

SAMPLES, VIEWS, CLASSES, BATCH = 50_000, 8, 10, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    data = drawn_data()
    with tempfile.TemporaryDirectory() as work:
        report = written(data, Path(work))
        started = time.process_time()
        knowledge = read_knowledge(Path(work) / FILE, data)
        report["open_and_verify_cpu_s"] = round(time.process_time() - started, 3)
        report |= read_rates(knowledge, data)
        report |= step_times(knowledge, data, given.steps)
    save(report | {"commit": commit(), "machine": machine()}, given.out)
    print(json.dumps(report, indent=1))


def drawn_data() -> Dataset:
    random = np.random.Generator(np.random.Philox(1))
    x = random.integers(0, 256, (SAMPLES, 3, 32, 32), np.uint8)
    ids = np.arange(SAMPLES, dtype=np.int64)
    classes = tuple(str(c) for c in range(CLASSES))
    return Dataset("drawn", x, ids % CLASSES, classes, {"train": ids}, "0" * 64)


def written(data: Dataset, directory: Path) -> dict[str, Any]:
    augment = load_recipe("cifar10", [ROOT / "recipes"]).knowledge.augment
    header = header_of(
        data,
        split="train",
        teachers={"0" * 64: 1.0},
        seed=1,
        augment=augment,
        views=VIEWS,
        kept=0,
        shard_samples=SHARD_SAMPLES,
    )
    logits = np.random.Generator(np.random.Philox(2)).normal(size=(SAMPLES, CLASSES)).astype(np.float32)
    started, rows = time.perf_counter(), []
    for place in places(VIEWS, SAMPLES, SHARD_SAMPLES):
        write_shard(directory, place, logits[place.start : place.stop], 0)
        rows += described(directory, place, 0)
    np.save(directory / IDS, data.splits["train"])
    write_header(header, rows, directory)
    seconds = time.perf_counter() - started
    size = sum(path.stat().st_size for path in directory.iterdir())
    return {
        "samples": SAMPLES,
        "views": VIEWS,
        "classes": CLASSES,
        "bytes": size,
        "bytes_a_view_of_a_sample": round(size / SAMPLES / VIEWS, 2),
        "write_samples_a_s": round(SAMPLES * VIEWS / seconds),
    }


def read_rates(knowledge: Knowledge, data: Dataset) -> dict[str, Any]:
    """Predictions alone, and predictions with their replayed pixels, in shuffled batches."""
    order = np.random.Generator(np.random.Philox(3)).permutation(SAMPLES)
    batches = [order[i : i + BATCH] for i in range(0, 20_000, BATCH)]

    def rate(read: Callable[[np.ndarray[Any, Any]], object]) -> int:
        started = time.process_time()
        for rows in batches:
            read(rows)
        return round(len(batches) * BATCH / (time.process_time() - started))

    return {
        "read_samples_a_cpu_s": rate(lambda rows: knowledge.read(3, rows)),
        "replay_samples_a_cpu_s": rate(lambda rows: knowledge.view(data.x[rows], rows, 3, SAMPLES)),
    }


def step_times(knowledge: Knowledge, data: Dataset, steps: int) -> dict[str, Any]:
    """A student's step from the knowledge, and the same with logits that lie in memory."""
    recipe = load_recipe("cifar10", [ROOT / "recipes"])
    net = new_student(MODELS[recipe.student.model](recipe.student, (3, 32, 32), CLASSES), 1)
    device = Machine(precision="bf16")
    device.place(net)
    optimizer, loss = torch.optim.SGD(net.parameters(), 0.01), student_loss(recipe.distill)
    taught = lesson(knowledge, data)
    rows = torch.from_numpy(np.random.Generator(np.random.Philox(4)).permutation(SAMPLES))
    in_memory = torch.zeros(SAMPLES, CLASSES)

    def without(epoch: int, chosen: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The same augmentation, no knowledge read: what a run on labels alone does."""
        ids = chosen.numpy()
        pixels = view_of(data.x[ids], ids, knowledge.augment, seed=1, view=epoch, population=SAMPLES)
        return torch.from_numpy(pixels), (in_memory[chosen], taught.labels[chosen])

    times: dict[str, list[float]] = {"with": [], "without": []}
    with deterministic(1):
        for step in range(steps + 3):
            chosen = rows[step * BATCH : (step + 1) * BATCH]
            for name, batches in (("with", taught.batches), ("without", without)):
                started = time.process_time()
                inputs, targets = batches(3, chosen)
                with device.autocast():
                    output = net(device.prepared(inputs))
                optimizer.zero_grad()
                loss(output.float(), targets).backward()
                optimizer.step()
                times[name].append(time.process_time() - started)
    medians = {name: statistics.median(found[3:]) for name, found in times.items()}
    return {
        "step_with_knowledge_ms": round(1000 * medians["with"], 2),
        "step_without_ms": round(1000 * medians["without"], 2),
        "reading_costs_percent": round(100 * (medians["with"] / medians["without"] - 1), 2),
        "loss": dataclasses.asdict(recipe.distill)["loss"],
    }


if __name__ == "__main__":
    main()
