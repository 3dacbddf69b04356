"""Shared weights of a trained student: tables all the way to generated kernels, and what cannot be shared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgekd.compress import compress_student
from edgekd.compress.gate import Gate
from edgekd.compress.share import load_tables, sharing
from edgekd.data import load_dataset
from edgekd.export.torch_to_onnx import export_student
from edgekd.learn.student import load_student
from edgekd.learn.training import Watch
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.loader import load_graph
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import CompressParams, GateParams, Recipe
from tests.learn.chain import Chain


def recipe_of(chain: Chain, epochs: int = 10, **table: object) -> Recipe:
    params = CompressParams(methods=("share",), epochs=epochs, learning_rate=0.01)
    params = dataclasses.replace(params, **table)  # type: ignore[arg-type]
    return dataclasses.replace(chain.recipe, compress=params, gate=GateParams(max_accuracy_drop=0.15))


def compressed(chain: Chain, recipe: Recipe, out: Path, watch: Watch = Watch()) -> dict[str, object]:  # noqa: B008
    return compress_student(chain.student, chain.data, chain.knowledge, recipe, out, watch=watch)


def integers(chain: Chain, directory: Path) -> QGraph:
    """The graph in the integers of a compressed student."""
    export_student(directory, chain.data, directory)
    calibration = load_dataset(chain.data).part("calibration")[0]
    model = (directory / "model.onnx").read_bytes()
    quantize_onnx(model, calibration, chain.recipe.quantize, directory, shared=load_tables(directory))
    return load_graph((directory / "int8.onnx").read_bytes(), "int8.onnx")


@pytest.mark.parametrize("entries", [16, 4])
def test_a_trained_students_tables_reach_the_graph_untouched(
    chain: Chain, tmp_path: Path, entries: int
) -> None:
    recipe = recipe_of(chain, entries=entries)
    found = compressed(chain, recipe, tmp_path)
    net, grids = load_student(tmp_path).net, load_tables(tmp_path)
    assert list(grids) == ["layers.0.conv.weight", "layers.2.conv.weight", "layers.4.conv.weight"]
    if entries == 16:
        data = load_dataset(chain.data)
        assert Gate(load_student(chain.student).net, data, recipe.gate).judge(net).outcome == "passed"
    graph, stored = integers(chain, tmp_path), 0
    for name, grid in grids.items():
        weights = net.get_parameter(name).detach().numpy()
        assert len(grid.table) == entries and 0 in grid.table
        assert np.array_equal(grid.values(weights), weights)
        tensor = next(t for t in graph.tensors if t.name.startswith(name) and t.data is not None)
        assert tensor.encoding is not None and tensor.data is not None
        assert np.array_equal(tensor.encoding.tables[0], grid.table)
        assert np.array_equal(np.moveaxis(tensor.data, -1, 1), grid.integers(weights))
        assert np.array_equal(tensor.scale, grid.scales)
        stored += tensor.encoding.stored_bytes(tensor.data.size)
    assert found["shared"] == sharing(net, grids) == {"layers": 3, "weights": 1552, "stored_bytes": stored}
    assert sum(t.encoding is not None for t in graph.tensors) == 3
