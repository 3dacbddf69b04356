"""The prepared data set: reproducible bytes, checked when read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import load_dataset, prepare
from edgekd.errors import ArtifactError, ConfigError
from edgekd.recipe import Recipe

RECIPE = Recipe(name="digits", description="a test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    prepare(RECIPE, out)
    return out


def test_digits_have_a_fixed_test_split_of_360(prepared: Path) -> None:
    data = load_dataset(prepared)
    assert data.x.shape == (1797, 1, 8, 8) and data.x.dtype == np.float32
    assert data.x.min() == 0 and data.x.max() == 1
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 1189,
        "calibration": 128,
        "validation": 120,
        "test": 360,
    }
    assert np.bincount(data.part("test")[1]).min() >= 34


def test_the_same_recipe_gives_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    prepare(RECIPE, tmp_path)
    for name in ("x.npy", "dataset.npz", "dataset.json"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()


def test_another_seed_changes_the_checksum_but_not_the_test_split(prepared: Path, tmp_path: Path) -> None:
    prepare(dataclasses.replace(RECIPE, seed=9), tmp_path)
    one, other = load_dataset(prepared), load_dataset(tmp_path)
    assert one.sha256 != other.sha256
    assert np.array_equal(one.splits["test"], other.splits["test"])


@pytest.mark.parametrize("damage", ["absent", "truncated", "empty", "pixel", "short", "header"])
def test_a_damaged_data_set_is_refused(prepared: Path, tmp_path: Path, damage: str) -> None:
    pixels = (prepared / "x.npy").read_bytes()
    array, header = (prepared / "dataset.npz").read_bytes(), (prepared / "dataset.json").read_text()
    if damage == "truncated":
        array = array[:1000]
    elif damage == "empty":
        array = b""
    elif damage == "pixel":
        pixels = pixels[:5000] + bytes([pixels[5000] ^ 1]) + pixels[5001:]
    elif damage == "short":
        pixels = pixels[:5000]
    elif damage == "header":
        header = json.dumps({"schema": 1})
    if damage != "absent":
        (tmp_path / "x.npy").write_bytes(pixels)
        (tmp_path / "dataset.npz").write_bytes(array)
        (tmp_path / "dataset.json").write_text(header)
    with pytest.raises(ArtifactError, match=r"prepare it again|numpy\.savez"):
        load_dataset(tmp_path)


def test_too_many_held_out_samples_are_refused(tmp_path: Path) -> None:
    greedy = dataclasses.replace(RECIPE.data, calibration_samples=400, validation_samples=1100)
    with pytest.raises(ConfigError, match="ask for fewer"):
        prepare(dataclasses.replace(RECIPE, data=greedy), tmp_path)
    assert not list(tmp_path.iterdir())
