"""The memory plan: nothing alive overlaps, bytes are shared only where it is legal, the bound is a bound."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.mcu.codegen import generate
from edgekd.mcu.placement import EXACT_NODES, SEARCH_ROUNDS
from edgekd.mcu.plan import Plan, _plan, operand_starts, plan
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import Builder, random_graph
from tests.random_graphs import wide_graph

ELEMENTWISE = ("ADD", "SUB", "MUL", "RELU", "RELU6", "LOGISTIC", "TANH", "SOFTMAX", "QUANTIZE")


def blocks_hold_everything(graph: QGraph, where: Plan, scratch: dict[int, int]) -> None:
    """Every tensor and scratch lies in the block that names it; the blocks alive together are apart."""
    for index, offset in where.offsets.items():
        (block,) = [block for block in where.blocks if index in block.tensors]
        end = block.offset_bytes + block.size_bytes
        assert block.offset_bytes <= offset and offset + graph.tensors[index].nbytes <= end
    for step, offset in where.scratch.items():
        (block,) = [block for block in where.blocks if block.scratch == step]
        assert (block.offset_bytes, block.first, block.last) == (offset, step, step)
        assert scratch[step] <= block.size_bytes
    for i, one in enumerate(where.blocks):
        for other in where.blocks[:i]:
            if one.first <= other.last and other.first <= one.last:
                assert max(one.offset_bytes, other.offset_bytes) >= min(
                    b.offset_bytes + b.size_bytes for b in (one, other)
                )


def simulate(graph: QGraph, scratch: dict[int, int]) -> None:
    """Run the plan as an owner map of bytes: each op finds its inputs' bytes as they were written."""
    where = plan(graph, scratch)
    blocks_hold_everything(graph, where, scratch)
    arena = np.full(where.arena_bytes, -1)
    value: dict[int, np.ndarray] = {}  # tensor -> the stamps that its bytes carry
    fresh = count()

    def write(index: int, stamps: np.ndarray | None = None) -> None:
        tensor, start = graph.tensors[index], where.offsets[index]
        assert start + tensor.nbytes <= where.arena_bytes
        value[index] = np.full(tensor.nbytes, next(fresh)) if stamps is None else stamps
        arena[start : start + tensor.nbytes] = value[index]

    def holds(index: int) -> bool:
        start = where.offsets[index]
        return np.array_equal(arena[start : start + graph.tensors[index].nbytes], value[index])

    for index in graph.inputs:
        write(index)
    for step, op in enumerate(graph.ops):
        read = [i for i in op.inputs if i in value]
        assert all(holds(i) for i in read), f"op {step} finds an input overwritten"
        if step in where.scratch:
            arena[where.scratch[step] : where.scratch[step] + scratch[step]] = -2
            assert all(holds(i) for i in read), f"op {step}'s scratch lies over its input"
        output, moved = op.outputs[0], None
        if op.kind == "RESHAPE" or (operand_starts(graph, op) and len(read) == len(op.inputs)):
            moved = np.concatenate([value[i] for i in read])
        write(output, moved)
        for i in read:
            in_place = op.kind in ELEMENTWISE and where.offsets[i] == where.offsets[output]
            assert in_place or holds(i), f"op {step} writes over an input that it still reads"
    assert all(holds(i) for i in graph.outputs), "an output is overwritten"


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ops=st.integers(1, 12))
def test_every_op_finds_its_inputs_whole(seed: int, ops: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, ops)
    simulate(graph, {int(i): int(rng.integers(1, 300)) for i in rng.choice(ops, ops // 2, replace=False)})


def test_shared_tensors_and_outputs_in_the_middle_survive() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 4, 4, 2))
    early = b.unary("RELU", x)
    alias = b.reshape(early, (1, 32))
    late = b.unary("TANH", alias)  # must not run in place: `early` is an output and shares the bytes
    total = b.binary("ADD", x, b.reshape(late, (1, 4, 4, 2)))  # x is read again after RELU
    simulate(b.graph(early, total, late), {})


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_op_of_a_wide_graph_finds_its_inputs_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = wide_graph(rng)
    count_of = len(graph.ops)
    simulate(graph, {int(i): int(rng.integers(1, 300)) for i in rng.choice(count_of, count_of // 2)})


def blocks(b: Builder, x: int, count_of: int, channels: int = 4) -> list[int]:
    parts = [b.conv(x, channels, (1, 1)) for _ in range(count_of)]
    for part in parts[1:]:
        b.tensors[part] = replace(b.tensors[parts[0]], name=b.tensors[part].name)
    return parts


def test_operands_lie_where_the_concatenation_wants_them() -> None:
    b = Builder(np.random.default_rng(1))
    one, two, three = blocks(b, b.input((1, 4, 4, 2)), 3)
    inner = b.concatenate([one, two], 1)
    graph = b.graph(b.concatenate([inner, three], 1))
    where = plan(graph)
    start = where.offsets[graph.outputs[0]]
    assert [where.offsets[i] - start for i in (one, two, inner, three)] == [0, 64, 0, 128]
    simulate(graph, {})
    assert "k_copy_rows_8" not in generate(graph).files["model.c"]
    assert [layer.op for layer in generate(graph).layers] == ["CONV_2D"] * 3


def test_a_channel_axis_an_odd_start_and_a_repeated_operand_are_copied() -> None:
    b = Builder(np.random.default_rng(1))
    parts = blocks(b, b.input((1, 4, 4, 2)), 2)
    assert generate(b.graph(b.concatenate(parts, 3))).files["model.c"].count("k_copy_rows_8(") == 2
    b = Builder(np.random.default_rng(1))
    parts = blocks(b, b.input((1, 3, 3, 2)), 2, channels=3)  # 27 bytes: the second begins at no word
    assert generate(b.graph(b.concatenate(parts, 1))).files["model.c"].count("k_copy_rows_8(") == 1
    b = Builder(np.random.default_rng(1))
    part = blocks(b, b.input((1, 4, 4, 2)), 1)[0]
    graph = b.graph(b.concatenate([part, part], 1))
    assert generate(graph).files["model.c"].count("k_copy_rows_8(") == 1
    simulate(graph, {})


def test_no_memory_is_paid_for_a_copy_that_is_saved() -> None:
    """An early operand inside a large output would hold the output's bytes all the while."""
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 8, 8, 4))
    early, late = blocks(b, b.pool(x), 2)
    wide = b.depthwise(b.depthwise(x, multiplier=2))
    late = b.conv(b.pool(wide, "MAX_POOL_2D", (2, 2)), 4, (1, 1))
    b.tensors[late] = replace(b.tensors[early], name="late")
    tall = b.pad(late, [[0, 0], [0, 8], [0, 0], [0, 0]])
    graph = b.graph(b.concatenate([early, tall], 1))
    simulate(graph, {})
    apart, joined = (
        _plan(graph, {}, frozenset(steps), SEARCH_ROUNDS, EXACT_NODES) for steps in ((), [len(graph.ops) - 1])
    )
    assert plan(graph) == apart and joined.arena_bytes > apart.arena_bytes


def test_elementwise_chains_and_reshapes_take_no_new_bytes() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 4, 4, 2))
    y = b.unary("TANH", b.unary("RELU", x))
    y = b.binary("MUL", y, b.constant(np.full((1,), 3, np.int8), np.array([0.1], np.float32)))
    where = plan(b.graph(b.softmax(b.reshape(y, (1, 32)))))
    assert (where.arena_bytes, where.lower_bound_bytes, where.gap_bytes) == (32, 32, 0)


def test_a_broadcast_operand_is_not_overwritten() -> None:
    b = Builder(np.random.default_rng(0))
    small, large = b.input((1, 1, 1, 2)), b.input((1, 4, 4, 2))
    graph = b.graph(b.binary("ADD", small, large))
    where = plan(graph)
    assert where.offsets[graph.outputs[0]] == where.offsets[large]


def test_same_graph_same_plan() -> None:
    graph = random_graph(np.random.default_rng(5), 12)
    assert plan(graph, {0: 100}) == plan(graph, {0: 100})


@pytest.mark.shared
@pytest.mark.parametrize(
    ("model", "arena_bytes"),
    [("ad01_int8", 768), ("kws_ref_model", 16000), ("pretrainedResnet_quant", 49152), ("vww_96_int8", 55296)],
)
def test_known_models_reach_the_bound(model: str, arena_bytes: int, shared: Path) -> None:
    path = shared / f"data/mlperf_tiny/models/{model}.tflite"
    where = plan(read_tflite(path.read_bytes(), model))
    assert (where.arena_bytes, where.gap_bytes, where.is_optimal) == (arena_bytes, 0, True)
