"""Computes equal ops on equal inputs once, and keeps equal constants once.

Two ops are equal that have the same kind, attributes and inputs, and outputs of the same shape and
quantization: they give the same bytes because the reference is a function of just these.
"""

from __future__ import annotations

from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.passes.rewrite import Changed, plural, rebuilt, renamed

_Key = tuple[object, ...]


def merge_common_subexpressions(graph: QGraph) -> Changed:
    """The graph without the repetitions."""
    constants, saved_bytes = _equal_constants(graph)
    names, ops = dict(constants), list[Op]()
    seen: dict[_Key, int] = {}
    for given in graph.ops:
        op = renamed(given, names)
        key = _key(graph, op)
        first = seen.setdefault(key, op.outputs[0])
        if first == op.outputs[0]:
            ops.append(op)
        elif op.outputs[0] not in graph.outputs:
            names[op.outputs[0]] = first
        elif first not in graph.outputs:  # the name that is seen outside stays
            names[first] = seen[key] = op.outputs[0]
        else:
            ops.append(op)
    again = len(graph.ops) - len(ops)
    if not again and not constants:
        return Changed(graph, False, "nothing is there twice")
    report = f"{plural(again, 'op')} that repeat another: merged"
    if constants:
        report += f"; {plural(len(constants), 'constant')} ({saved_bytes:,} bytes) stored once"
    return Changed(rebuilt(graph, (renamed(op, names) for op in ops)), True, report)


def _key(graph: QGraph, op: Op) -> _Key:
    return (op.kind, op.inputs, tuple(sorted(op.attrs.items())), _meaning(graph.tensors[op.outputs[0]]))


def _meaning(tensor: Tensor) -> _Key:
    return (tensor.shape, tensor.dtype, tensor.scale.tobytes(), tensor.zero_point, tensor.axis)


def _stored(tensor: Tensor) -> _Key:
    """How a constant is stored: plainly, or as indices into tables."""
    encoding = tensor.encoding
    if encoding is None:
        return ()
    return (encoding.bits, encoding.axis, encoding.tables.tobytes(), encoding.channel_tables.tobytes())


def _equal_constants(graph: QGraph) -> tuple[dict[int, int], int]:
    """Constants that ops read -> the first one equal to it; the bytes of those that go."""
    read = sorted({i for op in graph.ops for i in op.inputs if i != -1})
    seen: dict[_Key, int] = {}
    names: dict[int, int] = {}
    for index in read:
        tensor = graph.tensors[index]
        if tensor.data is None:
            continue
        first = seen.setdefault((*_meaning(tensor), *_stored(tensor), tensor.data.tobytes()), index)
        if first != index:
            names[index] = first
    return names, sum(graph.tensors[index].nbytes for index in names)
