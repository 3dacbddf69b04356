"""A recipe from its samples to int8, with the CPU time of each stage and the integer reference's accuracy.

    python benchmarks/learn_chain.py cifar10 --store DIR --out benchmarks/results/cifar10.json

The reference runs on all test samples. Stages that the store has already cost nothing and say so. Written:
figures, seed, commit, machine, and every stage's manifest without its list of files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgekd import api  # noqa: E402
from edgekd.data import load_dataset  # noqa: E402
from edgekd.evaluate.intervals import clopper_pearson  # noqa: E402
from edgekd.evaluate.metrics import correct  # noqa: E402
from edgekd.qgraph.onnx_reader import read_onnx  # noqa: E402
from edgekd.qgraph.reference import run  # noqa: E402

STAGES = ("dataset", "teacher", "knowledge", "distill", "compress", "simplify", "quantize")
BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--store", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    request = api.request(
        recipe=given.recipe, store=given.store, source=given.source, start=ROOT, progress=Told()
    )
    report: dict[str, Any] = {"recipe": given.recipe, "seed": request.need_recipe().seed, "commit": commit()}
    report |= {"machine": machine(), "cpu_s": {}, "metrics": {}, "manifests": {}}
    for stage in STAGES:
        before = cpu_s()
        artifact = api.make(request, stage)
        report["cpu_s"][stage] = round(cpu_s() - before, 1)
        report["metrics"][stage] = dict(artifact.metrics)
        report["manifests"][stage] = {k: v for k, v in artifact.manifest.items() if k != "files"}
        save(report, given.out)
    before = cpu_s()
    report["int8"] = integer_accuracy(api.make(request, "dataset").path, artifact.path / "int8.onnx")
    report["cpu_s"]["evaluate"] = round(cpu_s() - before, 1)
    report["cpu_minutes"] = round(sum(report["cpu_s"].values()) / 60, 2)
    save(report, given.out)
    print(json.dumps({k: report[k] for k in ("recipe", "int8", "cpu_s", "cpu_minutes")}, indent=1))


def integer_accuracy(dataset: Path, model: Path) -> dict[str, Any]:
    """The int8 model on every test sample, by the integer reference."""
    data, graph = load_dataset(dataset), read_onnx(model.read_bytes(), model.name)
    x, y = data.part("test")
    hits = 0
    for start in range(0, len(y), BATCH):
        part = np.ascontiguousarray(np.moveaxis(x[start : start + BATCH], 1, -1))
        hits += correct(y[start : start + BATCH], run(graph, [part])[0])
    found = clopper_pearson(hits, len(y))
    interval = {"low": found.low, "high": found.high}
    return {"accuracy": hits / len(y), "samples": len(y), "split": "test"} | interval


def save(report: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")


class Told:
    """One line a minute of what goes on."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, label: str, done: int, total: int) -> None:
        if time.monotonic() - self.last > 60 or done in (0, total):
            self.last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {label} {done}/{total} cpu {cpu_s():.0f} s", flush=True)


def cpu_s() -> float:
    """CPU seconds of this process and the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    model, info = "unknown", Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.is_file() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
