"""Two processes against one: the rate and the accuracy of one recipe's student, on this machine's CPU.

    python benchmarks/torchrun_rate.py cifar10 --epochs 11 --out benchmarks/results/torchrun_rate.json

Each process has one thread. Both are started by torchrun with the same job; they alternate, --rounds times,
so that other load meets both. A rate is samples a second over the epochs behind the first (no start, no
import); an epoch's seconds are the training's own log. Two cores must be free for the ratio to mean
anything: the load before and behind is written beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.learn_chain import commit, machine, save  # noqa: E402
from edgekd import api  # noqa: E402
from edgekd.data import load_dataset  # noqa: E402
from edgekd.evaluate.intervals import clopper_pearson  # noqa: E402
from edgekd.pipeline.processes import job_table  # noqa: E402
from edgekd.recipe import Recipe  # noqa: E402

PROCESSES = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--store", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--dataset", type=Path, help="with --knowledge: directories, in place of the store's")
    parser.add_argument("--knowledge", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    request = api.request(recipe=given.recipe, store=given.store, source=given.source, start=ROOT)
    if not (given.dataset and given.knowledge):
        given.dataset, given.knowledge = (api.make(request, s).path for s in ("dataset", "knowledge"))
    whole = request.need_recipe()
    recipe = replace(whole, threads=1, distill=replace(whole.distill, epochs=given.epochs))
    report: dict[str, Any] = {"recipe": given.recipe, "epochs": given.epochs, "seed": recipe.seed}
    report |= {"commit": commit(), "machine": machine(), "load_before": os.getloadavg()}
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in PROCESSES}
    for _ in range(given.rounds):
        for count in PROCESSES:
            runs[count].append(trained(recipe, count, given.dataset, given.knowledge))
    report |= summary(runs, given.dataset) | {"load_behind": os.getloadavg()}
    save(report, given.out)
    print(json.dumps(report, indent=1))


def trained(recipe: Recipe, count: int, dataset: Path, knowledge: Path) -> dict[str, Any]:
    """One student by `count` processes: its test accuracy, and the seconds of each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "out").mkdir()
        places: dict[str, Path | None] = {"dataset": dataset, "knowledge": knowledge, "out": work / "out"}
        table = job_table(recipe, "distill", places | {"log": work / "log.csv"})
        (work / "job.json").write_text(json.dumps(table), "utf-8")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = subprocess.run(
            [sys.executable, *launch, "-m", "edgekd.learn.launch", str(work / "job.json")],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        with (work / "log.csv").open(newline="") as stream:
            seconds = [float(row["seconds"]) for row in csv.DictReader(stream)]
    return {"accuracy": json.loads(done.stdout.splitlines()[-1])["accuracy_test"], "epoch_s": seconds}


def summary(runs: dict[int, list[dict[str, Any]]], dataset: Path) -> dict[str, Any]:
    """Rates, their ratio, and each accuracy (of the last round) with its 95 % interval."""
    data = load_dataset(dataset)
    samples, tested = len(data.splits["train"]), len(data.splits["test"])
    rows = {}
    for count, found in runs.items():
        seconds = [each for run in found for each in run["epoch_s"][1:] or run["epoch_s"]]
        accuracy = found[-1]["accuracy"]
        interval = clopper_pearson(round(accuracy * tested), tested)
        rows[str(count)] = {
            "samples_a_s": round(samples / statistics.median(seconds), 1),
            "epoch_s": [run["epoch_s"] for run in found],
            "accuracy_test": accuracy,
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
        }
    one, two = (rows[str(count)] for count in PROCESSES)
    return {
        "train_samples": samples,
        "test_samples": tested,
        "processes": rows,
        "rate_ratio": round(two["samples_a_s"] / one["samples_a_s"], 3),
        "accuracy_difference": round(two["accuracy_test"] - one["accuracy_test"], 4),
    }


if __name__ == "__main__":
    main()
