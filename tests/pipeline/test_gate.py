"""The gate in the chain: a model that lost too much stops it, its input stays, one sentence says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import api
from edgekd.data import load_dataset
from edgekd.errors import BudgetError, ConfigError
from edgekd.pipeline import graph
from edgekd.pipeline.checking import int8_model
from edgekd.report.evaluation import show_evaluations
from edgekd.store import Artifact
from tests.spine.support import QUICK, artifacts, edgekd, make_project

pytestmark = pytest.mark.needs("torch")

HARSH = '[compress]\nmethods = ["lowrank"]\nenergy = 0.01\nepochs = 0\n'  # every layer to rank 1, untuned


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("gate"))
    for name, more in {
        "harsh": HARSH,
        "generous": HARSH + "[gate]\nmax_accuracy_drop = 1.0\n",
        "strict": '[gate]\nmax_accuracy_drop = 0.0\nundecided = "fail"\n',
        "high": "[gate]\nmin_accuracy = 1.0\n",
        "auc": '[gate]\nmetric = "auc"\n',
    }.items():
        text = QUICK.replace('name = "quick"', f'name = "{name}"') + more
        (folder / "recipes" / f"{name}.toml").write_text(text)
    return folder


def make(project: Path, recipe: str, stage: str) -> Artifact:
    return api.make(api.request(recipe=recipe, start=project), stage)


def test_a_good_chain_is_evaluated_at_each_model(project: Path) -> None:
    made = make(project, "quick", "quantize")
    student, compressed, int8 = api.evaluations(api.request(recipe="quick", start=project))
    assert [r["model"] for r in (student, compressed, int8)] == ["distill", "compress", "quantize"]
    assert student["drop"] is None and compressed["drop"]["value"] == 0  # no method: the same student
    assert all(r["split"] == "test" and r["samples"] == 360 for r in (student, compressed, int8))
    stored = json.loads((artifacts(project)["distill"][0] / "manifest.json").read_text())["metrics"]
    assert student["value"] == pytest.approx(stored["accuracy_test"])
    assert made.stage == "quantize"


def test_the_int8_figures_are_the_integer_references(project: Path) -> None:
    from edgekd.qgraph.edges import quantize_input, strip_float_edges
    from edgekd.qgraph.loader import load_graph
    from edgekd.qgraph.reference import run

    model = make(project, "quick", "quantize").path / "int8.onnx"
    x, y = load_dataset(artifacts(project)["dataset"][0]).part("test")
    graph = strip_float_edges(load_graph(model.read_bytes(), model.name))
    inputs = quantize_input(np.moveaxis(x, 1, -1), graph.tensors[graph.inputs[0]])
    right = (run(graph, [inputs])[0].reshape(len(x), -1).argmax(1) == y).mean()
    record = api.evaluations(api.request(recipe="quick", start=project))[2]
    assert record["value"] == pytest.approx(right)
    with np.load(make(project, "quick", "evaluate-int8").path / "answers.npz") as kept:
        assert (kept["top1"] == kept["y"]).mean() == record["value"]


def test_what_is_kept_of_a_stage_is_its_model_and_not_the_evaluation_behind_it(project: Path) -> None:
    request = api.request(recipe="quick", start=project)
    made = make(project, "quick", "quantize")
    for stage in ("distill", "compress", "quantize"):
        found = graph.kept(request, stage)
        assert found is not None and found.stage == stage
    assert int8_model(request) == ((made.path / "int8.onnx").read_bytes(), "int8.onnx")


def test_a_model_that_lost_too_much_stops_the_chain(project: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        make(project, "harsh", "quantize")
    said = str(caught.value)
    for words in (
        "failed the gate: accuracy on test fell by",
        "360 samples) against distill",
        "gate.max_accuracy_drop allows 2.00",
        "stays the last good artifact; try more compress.energy",
    ):
        assert words in said, said
    kept = api.make(api.request(recipe="harsh", start=project), "distill")
    assert f"distill {kept.key} stays" in said
    kept.verify()
    states = {s.stage: s.artifact for s in api.states(api.request(recipe="harsh", start=project))}
    assert states["compress"] is not None and states["simplify"] is None and states["quantize"] is None


def test_a_failed_model_can_be_looked_at(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = api.evaluations(api.request(recipe="harsh", start=project))
    assert [record["gate"]["outcome"] for record in records][:2] == ["passed", "failed"]
    show_evaluations(records)
    shown = capsys.readouterr().out
    for words in (
        "student, float",
        "failed: accuracy on test fell by",
        "By class",
        "Calibration",
        "taken for",
    ):
        assert words in shown


def test_another_budget_trains_nothing_anew(project: Path) -> None:
    before = artifacts(project)
    assert make(project, "generous", "quantize").stage == "quantize"
    after = artifacts(project)
    assert after["distill"] == before["distill"] and after["compress"] == before["compress"]
    assert after["evaluate-compressed"] == before["evaluate-compressed"]


def test_a_strict_recipe_stops_where_the_samples_do_not_say(project: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"undecided at the gate, where this recipe stops: .*try a larger split"
    ):
        make(project, "strict", "compress")


def test_the_least_accuracy_is_asked_of_the_student(project: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"distill \w+ failed the gate: .*gate.min_accuracy asks for 1.0000"
    ):
        make(project, "high", "compress")


def test_a_metric_that_does_not_fit_the_data_is_said(project: Path) -> None:
    from edgekd.errors import VerifyError

    with pytest.raises(VerifyError, match="AUC needs as many outputs as inputs"):
        make(project, "auc", "evaluate-student")


def test_a_users_own_model_is_evaluated_without_a_gate(project: Path, tmp_path: Path) -> None:
    x, y = load_dataset(artifacts(project)["dataset"][0]).part("test")
    np.savez(tmp_path / "mine.npz", x=x, y=y, x_calibration=x[:40])
    model = make(project, "quick", "simplify").path / "model.onnx"
    options = {"model": str(model), "data": str(tmp_path / "mine.npz")}
    floating, int8 = api.evaluations(api.request(start=project, **options))
    assert floating["gate"] is None and int8["drop"]["against"] == "import"
    assert floating["split"] == "user data" and floating["per_class"][0]["class"] == "0"
    with pytest.raises(ConfigError, match="--data"):
        api.evaluations(api.request(start=project, model=str(model)))


def test_the_command_and_its_json(project: Path) -> None:
    done = edgekd(project, "evaluate", "--recipe", "quick", "--json")
    assert done.returncode == 0, done.stderr
    records: list[dict[str, Any]] = json.loads(done.stdout)
    assert records[0]["gate"]["outcome"] == "passed"
    stage = json.loads(edgekd(project, "compress", "--recipe", "quick", "--json").stdout)
    assert stage["gate"]["outcome"] == "passed" and "against distill" in stage["gate"]["reason"]
    shown = edgekd(project, "quantize", "--recipe", "quick").stdout
    assert "gate: " in shown and "gate.max_accuracy_drop allows 2.00" in shown
    failed = edgekd(project, "bench", "--recipe", "harsh", "--target", "mcu-sim")
    assert failed.returncode == 5 and failed.stdout == ""
    assert failed.stderr.splitlines()[-1].startswith("edgekd: compress ") and "Traceback" not in failed.stderr
