"""Makes a chain of functions of one byte one look-up, and ADD, SUB or MUL with one number a look-up too.

The table is composed value by value from what the reference computes for each link, so it is exact for all
256 inputs. A link must be read by the next one alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.passes.byte_functions import ByteFunction, byte_function
from edgekd.qgraph.passes.rewrite import Changed, plural, read_once, rebuilt

_BINARY = ("ADD", "MUL", "SUB")


def fuse_tables(graph: QGraph) -> Changed:
    """The graph with one TABLE for each chain."""
    functions = {op.outputs[0]: byte_function(graph, op) for op in graph.ops}
    inner = read_once(graph)
    tensors, ops = list(graph.tensors), []
    links = chains = 0
    for op in graph.ops:
        output = op.outputs[0]
        function = functions[output]
        if function is None or _goes_on(graph, output, functions, inner):
            if function is None:
                ops.append(op)
            continue
        whole, count = _composed(function, functions, inner)
        if count == 1 and op.kind not in _BINARY:
            ops.append(op)
            continue
        tensors.append(_table(graph.tensors[output], whole))
        ops.append(Op("TABLE", (whole.source, len(tensors) - 1), (output,)))
        links, chains = links + count, chains + 1
    if not chains:
        return Changed(graph, False, "no functions of one byte follow each other")
    report = f"{plural(links, 'function')} of one byte: {plural(chains, 'look-up')}"
    return Changed(rebuilt(graph, ops, tensors), True, report)


def _goes_on(graph: QGraph, tensor: int, functions: dict[int, ByteFunction | None], inner: set[int]) -> bool:
    """Whether the only reader of `tensor` is a function of it."""
    followers = [f for f in functions.values() if f is not None and f.source == tensor]
    return tensor in inner and bool(followers)


def _composed(
    function: ByteFunction, functions: dict[int, ByteFunction | None], inner: set[int]
) -> tuple[ByteFunction, int]:
    """The function from the first link's input on, and how many links it has."""
    count = 1
    while function.source in inner:
        before = functions.get(function.source)
        if before is None:
            break
        values = function.of(before.values.astype(np.int64)).astype(function.values.dtype)
        function, count = replace(before, values=values), count + 1
    return function, count


def _table(output: Tensor, function: ByteFunction) -> Tensor:
    return Tensor(f"{output.name}/table", (256,), output.dtype, data=np.ascontiguousarray(function.values))
