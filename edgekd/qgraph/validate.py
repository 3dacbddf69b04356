"""What a graph must satisfy before anything runs, writes or generates code from it: every check in one place.

Each reader ends here, so the reference, the writer and the code generators check nothing again. What is
refused is what TFLite Micro refuses or leaves undefined, and what the ops table does not hold.
`validate` looks at the graph as a whole; `validate_ops` holds the rules of each kind of op.
"""

from __future__ import annotations

import numpy as np

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import encoding
from edgekd.qgraph.ir import DTYPES, QGraph, Tensor
from edgekd.qgraph.validate_ops import check_op

_EDGE_DTYPES = ("int8", "uint8", "float32")
_ZERO_POINTS = {"int8": (-128, 127), "uint8": (0, 255), "int32": (0, 0)}
_MAX_RANK = 6
_MAX_TENSOR_BYTES = 1 << 31
_MAX_ELEMENTS = 1 << 27


def validate(graph: QGraph) -> None:
    """Raise UnsupportedOpError unless every consumer can rely on the graph.

    Ensured: all of `QGraph.check`; batch 1; sound quantization parameters on every int8 and uint8 tensor
    that an op uses; for each op its attributes, dtypes, shapes, tied scales, and multipliers within
    TFLite's ranges.
    """
    for index, tensor in enumerate(graph.tensors):
        _check_tensor(graph, index, tensor)
    for index, op in enumerate(graph.ops):
        if len(op.outputs) != 1:
            raise UnsupportedOpError(
                f"graph {graph.name}: op {index} {op.kind} has {len(op.outputs)} outputs, not one"
            )
    if not graph.inputs or not graph.outputs:
        raise UnsupportedOpError(
            f"graph {graph.name} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        )
    graph.check()
    _check_edges(graph)
    for index in range(len(graph.ops)):
        check_op(graph, index)


def _check_tensor(graph: QGraph, index: int, tensor: Tensor) -> None:
    where = f"graph {graph.name}, tensor {index} ({tensor.name})"
    if tensor.dtype not in DTYPES:
        raise UnsupportedOpError(f"{where} has dtype {tensor.dtype}, which is not supported")
    if len(tensor.shape) > _MAX_RANK:
        raise UnsupportedOpError(f"{where} has {len(tensor.shape)} axes; at most {_MAX_RANK} are supported")
    if tensor.elements > _MAX_ELEMENTS or tensor.nbytes > _MAX_TENSOR_BYTES:
        raise UnsupportedOpError(f"{where} of shape {tensor.shape} is too large for any small device")
    if tensor.data is not None and tensor.data.dtype != tensor.dtype:
        raise UnsupportedOpError(f"{where} has {tensor.data.dtype} data in a tensor of dtype {tensor.dtype}")
    if tensor.encoding is not None:
        encoding.check(tensor.encoding, tensor.data, where)
    _check_quantization(where, tensor)


def _check_quantization(where: str, tensor: Tensor) -> None:
    scale = tensor.scale
    if scale.dtype != np.float32 or scale.ndim != 1:
        raise UnsupportedOpError(f"{where}: scales are not a row of float32")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise UnsupportedOpError(
            f"{where}: a scale is zero, negative or not finite; quantize the model again"
        )
    if len(scale) == 1 and tensor.dtype in ("int8", "uint8") and not 1e-18 < scale[0] < 1e18:
        raise UnsupportedOpError(f"{where}: scale {scale[0]:.3g} is out of reach; quantize the model again")
    if len(scale) > 1:
        if not 0 <= tensor.axis < len(tensor.shape) or tensor.shape[tensor.axis] != len(scale):
            raise UnsupportedOpError(
                f"{where} of shape {tensor.shape} has {len(scale)} scales on axis {tensor.axis}"
            )
        if tensor.zero_point != 0:
            raise UnsupportedOpError(
                f"{where} has a scale per channel and zero point {tensor.zero_point}, not 0"
            )
    low, high = _ZERO_POINTS.get(tensor.dtype, (tensor.zero_point, tensor.zero_point))
    if len(scale) and not low <= tensor.zero_point <= high:
        raise UnsupportedOpError(f"{where} has zero point {tensor.zero_point}, outside {low} to {high}")


def _check_edges(graph: QGraph) -> None:
    if len(set(graph.inputs)) != len(graph.inputs):
        raise UnsupportedOpError(f"graph {graph.name} names one tensor as two inputs")
    produced = {op.outputs[0] for op in graph.ops}
    for index in (*graph.inputs, *graph.outputs, *produced):
        tensor = graph.tensors[index]
        where = f"graph {graph.name}, tensor {index} ({tensor.name})"
        if tensor.is_constant:
            raise UnsupportedOpError(f"{where} is an input or output but holds constant data")
        if not tensor.shape or tensor.shape[0] != 1:
            raise UnsupportedOpError(
                f"{where} has shape {tensor.shape}; export with batch 1 as the first axis"
            )
        if tensor.dtype not in _EDGE_DTYPES:
            raise UnsupportedOpError(
                f"{where} has dtype {tensor.dtype}; activations are int8, or float32 at the edges"
            )
        if tensor.dtype != "float32" and len(tensor.scale) != 1:
            raise UnsupportedOpError(
                f"{where} has {len(tensor.scale)} scales; a quantized activation has exactly one"
            )
