"""Runs a graph on LiteRT's reference kernels and gives every tensor: for `edgekd diff`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.errors import MissingDependencyError
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_writer import write_tflite

Array = npt.NDArray[np.generic]


def run_litert(graph: QGraph, inputs: list[Array]) -> dict[int, Array]:
    """Op index -> its output [N, ...] for inputs [N, ...] each.

    FULLY_CONNECTED rounds once there (docs/qgraph.md), so a step of 1 behind it is no defect. Raises
    MissingDependencyError without the package ai-edge-litert.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise MissingDependencyError("LiteRT is missing; install it: pip install ai-edge-litert") from None
    interpreter = Interpreter(
        model_content=write_tflite(graph),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    rows: dict[int, list[Array]] = {index: [] for index in range(len(graph.ops))}
    for sample in range(len(inputs[0])):
        for index, values in zip(graph.inputs, inputs, strict=True):
            interpreter.set_tensor(index, values[sample : sample + 1])
        interpreter.invoke()
        for number, op in enumerate(graph.ops):
            rows[number].append(interpreter.get_tensor(op.outputs[0]))
    return {index: np.concatenate(row) for index, row in rows.items()}
