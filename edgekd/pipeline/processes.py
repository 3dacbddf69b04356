"""A training stage in several processes of this machine, started under torchrun; the recipe says how many.

What a process says comes as lines of JSON (edgekd/learn/launch.py): progress, its metrics, or an error, which
is raised here as if it had been met here. When this process goes, theirs end at their next line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from edgekd import errors
from edgekd.errors import EdgekdError
from edgekd.pipeline.request import Job
from edgekd.progress import Progress
from edgekd.recipe import Recipe, alone

# Stages that may be trained so, and the stages behind the places that they read.
TRAININGS = {"teacher": {"dataset": "dataset"}, "distill": {"dataset": "dataset", "knowledge": "knowledge"}}

_PATIENCE_S = 30.0  # for torchrun to end its processes


def job_table(recipe: Recipe, stage: str, places: dict[str, Path | None]) -> dict[str, Any]:
    """What JOB.json holds: stage, recipe, and each place that is there, absolute."""
    table = {name: str(path.absolute()) for name, path in places.items() if path is not None}
    return {"stage": stage, "recipe": plain_tables(asdict(alone(recipe)))} | table


def plain_tables(value: Any) -> Any:
    """Nested tables without None: an absent key says it, and JSON as TOML has no other way to."""
    if isinstance(value, dict):
        return {key: plain_tables(each) for key, each in value.items() if each is not None}
    return [plain_tables(each) for each in value] if isinstance(value, list | tuple) else value


def train_together(job: Job, stage: str, **inputs: Path) -> dict[str, Any]:
    """Run the training stage `stage` in as many processes as the recipe says; its metrics.

    inputs: "dataset" and, for distill, "knowledge", with hints "teacher". Raises what the stage raises;
    ConfigError where there are fewer GPUs than processes.
    """
    request = job.request
    recipe = request.need_recipe()
    if recipe.device == "gpu":
        from edgekd.learn.torch_tools import refuse_missing_gpus

        refuse_missing_gpus(recipe)
    places = {**inputs, "out": job.out, "work": job.work(), "log": request.log}
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job_table(recipe, stage, places) | {"told": True}), "utf-8")
        return _run(file, recipe, request.progress)


def _run(file: Path, recipe: Recipe, progress: Progress) -> dict[str, Any]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(recipe.processes)]
    command = [sys.executable, *launch, "-m", "edgekd.learn.launch", str(file)]
    package = str(Path(errors.__file__).parent.parent)
    path = os.pathsep.join(each for each in (package, os.environ.get("PYTHONPATH")) if each)
    environment = os.environ | {"OMP_NUM_THREADS": str(recipe.threads), "PYTHONPATH": path}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout is not None
            metrics = _followed(process.stdout, progress)
            code = process.wait()
        finally:
            _ended(process)
        if metrics is None:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["nothing was said"])[-1]
            raise EdgekdError(
                f"the {recipe.processes} training processes ended without a result (exit code {code}: "
                f"{last[:160]}); run again to continue behind the last whole epoch"
            )
    return metrics


def _followed(lines: IO[str], progress: Progress) -> dict[str, Any] | None:
    """Pass progress on until the end; the metrics that were said. Raises the error that was."""
    metrics: dict[str, Any] | None = None
    for line in lines:
        try:
            table = json.loads(line)
        except ValueError:
            continue  # a library's own word
        if "progress" in table:
            progress(*table["progress"])
        elif "error" in table:
            name, message = table["error"]
            raise getattr(errors, name, EdgekdError)(message)
        else:
            metrics = table.get("metrics", metrics)
    return metrics


def _ended(process: subprocess.Popen[str]) -> None:
    """torchrun ends its processes when it is asked to end; it is killed where it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
