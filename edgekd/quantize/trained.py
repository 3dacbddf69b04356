"""The scales of a student that was trained with the quantizer, on the tensors of its float ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.errors import VerifyError
from edgekd.qgraph.rounding import Grid
from edgekd.quantize.overrides import Overrides, entry

# What a student's layer becomes; all else in the file is a ReLU or a change of shape.
_MAIN = ("Conv", "Gemm", "MatMul", "Add", "ReduceMean", "GlobalAveragePool")


@dataclass(frozen=True, eq=False)
class Trained:
    """grids: of the weights by their name. activations: (scale, zero point) of input and layers, in order."""

    grids: Mapping[str, Grid]
    activations: tuple[tuple[float, int], ...]


def trained_overrides(model: Any, trained: Trained) -> Overrides:
    """Scale and zero point by tensor. Raises VerifyError where the model has other layers."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    weights = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    if weights != list(trained.grids):
        raise VerifyError("the exported model's layers are not in the student's order; export it anew")
    names = [model.graph.input[0].name]
    for node in model.graph.node:
        if node.op_type in _MAIN:
            output = node.output[0]
            behind = readers.get(output, [])
            names.append(behind[0].output[0] if [n.op_type for n in behind] == ["Relu"] else output)
    if len(names) != len(trained.activations):
        raise VerifyError(
            f"the exported model has {len(names)} activations and the trained student "
            f"{len(trained.activations)}; export it with layers that ONNX keeps apart"
        )
    pairs = zip(names, trained.activations, strict=True)
    return {name: [entry(scale, zero_point)] for name, (scale, zero_point) in pairs}
