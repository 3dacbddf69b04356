"""A recipe on a folder of images, killed inside its teacher, its knowledge, its student: the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd import api

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("teacher", "knowledge", "distill")
EPOCHS, STEPS, VIEWS = 4, 5, 6  # 80 training samples in batches of 16
RECIPE = f"""
name = "pictures"
description = "mechanics on images"
seed = 3
[data]
name = "image-folder"
path = "images"
calibration_samples = 10
validation_samples = 10
[teacher]
width = 4
epochs = {EPOCHS}
batch_samples = 16
ema = 0.9
augment = {{ kind = "crop-flip" }}
[knowledge]
views = {VIEWS}
augment = {{ kind = "crop-flip" }}
[student]
channels = [8, 8]
strides = [2, 2]
max_macs = 1_000_000
[distill]
optimizer = "sgd"
epochs = {EPOCHS}
batch_samples = 16
"""
# Kills itself at the first word of `stage` that says `at` steps or more: the last epoch is not written yet.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from edgekd import api
project, stage, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def progress(label, done, total):
    if label.split(":")[0] == stage and total > 1 and done >= at:
        os.kill(os.getpid(), signal.SIGKILL)
api.make(api.request(recipe="pictures", start=project, progress=progress), "distill")
"""


def project_with_images(folder: Path) -> Path:
    """Two classes of 32 x 32 JPEGs: 50 to train on, 10 to test on, of each."""
    random = np.random.Generator(np.random.Philox(1))
    for split, count in (("train", 50), ("test", 10)):
        for number, name in enumerate(("dark", "light")):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 128, (32, 32, 3)) + 127 * number
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.jpg")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "pictures.toml").write_text(RECIPE)
    (folder / ".edgekd").mkdir()
    return folder


def test_killed_in_three_stages_it_ends_in_the_unbroken_runs_bytes(tmp_path: Path) -> None:
    project = project_with_images(tmp_path)
    whole = api.request(recipe="pictures", start=project, store=str(tmp_path / "unbroken"))
    killed = api.request(recipe="pictures", start=project)
    wanted = {stage: api.make(whole, stage) for stage in STAGES}
    random = np.random.Generator(np.random.Philox(6))
    epochs = random.integers(1, EPOCHS, 2) * STEPS + 1
    points = dict(zip(STAGES, (int(epochs[0]), int(random.integers(2, VIEWS)), int(epochs[1])), strict=True))
    for stage, at in points.items():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(project), stage, str(at)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        there = [state.stage for state in api.states(killed) if state.artifact and state.stage in STAGES]
        assert there == list(STAGES[: STAGES.index(stage)])
        assert list((project / ".edgekd" / "work").glob(f"{stage}-*/*")), "nothing to continue from"
    assert {stage: api.make(killed, stage).digest for stage in STAGES} == {
        stage: artifact.digest for stage, artifact in wanted.items()
    }
