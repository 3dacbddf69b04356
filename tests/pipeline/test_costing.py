"""Pruning to what a device may spend: the widths are a stage, the limit is kept, what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd import api
from edgekd.errors import BudgetError, ConfigError
from edgekd.learn.student import load_student
from edgekd.pipeline.costing import device_costs
from edgekd.target import load_target
from tests.spine.support import QUICK, edgekd, make_project

pytestmark = pytest.mark.needs("torch")

LIMITS = {
    "half": 'target = "mcu-sim", instructions = 0.6, ram_bytes = 12_000',
    "tight": 'target = "mcu-sim", cycles = 1_000',
    "linux": 'target = "rpi4", cycles = 0.5',
    "typo": 'target = "mcu-sin", cycles = 0.5',
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("costing"))
    for name, limits in LIMITS.items():
        more = f'[compress]\nmethods = ["prune"]\nepochs = 0\nprune_to = {{ {limits} }}\n'
        more += "[gate]\nmax_accuracy_drop = 1.0\n"
        text = QUICK.replace('name = "quick"', f'name = "{name}"') + more
        (folder / "recipes" / f"{name}.toml").write_text(text)
    return folder


def test_the_widths_keep_the_limits_and_the_student_has_them(project: Path) -> None:
    request = api.request(recipe="half", start=project)
    made, widths = api.make(request, "compress"), api.make(request, "widths")
    before, after = widths.metrics["before"], widths.metrics["after"]
    assert after["instructions"] <= 0.6 * before["instructions"] and after["ram_bytes"] <= 12_000
    structure = load_student(made.path).net.structure
    target = load_target("mcu-sim", [Path(__file__).resolve().parents[2] / "targets"])
    assert device_costs(target)(structure) == after
    listed = json.loads((widths.path / "widths.json").read_text())["prune_channels"]
    assert {row["layer"]: row["channels"] for row in listed}.items() <= {
        f"layers.{index}": layer.outputs for index, layer in enumerate(structure.layers)
    }.items()
    assert [state.stage for state in api.states(request)].index("widths") > 0


def test_what_is_predicted_is_what_the_core_runs(project: Path) -> None:
    request = api.request(recipe="half", target="mcu-sim", samples=3, start=project)
    predicted = api.make(request, "widths").metrics["after"]
    record = api.bench(request)
    assert record["instructions"]["median"] == pytest.approx(predicted["instructions"], rel=0.05)
    assert record["flash_bytes"]["total"] <= predicted["flash_bytes"]


def test_what_cannot_be_is_said_before_anything_is_tuned(project: Path) -> None:
    with pytest.raises(BudgetError, match=r"asks for 1,000 cycles on mcu-sim, .* takes [\d,]+: [\d,]+ too"):
        api.make(api.request(recipe="tight", start=project), "compress")
    with pytest.raises(ConfigError, match=r"prune_to.target rpi4 is no microcontroller"):
        api.request(recipe="linux", start=project)
    failed = edgekd(project, "compress", "--recipe", "typo")
    assert failed.returncode == 2 and "did you mean mcu-sim?" in failed.stderr
