"""The recipes for a user's own data run from the samples to the integers: mechanics, no accuracy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgekd import api
from edgekd.data import load_dataset
from edgekd.errors import ConfigError
from edgekd.report.evaluation import show_evaluations
from edgekd.store import Artifact

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"epochs": "2", "width": "8", "views": "1", "calibration_samples": "20", "validation_samples": "20"}


def shipped(name: str, **changes: str) -> str:
    """A shipped recipe's text with other numbers."""
    text = (ROOT / "recipes" / f"{name}.toml").read_text("utf-8")
    for key, value in (SMALL | changes).items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    return text


def with_data(text: str, table: str) -> str:
    """The recipe with another [data] table."""
    head, _, rest = text.partition("\n[data]\n")
    return f"{head}\n[data]\n{table}\n[teacher]{rest.partition('[teacher]')[2]}"


def project(folder: Path, name: str, text: str) -> Path:
    (folder / "recipes").mkdir(parents=True)
    (folder / ".edgekd").mkdir()
    (folder / "recipes" / f"{name}.toml").write_text(text)
    return folder


def make(folder: Path, recipe: str, stage: str) -> Artifact:
    return api.make(api.request(recipe=recipe, start=folder), stage)


def spoken(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of three "words": each has its own band, at its own time."""
    random = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    x = random.normal(0, 12, (samples, 49, 10, 1))
    for row, word in zip(x, y, strict=True):
        row[10 * word + 5 : 10 * word + 15, 3 * word : 3 * word + 3] += 60
    return np.clip(x, -128, 127).astype(np.int8), y


def test_kws_from_features_to_integers(tmp_path: Path) -> None:
    folder = project(
        tmp_path, "kws", shipped("kws", learning_rate="0.01", batch_samples="16", epochs="6", width="16")
    )
    (folder / "data").mkdir()
    (x, y), (x_test, y_test) = spoken(160, 0), spoken(60, 1)
    names = np.array(["down", "go", "left"])
    np.savez(folder / "data" / "kws.npz", x=x, y=names[y], x_test=x_test, y_test=names[y_test])
    made = make(folder, "kws", "quantize")
    assert made.metrics["calibration_samples"] == 20
    records = api.evaluations(api.request(recipe="kws", start=folder))
    assert [row["class"] for row in records[2]["per_class"]] == ["down", "go", "left"]
    assert records[2]["samples"] == 60 and records[2]["drop"]["against"] == "distill"
    assert records[0]["value"] > 0.6  # three words that a ruler could tell apart: it learned at all


def test_the_template_with_recordings_of_sensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = 'name = "csv"\npath = "data"\nwindow_rows = 16\ncalibration_samples = 20\nvalidation_samples = 20'
    text = with_data(shipped("own"), table)
    folder = project(tmp_path, "own", text)
    by_area = text.replace('name = "own"', 'name = "area"').replace("[gate]", '[gate]\nmetric = "auc"')
    (folder / "recipes" / "area.toml").write_text(by_area)
    random = np.random.default_rng(0)
    for split, rows in (("train", 1600), ("test", 480)):
        (folder / "data" / split).mkdir(parents=True)
        for label, rate in (("slow", 0.2), ("fast", 1.5)):
            wave = np.sin(rate * np.arange(rows))[:, None] + random.normal(0, 0.1, (rows, 3))
            lines = "\n".join(",".join(f"{v:.4f}" for v in row) + f",{label}" for row in wave)
            (folder / "data" / split / f"{label}.csv").write_text(f"ax,ay,az,label\n{lines}\n")
    student = api.evaluations(api.request(recipe="own", start=folder))[0]
    assert student["samples"] == 60 and [row["class"] for row in student["per_class"]] == ["fast", "slow"]
    areas = api.evaluations(api.request(recipe="area", start=folder))
    assert [row["metric"] for row in areas] == ["auc"] * 3 and areas[2]["drop"]["against"] == "distill"
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in areas)
    assert areas[0]["per_class"] is None and areas[0]["ece"] is None
    show_evaluations(areas)
    assert "auc on test, 60 samples" in capsys.readouterr().out
    data = load_dataset(make(folder, "own", "dataset").path)
    assert data.x.shape == (260, 1, 16, 3) and len(data.splits["test"]) == 60


def test_the_template_with_a_function(tmp_path: Path) -> None:
    table = 'name = "function"\nfunction = "my_data_for_edgekd:load"\ntest_samples = 30\n'
    table += "calibration_samples = 20\nvalidation_samples = 20"
    folder = project(tmp_path, "own", with_data(shipped("own"), table))
    module = folder / "my_data_for_edgekd.py"
    text = "import numpy as np\ndef load():\n    y = np.arange(120) % 4\n"
    text += "    return np.ones((120, 8, 8)) * y[:, None, None], y\n"
    module.write_text(text)
    first = make(folder, "own", "dataset")
    assert first.metrics["test_samples"] == 30 and load_dataset(first.path).x.shape == (120, 1, 8, 8)
    assert make(folder, "own", "dataset").key == first.key
    module.write_text(text.replace("% 4", "% 3"))
    assert make(folder, "own", "dataset").key != first.key  # another text, another data set


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "function"\nfunction = "no_such_module_of_mine:load"', "neither in"),
        ('name = "function"\nfunction = "load"', "write package.module:function"),
        ('name = "npz"\npath = "data/absent.npz"', "absent.npz is not there"),
        ('name = "npz"', "names no data.path"),
        ('name = "npz"\npath = "flat.npz"\ntest_samples = 9', "the samples are 1 x 1 x 4, and the networks"),
        ('name = "npz"\npath = "data.npz"', "bring no test split of their own; set data.test_samples"),
    ],
)
def test_data_that_is_not_there_is_said(tmp_path: Path, table: str, said: str) -> None:
    folder = project(tmp_path, "own", with_data(shipped("own"), table))
    np.savez(folder / "data.npz", x=np.ones((40, 4, 4)), y=np.arange(40) % 2)
    np.savez(folder / "flat.npz", x=np.ones((40, 4)), y=np.arange(40) % 2)
    with pytest.raises(ConfigError) as caught:
        make(folder, "own", "dataset")
    assert said in str(caught.value) and "\n" not in str(caught.value)
