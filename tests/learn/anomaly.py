"""A small, synthetic anomaly data set: a project with the recipe "anomaly" and vectors that it can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.learn.test_recipes import project, shipped

WIDTH = 32
Vectors = npt.NDArray[np.float32]


def normal(samples: int, seed: int) -> Vectors:
    """Vectors on a plane of three dimensions, with some noise: float32 [samples, 32]."""
    plane = np.random.default_rng(7).normal(0, 0.5, (3, WIDTH))
    random = np.random.default_rng(seed)
    return np.asarray(
        random.normal(0, 1, (samples, 3)) @ plane + random.normal(0, 0.1, (samples, WIDTH)), np.float32
    )


def load() -> dict[str, npt.NDArray[np.generic]]:
    """Normal training vectors; a test split of which half is off the plane by a few times the noise."""
    test = normal(80, 1)
    test[40:] += np.random.default_rng(2).normal(0, 0.3, (40, WIDTH)).astype(np.float32)
    y_test = np.repeat([0, 1], 40)
    return {"x": normal(400, 0), "y": np.zeros(400, np.int64), "x_test": test, "y_test": y_test}


def recipe_text(**changes: str) -> str:
    """The shipped recipe, smaller: 32 numbers, 24-4-24."""
    small = {
        "channels": "[24, 4, 24]",
        "epochs": "30",
        "learning_rate": "0.02",
        "batch_samples": "32",
        "path": '"anomaly.npz"',
    }
    return shipped("anomaly", **(small | changes))


def anomaly_project(folder: Path, text: str, **arrays: npt.NDArray[np.generic]) -> Path:
    """A project with that recipe and the data, some arrays replaced."""
    made = project(folder, "anomaly", text)
    np.savez(made / "anomaly.npz", **(load() | arrays))
    return made
