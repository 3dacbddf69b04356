"""`diff`: executions that agree, and a fault planted in each kernel, found in the right layer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.diff import accumulator, by_core, by_host, by_reference, compare, instrument
from edgekd.mcu.toolchain import Compiler
from edgekd.pipeline.checking import _by_tflm
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.litert import run_litert
from edgekd.qgraph.requantize import channel_multipliers
from edgekd.target import load_target
from tests.graphs import Builder, inputs_for, small_net
from tests.random_graphs import wide_graph

ROOT = Path(__file__).resolve().parents[2]
CLAMPED = ("k_clamp(", "k_clamp(1 + ")

# Kernel -> (what its text holds, what stands there instead): a wrong sum, clamp, table, row or fill.
FAULTS = {
    "k_add_s8": CLAMPED,
    "k_average_pool_2d_s8": CLAMPED,
    "k_conv_2d_s8": ("layer->in_zero_point", "(layer->in_zero_point + 1)"),
    "k_copy_rows_8": ("y_step, row_bytes)", "y_step, row_bytes - 1)"),
    "k_depthwise_conv_2d_s8": CLAMPED,
    "k_gemm_s8": CLAMPED,
    "k_max_pool_2d_s8": CLAMPED,
    "k_mean_s8": CLAMPED,
    "k_mul_s8": CLAMPED,
    "k_pad_8": ("layer->value", "(int8_t)(layer->value ^ 1)"),
    "k_softmax_s8": CLAMPED,
    "k_table_8": ("table[x[i]]", "table[x[i] ^ 1]"),
}
CALLED_BY = {"k_gemm_s8": ("k_gemm_s8(", "k_conv_2d_s8(")}


def every_kernel() -> QGraph:
    """One graph that uses every portable kernel, CONV_2D late enough to tell it from 1x1."""
    b = Builder(np.random.default_rng(2), "every")
    x = b.input((1, 8, 8, 3))
    y = b.depthwise(x, activation="RELU")
    y = b.conv(b.conv(y, 8, stride=(2, 2)), 8, (1, 1))
    y = b.binary("MUL", b.binary("SUB", y, b.conv(y, 8, (1, 1))), b.unary("LOGISTIC", y))
    y = b.concatenate([y, b.pool(y, "MAX_POOL_2D", (3, 3), stride=(1, 1), padding="SAME")])
    y = b.pool(b.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    return b.graph(b.softmax(b.dense(b.mean(y), 5)))


def faulty(model: GeneratedModel, kernel: str) -> GeneratedModel:
    old, new = FAULTS[kernel]
    text = model.files[f"{kernel}.c"]
    assert old in text, f"{kernel}.c holds no {old!r}: plant another fault"
    return replace(model, files=model.files | {f"{kernel}.c": text.replace(old, new)})


def first_user(model: GeneratedModel, kernel: str) -> str:
    """The first layer whose function calls the kernel."""
    wanted = CALLED_BY.get(kernel, (f"{kernel}(",))
    bodies = model.files["model.c"].split("\nvoid model_layer_")[1:]
    found = next(body for body in bodies if any(f"    {call}" in body for call in wanted))
    return f"model_layer_{found.split('(')[0]}"


@pytest.mark.parametrize("kernel", sorted(FAULTS))
def test_a_planted_fault_is_found_in_its_layer(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    graph = every_kernel()
    model = generate(graph)
    inputs = inputs_for(graph, np.random.default_rng(3), 16)
    found = compare(graph, inputs, by_reference, by_host(faulty(model, kernel), clang, tmp_path)).first
    assert found is not None, "the fault changes no byte"
    assert f"model_layer_{found.op:02d}_{found.kind.lower()}" == first_user(model, kernel)
    assert found.a != found.b and found.differing >= 1
    assert len(found.position) == len(graph.tensors[graph.ops[found.op].outputs[0]].shape) - 1


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("family", ["portable", "dsp"])
def test_a_fault_is_found_on_the_core_too(family: str, clang: Compiler, tmp_path: Path) -> None:
    graph = small_net(np.random.default_rng(1))
    model, target = generate(graph, family), load_target("mcu-sim", [ROOT / "targets"])
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    sound = compare(graph, inputs, by_reference, by_core(model, clang, target, tmp_path / "sound"))
    assert sound.first is None and len(sound.compared) == 7  # all but the RESHAPE
    broken = by_core(faulty(model, "k_softmax_s8"), clang, target, tmp_path / "broken")
    found = compare(graph, inputs, by_reference, broken).first
    assert found is not None and (found.op, found.kind) == (7, "SOFTMAX") and found.b == found.a + 1


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
    assert compare(graph, inputs, by_reference, _by_tflm).first is None
    found = compare(graph, inputs, by_reference, run_litert).first
    assert found is None or (found.kind == "FULLY_CONNECTED" and abs(found.a - found.b) == 1)


def test_the_accumulator_is_the_exact_sum() -> None:
    """Requantized, it gives the output, for each kind of linear layer (an average over positions)."""
    from edgekd.qgraph.arithmetic import multiply_by_quantized_multiplier
    from edgekd.qgraph.reference import run_all
    from edgekd.qgraph.requantize import activation_range

    graph = every_kernel()
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    values, rng = run_all(graph, inputs), np.random.default_rng(4)
    seen = set()
    for index, op in enumerate(graph.ops):
        output = graph.tensors[op.outputs[0]]
        where = (1, *(int(rng.integers(0, n)) for n in output.shape[1:]))
        total = accumulator(graph, inputs, index, where)
        if total is None:
            continue
        seen.add(op.kind)
        multipliers, shifts = channel_multipliers(graph, op)
        channel = where[-1] if len(multipliers) > 1 else 0
        scaled = multiply_by_quantized_multiplier(np.array([total]), multipliers[channel], shifts[channel])
        low, high = activation_range(output, str(op.attrs["activation"]))
        assert int(np.clip(scaled + output.zero_point, low, high)[0]) == int(values[op.outputs[0]][where])
    assert seen == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def test_what_cannot_be_compared_is_refused(clang: Compiler, tmp_path: Path) -> None:
    graph = small_net(np.random.default_rng(1))
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    with pytest.raises(ArtifactError, match="no layer in common"):
        compare(graph, inputs, by_reference, lambda g, x: {})
    with pytest.raises(ArtifactError, match="gives 3 elements where the layer has"):
        compare(graph, inputs, by_reference, lambda g, x: {0: np.zeros(3, np.int8)})
    with pytest.raises(ConfigError, match="rpi4 has no core"):
        by_core(generate(graph), clang, load_target("rpi4", [ROOT / "targets"]), tmp_path)
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 6))
    only = b.graph(b.reshape(x, (1, 2, 3)))
    with pytest.raises(ArtifactError, match="no layer to look at"):
        instrument(generate(only), only)


def test_a_comparison_is_json() -> None:
    graph = small_net(np.random.default_rng(1))
    inputs = inputs_for(graph, np.random.default_rng(3), 2)
    assert (
        json.loads(json.dumps(compare(graph, inputs, by_reference, by_reference).as_json()))["first"] is None
    )
