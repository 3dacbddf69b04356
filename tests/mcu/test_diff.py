"""`diff`: executions that agree, the sums that each shows, what is refused; faults: test_diff_faults.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.codegen import generate
from edgekd.mcu.diff import Execution, by_reference, compare
from edgekd.mcu.diff_code import by_core, by_host
from edgekd.mcu.diff_sums import exact_sum
from edgekd.mcu.diff_text import keep_layers
from edgekd.mcu.toolchain import Compiler
from edgekd.pipeline.checking import interpreted
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.requantize import channel_multipliers
from edgekd.target import load_target
from tests.graphs import Builder, inputs_for, small_net
from tests.mcu.diff_faults import every_kernel, replaced
from tests.mcu.test_dsp import net
from tests.random_graphs import wide_graph

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("family", ["portable", "dsp"])
def test_the_core_agrees_layer_by_layer(family: str, clang: Compiler, tmp_path: Path) -> None:
    graph = small_net(np.random.default_rng(1))
    model, target = generate(graph, family), load_target("mcu-sim", [ROOT / "targets"])
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    sound = compare(graph, inputs, by_reference, by_core(model, clang, target, tmp_path))
    assert sound.first is None and len(sound.compared) == 7  # all but the RESHAPE


@pytest.mark.parametrize("seed", range(2))
def test_random_graphs_agree_layer_by_layer(seed: int, clang: Compiler, tmp_path: Path) -> None:
    graph = wide_graph(np.random.default_rng([21, seed]))
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    for family in ("portable", "dsp"):
        host = by_host(generate(graph, family), clang, tmp_path / family)
        assert compare(graph, inputs, by_reference, host).first is None


@pytest.mark.needs("tflite-micro", "ai-edge-litert")
def test_tflite_micro_and_litert_stand_beside_the_reference() -> None:
    graph = small_net(np.random.default_rng(1))
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    assert compare(graph, inputs, by_reference, interpreted("tflm")).first is None
    found = compare(graph, inputs, by_reference, interpreted("litert")).first
    assert found is None or (found.kind == "FULLY_CONNECTED" and abs(found.a - found.b) == 1)


# ---- sums ----


def places(graph: QGraph, rng: np.random.Generator) -> list[tuple[int, tuple[int, ...]]]:
    """One random output of sample 1 of the last layer of each linear kind."""
    linear = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    last = {op.kind: index for index, op in enumerate(graph.ops) if op.kind in linear}
    shapes = {index: graph.tensors[graph.ops[index].outputs[0]].shape[1:] for index in sorted(last.values())}
    return [(index, (1, *(int(rng.integers(0, n)) for n in shape))) for index, shape in shapes.items()]


def test_the_references_sum_requantized_is_the_output() -> None:
    from edgekd.qgraph.arithmetic import multiply_by_quantized_multiplier
    from edgekd.qgraph.reference import run_all
    from edgekd.qgraph.requantize import activation_range

    graph = every_kernel()
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    values, seen = run_all(graph, inputs), set()
    for index, where in places(graph, np.random.default_rng(4)):
        op = graph.ops[index]
        output = graph.tensors[op.outputs[0]]
        total = exact_sum(graph, inputs, index, where)
        seen.add(op.kind)
        multipliers, shifts = channel_multipliers(graph, op)
        channel = where[-1] if len(multipliers) > 1 else 0
        scaled = multiply_by_quantized_multiplier(np.array([total]), multipliers[channel], shifts[channel])
        low, high = activation_range(output, str(op.attrs["activation"]))
        assert int(np.clip(scaled + output.zero_point, low, high)[0]) == int(values[op.outputs[0]][where])
    assert seen == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    assert exact_sum(graph, inputs, len(graph.ops) - 1, (0, 0)) is None  # a SOFTMAX


@pytest.mark.needs("tflite-micro", "ai-edge-litert")
@pytest.mark.parametrize("name", ["tflm", "litert"])
def test_interpreters_show_the_same_sums(name: str) -> None:
    graph = every_kernel()
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    for index, where in places(graph, np.random.default_rng(5)):
        found = interpreted(name).sum_at(graph, inputs, index, where)
        assert found == exact_sum(graph, inputs, index, where), graph.label(index)
    assert interpreted(name).sum_at(graph, inputs, len(graph.ops) - 1, (0, 0)) is None


@pytest.mark.parametrize("family", ["portable", "dsp"])
@pytest.mark.parametrize(
    "name", ["every", "pooled-signed", "separable-chain", "same-signed-strided", "dense-two", "dense-signed"]
)
def test_generated_c_shows_the_same_sums_on_the_host(
    name: str, family: str, clang: Compiler, tmp_path: Path
) -> None:
    graph = every_kernel() if name == "every" else net(name)
    same_sums(graph, by_host(generate(graph, family), clang, tmp_path))


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize(
    "name", ["pooled", "separable-chain", "same-signed-strided", "dense-two", "dense-ten"]
)
def test_assembly_shows_the_same_sums(name: str, clang: Compiler, tmp_path: Path) -> None:
    graph, target = net(name), load_target("mcu-sim", [ROOT / "targets"])
    same_sums(graph, by_core(generate(graph, "dsp"), clang, target, tmp_path))


def same_sums(graph: QGraph, side: Execution) -> None:
    """Each linear layer's sum at a random place, as the definition has it."""
    inputs = inputs_for(graph, np.random.default_rng(3), 4)
    side.layers(graph, inputs)
    for index, where in places(graph, np.random.default_rng(6)):
        found, expected = side.sum_at(graph, inputs, index, where), exact_sum(graph, inputs, index, where)
        assert found == expected, f"{graph.label(index)} at {where}"


def test_what_generated_c_cannot_show_is_none(clang: Compiler, tmp_path: Path) -> None:
    """A layer that sums nothing, and one whose outputs do not come through the switched functions."""
    graph = every_kernel()
    model = generate(graph)
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    side = by_host(model, clang, tmp_path / "sound")
    assert side.sum_at(graph, inputs, len(graph.ops) - 1, (0, 0)) is None
    index, where = places(graph, np.random.default_rng(6))[0]
    file, shown = "k_depthwise_conv_2d_s8.c", "k_clamp(scaled + zero_point, lowest, highest)"
    assert shown in model.files[file] and graph.ops[index].kind == "DEPTHWISE_CONV_2D"
    text = model.files[file].replace(shown, f"(int8_t)({shown} & 0)")
    hidden = by_host(replaced(model, file, text), clang, tmp_path / "hidden")
    assert hidden.sum_at(graph, inputs, index, where) is None


# ---- refusals ----


def test_what_cannot_be_compared_is_refused(clang: Compiler, tmp_path: Path) -> None:
    graph = small_net(np.random.default_rng(1))
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    with pytest.raises(ArtifactError, match="no layer in common"):
        compare(graph, inputs, by_reference, Execution(lambda g, x: {}))
    with pytest.raises(ArtifactError, match="gives 3 elements where the layer has"):
        compare(graph, inputs, by_reference, Execution(lambda g, x: {0: np.zeros(3, np.int8)}))
    with pytest.raises(ConfigError, match="rpi4 has no core"):
        by_core(generate(graph), clang, load_target("rpi4", [ROOT / "targets"]), tmp_path)
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 6))
    only = b.graph(b.reshape(x, (1, 2, 3)))
    with pytest.raises(ArtifactError, match="no layer to look at"):
        keep_layers(generate(only), only)


def test_a_comparison_is_json() -> None:
    graph = small_net(np.random.default_rng(1))
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    assert (
        json.loads(json.dumps(compare(graph, inputs, by_reference, by_reference).as_json()))["first"] is None
    )
