"""The blank graph of a structure costs what the exported and quantized student costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.compress.blank import blank_graph
from edgekd.compress.prune import prune
from edgekd.export.torch_to_onnx import export_net
from edgekd.learn.structure import Structure
from edgekd.mcu.check import check
from edgekd.mcu.options import options_for
from edgekd.mcu.price import price
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.loader import load_graph
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import CompressParams, QuantizeParams
from edgekd.target import load_target
from tests.compress.nets import STUDENTS, samples, student

ROOT = Path(__file__).resolve().parents[2]
TARGET = load_target("mcu-sim", [ROOT / "targets"])


@pytest.mark.parametrize("model", STUDENTS)
def test_its_ops_bytes_and_cycles_are_the_real_ones(tmp_path: Path, model: str) -> None:
    net = student(model)
    x = samples(net, 32).numpy()
    quantize_onnx(export_net(net, net.structure.input_shape), x, QuantizeParams(), tmp_path)
    real = strip_float_edges(load_graph((tmp_path / "int8.onnx").read_bytes(), "int8.onnx"))
    blank = blank_graph(net.structure)
    assert [op.kind for op in blank.ops] == [op.kind for op in real.ops]
    shapes = [[graph.tensors[op.inputs[1]].shape for op in graph.ops] for graph in (blank, real)]
    assert sorted(shapes[0]) == sorted(shapes[1])  # a shortcut may stand before or behind what it passes by
    one, two = (check(graph, [TARGET], "clang")["targets"][0] for graph in (blank, real))
    assert one["parts"]["arena"] == two["parts"]["arena"]
    assert one["cycles"] == pytest.approx(two["cycles"], rel=0.05)
    assert one["parts"]["weights"] == pytest.approx(two["parts"]["weights"], rel=0.05)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("model", STUDENTS)
def test_its_price_is_that_of_the_code(model: str, bits: int) -> None:
    structure = student(model).structure
    graph = blank_graph(structure, {i: bits for i, spec in enumerate(structure.layers) if spec.weights > 600})
    row, found = check(graph, [TARGET], "clang")["targets"][0], price(graph, TARGET, options_for(TARGET))
    assert (found.cycles, found.ram_bytes) == (row["cycles"], row["ram_need"])
    assert found.flash_bytes == row["flash_need"]
    assert found.instructions and found.instructions < row["cycles"]
    if bits == 4 and model in ("resnet", "blocks"):  # enough weights to pay for the code that unpacks
        assert found.flash_bytes < price(blank_graph(structure), TARGET, options_for(TARGET)).flash_bytes


def test_pruned_to_a_devices_cycles() -> None:
    """Few questions to the device, the target met, and the step before it not."""
    asked: list[float] = []

    def cycles(structure: Structure) -> float:
        row = check(blank_graph(structure), [TARGET], "clang")["targets"][0]
        asked.append(row["cycles"])
        return float(row["cycles"])

    net = student("resnet")
    small = prune(net, CompressParams(keep=0.6), cycles)
    assert len(asked) < 12
    assert 0.45 < cycles(small.structure) / asked[0] <= 0.6
