"""What zero weights save on a device, by the compiler's own figures: the model beside itself without zeros.

A kernel multiplies by a zero as by any number. What goes are whole channels whose every weight is zero
(edgekd.qgraph.passes.constant_channels), and nothing else; so the difference is counted, not estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgekd.mcu.codegen import GeneratedModel
from edgekd.qgraph.ir import QGraph

# Below this share nobody has pruned: quantization alone makes a few percent of the weights zero.
WORTH_TELLING = 0.1
_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def count_zeros(graph: QGraph) -> tuple[int, int]:
    """(zero weights, all weights) of the linear ops; biases are no weights."""
    arrays = [np.asarray(graph.tensors[index].data) for index in _weights(graph)]
    return sum(int((array == 0).sum()) for array in arrays), sum(array.size for array in arrays)


def is_sparse(graph: QGraph) -> bool:
    """Whether so many weights are zero that somebody meant it."""
    zero, every = count_zeros(graph)
    return every > 0 and zero >= WORTH_TELLING * every


def without_zeros(graph: QGraph) -> QGraph:
    """The same graph with 1 in place of each zero weight: other answers, and the cost of a dense model.

    Weights that are stored as indices stay as they are.
    """
    tensors = list(graph.tensors)
    for index in _weights(graph):
        tensor = tensors[index]
        if tensor.encoding is None:
            data = np.asarray(tensor.data)
            tensors[index] = replace(tensor, data=np.where(data == 0, data.dtype.type(1), data))
    return replace(graph, tensors=tuple(tensors))


def saved(sparse: Mapping[str, GeneratedModel], dense: Mapping[str, GeneratedModel]) -> list[dict[str, Any]]:
    """[{family, weight_bytes, macs}]: what the zeros save in each family's C."""
    return [
        {
            "family": family,
            "weight_bytes": _bytes(dense[family]) - _bytes(model),
            "macs": _macs(dense[family]) - _macs(model),
        }
        for family, model in sparse.items()
    ]


def _weights(graph: QGraph) -> list[int]:
    """The constant weight tensors of the linear ops, each once."""
    found = [op.inputs[1] for op in graph.ops if op.kind in _LINEAR]
    return [index for index in dict.fromkeys(found) if graph.tensors[index].is_constant]


def _bytes(model: GeneratedModel) -> int:
    return model.weights.bytes if model.weights.arrays else 0


def _macs(model: GeneratedModel) -> int:
    return sum(layer.macs for layer in model.layers)
