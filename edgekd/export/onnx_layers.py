"""Every layer of a QDQ ONNX model by ONNX Runtime, as a QGraph has them: for `edgekd diff`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.export.onnx_session import session
from edgekd.qgraph.edges import dequantize_output
from edgekd.qgraph.ir import QGraph, Tensor
from edgekd.qgraph.onnx_build import plain_name
from edgekd.qgraph.onnx_model import parse_proto

Array = npt.NDArray[Any]


def run_onnx_layers(data: bytes, name: str, graph: QGraph, inputs: list[Array]) -> dict[int, Array]:
    """Op index of `graph` -> its output [N, ...] (int8, NHWC), for each that the file holds.

    data: the QDQ model that `graph` was read from; name: the file's. inputs: [N, ...] each in the graph's
    integers. Left out: layers that have no QuantizeLinear of their own in the file, whose channels a pass
    removed, or whose elements lie in another order (flattened, up to the next FULLY_CONNECTED).
    Raises ArtifactError where the file is no whole ONNX model or ONNX Runtime refuses it.
    """
    import onnx

    model = parse_proto(data, name)
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    places = _places(graph, nodes)
    wanted = list(places)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in wanted)
    runner = session(model.SerializeToString())
    rows = [_run(runner, graph, [x[i : i + 1] for x in inputs], wanted) for i in range(len(inputs[0]))]
    found = {}
    for position, value in enumerate(wanted):
        index = places[value]
        layer = _as_graph(np.concatenate([row[position] for row in rows]))
        if layer.shape[1:] == graph.tensors[graph.ops[index].outputs[0]].shape[1:]:
            found[index] = layer
    return found


def _places(graph: QGraph, nodes: list[Any]) -> dict[str, int]:
    """What a QuantizeLinear writes -> the op of that layer; names that are not unique are left out.

    The reader names a layer after what its QuantizeLinear reads, a rescaling after what it writes.
    """
    written = Counter(graph.tensors[op.outputs[0]].name for op in graph.ops)
    values: dict[str, list[str]] = {}
    for node in nodes:
        for name in {plain_name(node.input[0]), plain_name(node.output[0])}:
            values.setdefault(name, []).append(node.output[0])
    moved: set[int] = set()  # tensors whose elements were flattened in another order
    places = {}
    for index, op in enumerate(graph.ops):
        if op.kind == "RESHAPE" or (op.kind != "FULLY_CONNECTED" and moved.intersection(op.inputs)):
            moved.update(op.outputs)
            continue
        layer = graph.tensors[op.outputs[0]].name
        if len(values.get(layer, ())) == written[layer] == 1:
            places[values[layer][0]] = index
    return places


def _run(runner: Any, graph: QGraph, inputs: list[Array], wanted: list[str]) -> list[Array]:
    """One sample."""
    given = runner.get_inputs()
    feeds = {
        value.name: _as_file(x, graph.tensors[index], value.type)
        for value, index, x in zip(given, graph.inputs, inputs, strict=True)
    }
    outputs: list[Array] = runner.run(wanted, feeds)
    return outputs


def _as_file(x: Array, tensor: Tensor, kind: str) -> Array:
    """The graph's integers as the file takes them: channels first, real where it quantizes them itself."""
    values = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
    if kind == "tensor(float)":
        return np.ascontiguousarray(dequantize_output(values, tensor))
    return np.ascontiguousarray(values)


def _as_graph(values: Array) -> Array:
    """The file's integers as the graph has them: channels last, int8."""
    if values.dtype == np.uint8:
        values = (values.astype(np.int16) - 128).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(values, 1, -1) if values.ndim == 4 else values)
