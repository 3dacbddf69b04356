"""Equal ops once, equal constants once, every byte as before; dead and constant ops go."""

from __future__ import annotations

import numpy as np

from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.common_subexpressions import merge_common_subexpressions
from edgekd.qgraph.passes.constant_ops import fold_constant_ops
from edgekd.qgraph.passes.dead_ops import remove_dead_ops
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds


def again(b: Builder, tensor: int) -> int:
    """The op that wrote `tensor` once more, with constants of its own."""
    op = next(op for op in b.ops if op.outputs[0] == tensor)
    inputs = tuple(b.add(b.tensors[i]) if i != -1 and b.tensors[i].is_constant else i for i in op.inputs)
    return b.op(op.kind, inputs, b.add(b.tensors[tensor]), **op.attrs)


def test_a_repeated_branch_is_computed_once() -> None:
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 5, 5, 3))
    y = b.conv(x, 4)
    z = again(b, y)
    graph = b.graph(b.binary("ADD", b.unary("TANH", y), b.unary("TANH", z)))
    changed = merge_common_subexpressions(graph)
    assert changed.report == "2 ops that repeat another: merged; 2 constants (124 bytes) stored once"
    assert kinds(changed.graph) == {"CONV_2D": 1, "TANH": 1, "ADD": 1}
    assert not differ(graph, changed.graph)


def test_other_attributes_inputs_and_quantization_are_other_ops() -> None:
    b = Builder(np.random.default_rng(2))
    x, y = b.input((1, 4, 4, 2)), b.input((1, 4, 4, 2))
    maxima = [b.pool(x, "MAX_POOL_2D"), b.pool(y, "MAX_POOL_2D"), b.pool(x, "MAX_POOL_2D", stride=(1, 1))]
    graph = b.graph(*maxima, b.unary("RELU", x), b.unary("RELU", x))  # random scales
    assert not merge_common_subexpressions(graph).changed


def test_outputs_keep_their_own_tensors() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 6))
    first, second = b.unary("TANH", x), b.unary("TANH", x)
    both = b.graph(first, second)
    assert not merge_common_subexpressions(both).changed
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 6))
    first = b.unary("TANH", x)
    used = b.unary("RELU", first)
    second = b.unary("TANH", x)
    one = b.graph(used, second)
    changed = merge_common_subexpressions(one)
    assert kinds(changed.graph) == {"TANH": 1, "RELU": 1} and changed.graph.outputs == one.outputs
    assert not differ(one, changed.graph)


def test_equal_weights_are_kept_once() -> None:
    b = Builder(np.random.default_rng(4))
    x, y = b.input((1, 5, 5, 3), scale=0.05, zero_point=3), b.input((1, 5, 5, 3), scale=0.05, zero_point=3)
    one = b.conv(x, 4)
    op = b.ops[-1]
    copies = tuple(b.add(b.tensors[i]) for i in op.inputs[1:])
    other = b.op(op.kind, (y, *copies), b.add(b.tensors[one]), **op.attrs)
    graph = b.graph(one, other)
    changed = merge_common_subexpressions(graph)
    assert changed.report.endswith("2 constants (124 bytes) stored once")
    assert changed.graph.ops[0].inputs[1:] == changed.graph.ops[1].inputs[1:]
    assert not differ(graph, changed.graph)


def test_ops_that_nobody_reads_go() -> None:
    b = Builder(np.random.default_rng(5))
    x = b.input((1, 5, 5, 3))
    b.unary("TANH", b.conv(x, 4))
    graph = b.graph(b.unary("RELU", x))
    changed = remove_dead_ops(graph)
    assert changed.report == "2 unused ops: removed" and kinds(changed.graph) == {"RELU": 1}
    assert not differ(graph, changed.graph)
    assert not remove_dead_ops(changed.graph).changed


def constant_operand() -> QGraph:
    """An operand that ops make of constants: RESHAPE, PAD, RELU, QUANTIZE, then ADD with the input."""
    b = Builder(np.random.default_rng(6))
    x = b.input((1, 4, 3, 5))
    c = b.constant(np.arange(-20, 25).astype(np.int8), np.array([0.1], np.float32), 4)
    c = b.reshape(c, (1, 3, 3, 5))
    c = b.pad(c, [[0, 0], [1, 0], [0, 0], [0, 0]])
    c = b.quantize(b.unary("RELU", b.concatenate([c, c], 3)))
    return b.graph(b.binary("ADD", b.concatenate([x, x], 3), c))


def test_ops_of_constants_alone_are_computed() -> None:
    graph = constant_operand()
    changed = fold_constant_ops(graph)
    assert changed.report == "5 ops of constants alone: computed when compiling"
    assert kinds(changed.graph) == {"CONCATENATION": 1, "ADD": 1}
    assert not differ(graph, changed.graph)


def test_an_output_made_of_constants_stays_an_op() -> None:
    b = Builder(np.random.default_rng(7))
    x = b.input((1, 5))
    c = b.constant(np.array([[1, 2, 3]], np.int8), np.array([0.1], np.float32))
    graph = b.graph(b.unary("TANH", x), b.unary("RELU6", b.unary("TANH", c)))
    changed = fold_constant_ops(graph)
    assert kinds(changed.graph) == {"TANH": 1, "RELU6": 1} and not differ(graph, changed.graph)
