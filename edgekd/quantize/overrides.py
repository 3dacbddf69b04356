"""Where TFLite's specification fixes scales, and where it ties them together: overrides for the quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np

# Output scale and zero point that the specification fixes by operator.
FIXED_OUTPUTS = {
    "Sigmoid": (1.0 / 256.0, -128),
    "Softmax": (1.0 / 256.0, -128),
    "Tanh": (1.0 / 128.0, 0),
}
# Operators whose output the quantizer already gives its input's scale: a tie goes through them.
SAME_SCALE = ("AveragePool", "Flatten", "MaxPool", "Pad", "Reshape", "Squeeze", "Unsqueeze")
SMALLEST_SCALE = 2.0**-60  # of a tensor that is always zero

Overrides = dict[str, list[dict[str, Any]]]


def fixed_overrides(model: Any) -> Overrides:
    """Fixed output scales, and one scale a tensor for the weights of dense layers, by tensor name."""
    weights = {tensor.name for tensor in model.graph.initializer}
    overrides: Overrides = {}
    for node in model.graph.node:
        if node.op_type in FIXED_OUTPUTS:
            overrides[node.output[0]] = [entry(*FIXED_OUTPUTS[node.op_type])]
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            overrides[node.input[1]] = [{"symmetric": True}]
    return overrides


def tied_overrides(model: Any, quantized: Any) -> Overrides:
    """One scale for all inputs and the output of each Concat, which cannot rescale.

    The scale covers the union of the ranges that `quantized` (the model quantized without ties) found.
    """
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in SAME_SCALE}
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while name in sources:
            name = sources[name]
        while parent.get(name, name) != name:
            name = parent[name]
        return name

    for node in model.graph.node:
        if node.op_type == "Concat":
            for name in (*node.input, *node.output):
                parent[find(name)] = find(node.output[0])
    found = _activation_scales(quantized)
    groups: dict[str, set[str]] = {}
    for name in list(parent):
        groups.setdefault(find(name), set()).add(name)
    return {name: [_union(members, found)] for members in groups.values() for name in members}


def free_activations(model: Any, quantized: Any) -> list[str]:
    """The float tensors whose range may be chosen: those that `quantized` quantizes, that no rule decides."""
    bound = (*SAME_SCALE, *FIXED_OUTPUTS)
    ruled = {name for node in model.graph.node if node.op_type in bound for name in node.output}
    there = {name for node in model.graph.node for name in node.output} | {model.graph.input[0].name}
    found = [name.removesuffix("_QuantizeLinear_Input") for name in _activation_scales(quantized)]
    return [name for name in found if name in there and name not in ruled]


def affine(low: float, high: float) -> dict[str, Any]:
    """The override that holds low .. high (0 inside): s = (high - low) / 255, z = round(-128 - low / s)."""
    scale = max((high - low) / 255, SMALLEST_SCALE)
    return entry(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def _union(members: set[str], found: dict[str, tuple[float, int]]) -> dict[str, Any]:
    known = [found[name] for name in sorted(members) if name in found]
    low = min((-128 - zero_point) * scale for scale, zero_point in known)
    high = max((127 - zero_point) * scale for scale, zero_point in known)
    return affine(low, high)


def _activation_scales(quantized: Any) -> dict[str, tuple[float, int]]:
    """Scale and zero point by the name of each tensor behind which a QuantizeLinear stands."""
    from onnx import numpy_helper

    constants = {t.name: t for t in quantized.graph.initializer}
    found: dict[str, tuple[float, int]] = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            found[node.input[0]] = float(scale), int(zero_point)
    return found


def entry(scale: float, zero_point: int) -> dict[str, Any]:
    """The override that fixes an activation's scale and zero point."""
    return {"scale": np.array(scale, np.float32), "zero_point": np.array(zero_point, np.int8)}
