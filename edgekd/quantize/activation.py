"""The activation type of a QDQ model: uint8 with zero point + 128 holds the same integers as int8.

ONNX Runtime's x86 kernels are made for uint8 activations (int8 ones stay in float between Q and DQ);
on Arm both are fast. Weights stay int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.errors import ArtifactError


def uint8_variant(int8_onnx: bytes) -> bytes:
    """`int8_onnx` with every activation as uint8; what it computes stays the same up to rounding.

    Raises ArtifactError when the bytes are no QDQ model.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto, numpy_helper

    try:
        model = onnx.load_model_from_string(int8_onnx)
    except DecodeError:
        raise ArtifactError("the int8 model is not valid ONNX; quantize it again") from None
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in constants:
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None or zero_point.data_type != TensorProto.INT8:
            continue
        if zero_point.name not in renamed:
            values = numpy_helper.to_array(zero_point).astype(np.int16) + 128
            renamed[zero_point.name] = f"{zero_point.name}_uint8"
            graph.initializer.append(
                numpy_helper.from_array(values.astype(np.uint8), renamed[zero_point.name])
            )
        node.input[2] = renamed[zero_point.name]
    if not renamed:
        raise ArtifactError("the model has no int8 activations; give an int8 QDQ model")
    _drop_unused(graph)
    _retype(graph)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _drop_unused(graph: Any) -> None:
    """Remove initializers that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _retype(graph: Any) -> None:
    """Intermediate types were inferred for int8; let the runtime infer them again."""
    del graph.value_info[:]
