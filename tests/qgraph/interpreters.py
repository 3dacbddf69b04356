"""The two interpreters that the reference is compared with, run on files that our writer wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.qgraph import reference, requantize
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.tflite_writer import write_tflite

Array = npt.NDArray[Any]
ARENA_BYTES = 4 << 20  # its own guess, 10 x the file, is too little for a small file with large images


def run_tflite_micro(graph: QGraph, inputs: list[Array]) -> list[Array]:
    """The outputs [N, ...] of TFLite Micro's reference kernels on the written file."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(write_tflite(graph), arena_size=ARENA_BYTES)
    rows: list[list[Array]] = []
    for sample in range(len(inputs[0])):
        for index, values in enumerate(inputs):
            interpreter.set_input(values[sample : sample + 1], index)
        interpreter.invoke()
        rows.append([interpreter.get_output(i) for i in range(len(graph.outputs))])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def differs_from_tflite_micro(graph: QGraph, inputs: list[Array]) -> int:
    """How many output values TFLite Micro computes otherwise than the reference."""
    pairs = zip(run_tflite_micro(graph, inputs), reference.run(graph, inputs), strict=True)
    return sum(int((theirs != ours).sum()) for theirs, ours in pairs)


def ops_differing_from_litert(graph: QGraph, inputs: list[Array]) -> list[str]:
    """Labels of the ops whose LiteRT (BUILTIN_REF) output is not ours, each op fed what LiteRT fed it.

    FULLY_CONNECTED is compared with `fully_connected_rounding_once`.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=write_tflite(graph),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    differing: dict[str, None] = {}
    for sample in range(len(inputs[0])):
        for index, values in zip(graph.inputs, inputs, strict=True):
            interpreter.set_tensor(index, values[sample : sample + 1])
        interpreter.invoke()
        for number, op in enumerate(graph.ops):
            given = [interpreter.get_tensor(i) for i in op.inputs if i != -1]
            if not np.array_equal(interpreter.get_tensor(op.outputs[0]), _kernel(op)(graph, op, given)):
                differing[graph.label(number)] = None
    return list(differing)


def _kernel(op: Op) -> Callable[[QGraph, Op, list[Array]], Array]:
    return fully_connected_rounding_once if op.kind == "FULLY_CONNECTED" else reference.KERNELS[op.kind]


def fully_connected_rounding_once(graph: QGraph, op: Op, values: list[Array]) -> Array:
    """FULLY_CONNECTED as LiteRT rounds it: (acc * m + 2**(t - 1)) >> t with t = 31 - shift."""
    x, output = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    rows = values[0].reshape(-1, values[1].shape[1]).astype(np.int64) - x.zero_point
    sums = rows @ values[1].astype(np.int64).T
    if len(values) > 2:
        sums = sums + values[2]
    multipliers, shifts = (part.astype(np.int64) for part in requantize.channel_multipliers(graph, op))
    total = 31 - shifts
    scaled = (sums * multipliers + (np.int64(1) << (total - 1))) >> total
    low, high = requantize.activation_range(output, str(op.attrs["activation"]))
    result = np.clip(scaled + output.zero_point, low, high).astype(np.int8)
    return result.reshape(len(values[0]), *output.shape[1:])
