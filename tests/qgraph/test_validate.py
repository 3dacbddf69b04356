"""Each rule of `validate` refuses what it should, in one sentence that names the op and its layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.validate import validate
from tests import graphs
from tests.graphs import Builder

SCALE = np.array([0.04], np.float32)
FOUR = np.ones(4, np.float32)
HUGE = np.full(5, 1e25, np.float32)


def one_op(kind: str) -> QGraph:
    """A graph whose last op is of this kind; inputs [1, 8, 6, 4]."""
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 8, 6, 4), scale=0.05, zero_point=3)
    make: dict[str, Callable[[], int]] = {
        "CONV_2D": lambda: b.conv(x, 5),
        "DEPTHWISE_CONV_2D": lambda: b.depthwise(x),
        "FULLY_CONNECTED": lambda: b.dense(x, 5),
        "MEAN": lambda: b.mean(x),
        "PAD": lambda: b.pad(x, [[0, 0], [1, 1], [0, 1], [0, 0]]),
        "CONCATENATION": lambda: b.concatenate([x, x]),
        "RESHAPE": lambda: b.reshape(x, (1, 192)),
        "SOFTMAX": lambda: b.softmax(x),
        "AVERAGE_POOL_2D": lambda: b.pool(x),
        "MAX_POOL_2D": lambda: b.pool(x, "MAX_POOL_2D"),
        "QUANTIZE": lambda: b.quantize(x),
        "DEQUANTIZE": lambda: b.dequantize(x),
    }
    for unary in ("RELU", "RELU6", "LOGISTIC", "TANH"):
        make[unary] = lambda kind=unary: b.unary(kind, x)  # type: ignore[misc]
    for binary in ("ADD", "SUB", "MUL"):
        make[binary] = lambda kind=binary: b.binary(kind, x, x)  # type: ignore[misc]
    return b.graph(make[kind]())


def with_attrs(graph: QGraph, **attrs: Any) -> QGraph:
    op = graph.ops[-1]
    return replace(graph, ops=(*graph.ops[:-1], replace(op, attrs={**op.attrs, **attrs})))


def with_op(graph: QGraph, **changes: Any) -> QGraph:
    return replace(graph, ops=(*graph.ops[:-1], replace(graph.ops[-1], **changes)))


def with_tensor(graph: QGraph, role: int | str, **changes: Any) -> QGraph:
    """Change input `role` of the last op, or its "output"."""
    op = graph.ops[-1]
    index = op.outputs[0] if isinstance(role, str) else op.inputs[role]
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(graph, tensors=tuple(tensors))


def constant(values: object, dtype: str = "int32") -> dict[str, Any]:
    data = np.array(values, dtype)
    return {"data": data, "shape": data.shape, "dtype": dtype}


ZEROS = np.zeros((5, 3, 3, 2), np.int8)

# (kind, what is changed, what the sentence says)
RULES: list[tuple[str, Callable[[QGraph], QGraph], str]] = [
    ("ADD", lambda g: with_op(g, kind="FLOOR_MOD"), "FLOOR_MOD .* cannot run"),
    ("ADD", lambda g: with_attrs(g, axis=1), "attributes"),
    ("ADD", lambda g: with_op(g, inputs=(0,)), "1 inputs"),
    ("ADD", lambda g: with_op(g, inputs=(0, -1)), "lacks an input"),
    ("ADD", lambda g: with_attrs(g, activation="RELU_N1_TO_1"), "RELU_N1_TO_1"),
    ("ADD", lambda g: with_tensor(g, "output", dtype="float32"), "float32"),
    ("ADD", lambda g: with_tensor(g, "output", shape=(1, 8, 6, 5)), r"\(1, 8, 6, 4\)"),
    ("ADD", lambda g: with_tensor(g, "output", scale=SCALE * np.float32(1e-7)), "differ too much"),
    ("SUB", lambda g: with_tensor(g, "output", scale=SCALE * np.float32(1e-7)), "differ too much"),
    ("MUL", lambda g: with_tensor(g, "output", scale=SCALE * np.float32(1e-12)), "differ too much"),
    ("ADD", lambda g: with_tensor(g, "output", scale=np.zeros(0, np.float32)), "0 scales"),
    ("ADD", lambda g: with_tensor(g, "output", scale=FOUR, axis=3, zero_point=0), "4 scales"),
    ("ADD", lambda g: with_tensor(g, "output", zero_point=200), "zero point 200"),
    ("ADD", lambda g: with_tensor(g, "output", scale=np.array([1e-30], np.float32)), "out of reach"),
    ("ADD", lambda g: with_tensor(g, "output", scale=np.array([0.1])), "float32"),
    ("CONV_2D", lambda g: with_attrs(g, padding="FULL"), "neither SAME nor VALID"),
    ("CONV_2D", lambda g: with_attrs(g, stride_h=0), "stride_h is 0"),
    ("CONV_2D", lambda g: with_attrs(g, stride_h=True), "not a whole number"),
    ("CONV_2D", lambda g: with_attrs(g, stride_h=2), "should be"),
    ("CONV_2D", lambda g: with_attrs(g, dilation_w=9, padding="VALID"), "larger than the image"),
    ("CONV_2D", lambda g: with_attrs(g, dilation_w=1000), "too large"),
    ("CONV_2D", lambda g: with_tensor(g, 1, data=ZEROS, shape=ZEROS.shape), "groups"),
    ("CONV_2D", lambda g: with_tensor(g, 1, zero_point=1), "zero point 1"),
    ("CONV_2D", lambda g: with_tensor(g, 1, data=None), "before it is written"),
    ("CONV_2D", lambda g: with_tensor(g, 1, dtype="uint8"), "int8 data in a tensor of dtype uint8"),
    ("CONV_2D", lambda g: with_tensor(g, 1, scale=FOUR, axis=3), "axis 3"),
    ("CONV_2D", lambda g: with_tensor(g, 1, scale=HUGE), "differ too much"),
    ("CONV_2D", lambda g: with_tensor(g, 2, **constant([1, 2])), "scales"),
    ("CONV_2D", lambda g: with_tensor(g, 2, **constant([1] * 5, "int64")), "int64"),
    ("CONV_2D", lambda g: with_tensor(g, 2, scale=np.ones(1, np.float32)), "bias's scale"),
    ("CONV_2D", lambda g: with_tensor(g, 2, scale=np.zeros(0, np.float32)), "0 scales"),
    ("CONV_2D", lambda g: with_op(g, inputs=(*g.ops[0].inputs, 0)), "4 inputs"),
    ("DEPTHWISE_CONV_2D", lambda g: with_attrs(g, depth_multiplier=2), "1, H, W, 8"),
    ("FULLY_CONNECTED", lambda g: with_tensor(g, "output", shape=(1, 1, 5)), "should be"),
    ("AVERAGE_POOL_2D", lambda g: with_attrs(g, filter_h=0), "filter_h is 0"),
    ("AVERAGE_POOL_2D", lambda g: with_tensor(g, "output", zero_point=4), "equal scale and zero point"),
    ("MAX_POOL_2D", lambda g: with_tensor(g, "output", scale=SCALE), "equal scale and zero point"),
    ("MEAN", lambda g: with_tensor(g, 1, **constant([1])), r"axes \[1\]"),
    ("MEAN", lambda g: with_tensor(g, 1, **constant([1, 3])), r"axes \[1, 3\]"),
    ("MEAN", lambda g: with_tensor(g, 1, **constant([1, 2], "int64")), "int32"),
    ("MEAN", lambda g: with_attrs(g, keep_dims=True), r"\(1, 1, 1, 4\)"),
    ("MEAN", lambda g: with_attrs(g, keep_dims=1), "not true or false"),
    ("PAD", lambda g: with_tensor(g, 1, **constant([[1, 0], [1, 1], [0, 1], [0, 0]])), "batch"),
    ("PAD", lambda g: with_tensor(g, 1, **constant([[0, 0], [-1, 1], [0, 1], [0, 0]])), "paddings are"),
    ("PAD", lambda g: with_tensor(g, 1, **constant([[0, 0]])), "paddings have shape"),
    ("PAD", lambda g: with_tensor(g, "output", scale=SCALE), "equal scale"),
    ("CONCATENATION", lambda g: with_attrs(g, axis=0), "axis 0"),
    ("CONCATENATION", lambda g: with_attrs(g, axis=4), "axis 4"),
    ("CONCATENATION", lambda g: with_attrs(g, axis=2), "differ on axis 3"),
    ("CONCATENATION", lambda g: with_attrs(g, activation="RELU"), "fused activation"),
    ("CONCATENATION", lambda g: with_op(g, inputs=(0,) * 11), "11 inputs"),
    ("CONCATENATION", lambda g: with_tensor(g, "output", scale=SCALE), "equal scale"),
    ("RESHAPE", lambda g: with_tensor(g, "output", shape=(1, 191)), "number of elements"),
    ("RESHAPE", lambda g: with_tensor(g, "output", shape=(2, 96)), "batch 1"),
    ("RESHAPE", lambda g: with_tensor(g, "output", scale=SCALE), "equal scale"),
    ("SOFTMAX", lambda g: with_tensor(g, "output", scale=SCALE), "scale 0.00390625"),
    ("SOFTMAX", lambda g: with_attrs(g, beta=0.0), "beta is 0.0"),
    ("SOFTMAX", lambda g: with_tensor(g, 0, scale=np.array([1e-12], np.float32)), "too small"),
    ("LOGISTIC", lambda g: with_tensor(g, "output", zero_point=0), "zero point -128"),
    ("TANH", lambda g: with_tensor(g, "output", scale=SCALE), "scale 0.0078125"),
    ("TANH", lambda g: with_tensor(g, 0, scale=np.array([1e-9], np.float32)), "too small or too large"),
    ("RELU", lambda g: with_tensor(g, "output", scale=SCALE * np.float32(1e-12)), "differ too much"),
    ("RELU6", lambda g: with_tensor(g, "output", scale=SCALE), "equal scale"),
    ("QUANTIZE", lambda g: with_tensor(g, "output", dtype="float32"), "int8 to float32"),
    ("QUANTIZE", lambda g: with_tensor(g, "output", shape=(1, 192)), "should be"),
    ("DEQUANTIZE", lambda g: with_tensor(g, "output", dtype="int8", scale=SCALE), "int8 to int8"),
    ("ADD", lambda g: replace(g, inputs=()), "0 inputs"),
    ("ADD", lambda g: replace(g, outputs=()), "0 outputs"),
    ("ADD", lambda g: replace(g, outputs=(99,)), "99"),
    ("ADD", lambda g: with_tensor(g, 0, shape=(1, 1 << 20, 1 << 20)), "too large"),
    ("ADD", lambda g: with_tensor(g, 0, shape=(1,) * 7), "7 axes"),
    ("ADD", lambda g: with_tensor(g, 0, dtype="float16"), "float16"),
    ("ADD", lambda g: with_tensor(g, 0, shape=(3, 8, 6, 4)), "batch 1"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RULES)))
def test_refuses(number: int) -> None:
    kind, change, sentence = RULES[number]
    graph = change(one_op(kind))
    with pytest.raises(UnsupportedOpError, match=sentence) as caught:
        validate(graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
def test_two_constants_are_refused(kind: str) -> None:
    b = Builder(np.random.default_rng(1))
    x = b.input((1, 3))
    one, other = (b.constant(np.ones((1, 3), np.int8), SCALE) for _ in range(2))
    output = b.activation((1, 3), 0.1)
    b.ops.append(Op(kind, (one, other), (output,), {"activation": "NONE"}))
    with pytest.raises(UnsupportedOpError, match="both inputs are constant"):
        b.graph(b.binary("ADD", x, output))


def test_a_sentence_names_op_layer_and_shapes() -> None:
    graph = with_attrs(one_op("CONV_2D"), stride_h=2)
    with pytest.raises(UnsupportedOpError) as caught:
        validate(graph)
    assert str(caught.value).startswith(
        "graph test: op 0 CONV_2D (t3), (1, 8, 6, 4), (5, 3, 3, 4), (5,) -> (1, 8, 6, 5): "
    )


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_sound(seed: int) -> None:
    validate(graphs.random_graph(np.random.default_rng(seed)))
