"""CONV_2D_ADD, a convolution and the ADD of its output: the two ops that it stands for.

Passes alone make it. Inputs: image, weights, bias (-1: none), and the tensor that is added, of the output's
shape. Attributes: those of the convolution, `sum_activation` of the ADD, and what the tensor between the two
is quantized to: `between_scale` (the float32's value) and `between_zero_point`. ADD gives the same byte in
either order of its operands, so the order is not kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgekd.qgraph.ir import Op, QGraph

KIND = "CONV_2D_ADD"
OTHER = 3  # the input that is added
OWN = ("between_scale", "between_zero_point", "sum_activation")


def fused(graph: QGraph, conv: Op, add: Op) -> Op:
    """One op in place of a CONV_2D and the ADD (of two tensors) that reads its output."""
    between = graph.tensors[conv.outputs[0]]
    (other,) = (i for i in add.inputs if i != conv.outputs[0])
    bias = conv.inputs[2] if len(conv.inputs) > 2 else -1
    attrs: dict[str, Any] = {
        **conv.attrs,
        "between_scale": float(between.scale[0]),
        "between_zero_point": between.zero_point,
        "sum_activation": add.attrs["activation"],
    }
    return Op(KIND, (*conv.inputs[:2], bias, other), add.outputs, attrs)


def unfused(graph: QGraph, index: int) -> QGraph:
    """The graph with CONV_2D as op `index` and ADD as the next; the tensor between them is the last one."""
    op = graph.ops[index]
    output = graph.tensors[op.outputs[0]]
    given, zero_point = op.attrs["between_scale"], op.attrs["between_zero_point"]
    assert isinstance(given, float) and isinstance(zero_point, int)
    between = replace(output, scale=np.array([given], np.float32), zero_point=zero_point)
    last = len(graph.tensors)
    conv_attrs = {name: value for name, value in op.attrs.items() if name not in OWN}
    conv = Op("CONV_2D", op.inputs[:OTHER], (last,), conv_attrs)
    add = Op("ADD", (last, op.inputs[OTHER]), op.outputs, {"activation": op.attrs["sum_activation"]})
    ops = (*graph.ops[:index], conv, add, *graph.ops[index + 1 :])
    return replace(graph, tensors=(*graph.tensors, between), ops=ops)
