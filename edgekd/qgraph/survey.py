"""What a .tflite file holds, op by op, also where edgekd cannot run it: for `edgekd check`.

Reads the tables of operators, tensors' names and shapes, nothing else: quantization, constants and
attributes are the reader's (tflite_reader), which stops at the first thing that it cannot take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.errors import ArtifactError
from edgekd.qgraph.flatbuffer import Reader, Table
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.ops import OPS
from edgekd.qgraph.tflite_reader import operator_code

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SurveyedOp:
    """One operator: its layer (the output tensor's name), the shapes of its inputs and outputs."""

    kind: str
    layer: str
    inputs: Shapes
    outputs: Shapes

    @property
    def is_supported(self) -> bool:
        return self.kind in OPS


def survey_graph(graph: QGraph) -> list[SurveyedOp]:
    """The ops of a graph that was read."""
    rows = []
    for op in graph.ops:
        inputs = tuple(graph.tensors[i].shape for i in op.inputs if i >= 0)
        outputs = tuple(graph.tensors[i].shape for i in op.outputs)
        rows.append(SurveyedOp(op.kind, graph.tensors[op.outputs[0]].name, inputs, outputs))
    return rows


def survey_tflite(data: bytes, name: str) -> list[SurveyedOp]:
    """The ops of the first subgraph in `data`, supported or not; `name` is the file's, for messages.

    Raises ArtifactError for a file that is no whole .tflite.
    """
    if data[4:8] != b"TFL3":
        raise ArtifactError(f"{name} is not a TensorFlow Lite model; give a .tflite file")
    model = Reader(data, name).root()
    subgraphs = model.tables(2)
    if not subgraphs:
        raise ArtifactError(f"{name} holds no subgraph; get the file again")
    codes = [operator_code(table) for table in model.tables(1)]
    tensors = subgraphs[0].tables(0)
    return [_surveyed(op, codes, tensors, name) for op in subgraphs[0].tables(3)]


def _surveyed(op: Table, codes: Sequence[str], tensors: Sequence[Table], name: str) -> SurveyedOp:
    code, inputs, outputs = op.integer(0, "I"), op.integers(1), op.integers(2)
    if code >= len(codes) or any(not -1 <= i < len(tensors) for i in (*inputs, *outputs)):
        raise ArtifactError(f"{name} is damaged: an op points outside its tables; get the file again")
    layer = tensors[outputs[0]].text(3)[:200] if outputs and outputs[0] >= 0 else ""
    shapes = [tuple(tensors[i].integers(0)[:8] for i in each if i >= 0) for each in (inputs, outputs)]
    return SurveyedOp(codes[code], layer, shapes[0], shapes[1])
