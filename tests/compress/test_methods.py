"""Every method once on the small digits chain: tuned from the knowledge, judged in between, exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgekd.compress import compress_student
from edgekd.compress.gate import Gate
from edgekd.compress.sparsify import zero_weights
from edgekd.data import load_dataset
from edgekd.errors import BudgetError
from edgekd.export.torch_to_onnx import export_student
from edgekd.learn.student import load_student
from edgekd.mcu.zeros import count_zeros
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import CompressParams, GateParams, MethodTuning, Recipe
from tests.learn.chain import Chain

EACH = {
    "lowrank": CompressParams(methods=("lowrank",), lowrank_layers="all", rank_by="macs", rank_share=0.8),
    "prune": CompressParams(methods=("prune",), keep=0.7),
    "sparsify": CompressParams(methods=("sparsify",), pattern="2:4"),
    "all": CompressParams(
        methods=("prune", "lowrank", "sparsify"), keep=0.8, rank_by="macs", rank_share=0.95
    ),
    "batch norm": CompressParams(methods=("prune",), keep=0.7, batch_norm=True),
    "prune, then share": CompressParams(
        methods=("prune", "share"), keep=0.8, tuning=(MethodTuning("share", 4, 0.002),), batch_norm=True
    ),
    "sparsify first": CompressParams(methods=("sparsify", "prune"), keep=0.8),
}


def recipe_of(chain: Chain, params: CompressParams, **gate: object) -> Recipe:
    params = dataclasses.replace(params, epochs=10, learning_rate=0.01)
    budget = dataclasses.replace(GateParams(max_accuracy_drop=0.15), **gate)  # type: ignore[arg-type]
    return dataclasses.replace(chain.recipe, compress=params, gate=budget)


@pytest.mark.parametrize("name", EACH)
def test_every_method_gives_a_student_that_passes_the_gate(chain: Chain, tmp_path: Path, name: str) -> None:
    recipe = recipe_of(chain, EACH[name])
    found = compress_student(chain.student, chain.data, chain.knowledge, recipe, tmp_path)
    before, after = load_student(chain.student).net, load_student(tmp_path).net
    assert Gate(before, load_dataset(chain.data), recipe.gate).judge(after).outcome == "passed", found
    if name == "sparsify":
        assert after.structure == before.structure
        assert found["zero_weights"] == zero_weights(after) >= 16 * 32 // 2 + 32 * 28 // 2
    else:
        assert after.structure.macs <= 0.8 * before.structure.macs
        assert after.structure.weight_bytes < before.structure.weight_bytes
    several = len(recipe.compress.methods) > 1
    assert [step["method"] for step in found.get("steps", [])] == list(recipe.compress.methods) * several


def test_what_was_compressed_becomes_integers(chain: Chain, tmp_path: Path) -> None:
    recipe = recipe_of(chain, dataclasses.replace(EACH["all"], keep=0.6))
    found = compress_student(chain.student, chain.data, chain.knowledge, recipe, tmp_path)
    export_student(tmp_path, chain.data, tmp_path)
    calibration = load_dataset(chain.data).part("calibration")[0]
    quantize_onnx((tmp_path / "model.onnx").read_bytes(), calibration, recipe.quantize, tmp_path)
    from edgekd.qgraph.edges import quantize_input, strip_float_edges
    from edgekd.qgraph.loader import load_graph
    from edgekd.qgraph.reference import run

    graph = strip_float_edges(load_graph((tmp_path / "int8.onnx").read_bytes(), "int8.onnx"))
    zero, weights = count_zeros(graph)
    assert found["zero_weights"] <= zero < weights and zero > 0.35 * weights
    x, y = load_dataset(chain.data).part("test")
    inputs = quantize_input(np.moveaxis(x, 1, -1), graph.tensors[graph.inputs[0]])
    assert (run(graph, [inputs])[0].reshape(len(y), -1).argmax(1) == y).mean() > 0.5


def test_the_gate_stands_behind_each_method_of_several(chain: Chain, tmp_path: Path) -> None:
    params = CompressParams(methods=("prune", "lowrank"), keep=0.2)
    recipe = recipe_of(chain, params, max_accuracy_drop=0.01)
    with pytest.raises(BudgetError) as caught:
        compress_student(chain.student, chain.data, chain.knowledge, recipe, tmp_path)
    said = str(caught.value)
    assert said.startswith("compress failed the gate behind prune (1 of 2 methods): accuracy on test fell by")
    assert "the distilled student stays the last good artifact; try more compress.keep" in said
    assert list(tmp_path.iterdir()) == []


def test_where_the_samples_do_not_say_the_recipe_does(chain: Chain, tmp_path: Path) -> None:
    """A drop of nothing, on 360 samples, is undecided against a budget of nothing."""
    params = CompressParams(methods=("prune", "lowrank"), keep=1.0, energy=1.0, epochs=0)
    recipe = dataclasses.replace(recipe_of(chain, params, max_accuracy_drop=0.0), compress=params)
    for undecided in ("pass", "fail"):
        gate = dataclasses.replace(recipe.gate, undecided=undecided)
        judged = dataclasses.replace(recipe, gate=gate)
        arguments = chain.student, chain.data, chain.knowledge, judged, tmp_path
        if undecided == "pass":
            assert compress_student(*arguments)["weight_bytes_saved"] == 0
        else:
            with pytest.raises(BudgetError, match="compress is undecided at the gate behind prune"):
                compress_student(*arguments)
