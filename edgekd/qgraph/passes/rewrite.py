"""What the passes share: their result, who reads a tensor, and graphs with some ops and tensors replaced.

No pass moves a tensor: indices stay, so that an activation that is left can be told by its index in the
graph as it was read. A tensor that nothing uses any more stays in the list and costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.validate import validate


@dataclass(frozen=True)
class Changed:
    """The new graph (the given one where nothing applied), and what the pass saved in one line."""

    graph: QGraph
    changed: bool
    report: str


def rebuilt(graph: QGraph, ops: Iterable[Op], tensors: Sequence[Tensor] | None = None) -> QGraph:
    """The graph with other ops (and tensors), validated."""
    found = replace(graph, ops=tuple(ops), tensors=graph.tensors if tensors is None else tuple(tensors))
    validate(found)
    return found


def readers(graph: QGraph) -> dict[int, list[int]]:
    """Tensor -> the ops that read it, each once."""
    found: dict[int, list[int]] = {}
    for index, op in enumerate(graph.ops):
        for tensor in dict.fromkeys(i for i in op.inputs if i != -1):
            found.setdefault(tensor, []).append(index)
    return found


def producers(graph: QGraph) -> dict[int, int]:
    """Tensor -> the op that writes it."""
    return {op.outputs[0]: index for index, op in enumerate(graph.ops)}


def read_once(graph: QGraph) -> set[int]:
    """The activations between two ops: written by one, read by one other, seen by nobody outside."""
    counts = Counter(i for op in graph.ops for i in set(op.inputs) if i != -1)
    inner = {op.outputs[0] for op in graph.ops} - set(graph.outputs)
    return {tensor for tensor in inner if counts[tensor] == 1}


def renamed(op: Op, names: Mapping[int, int]) -> Op:
    """The op with `names[i]` in place of each tensor i, through chains of names."""
    return replace(
        op,
        inputs=tuple(_resolved(i, names) for i in op.inputs),
        outputs=tuple(_resolved(i, names) for i in op.outputs),
    )


def _resolved(tensor: int, names: Mapping[int, int]) -> int:
    while tensor in names:
        tensor = names[tensor]
    return tensor


def same_meaning(a: Tensor, b: Tensor) -> bool:
    """Whether equal bytes in both stand for the same numbers in the same shape."""
    return (a.shape, a.dtype, a.scale.tobytes(), a.zero_point, a.axis) == (
        b.shape,
        b.dtype,
        b.scale.tobytes(),
        b.zero_point,
        b.axis,
    )


def plural(count: int, noun: str) -> str:
    """ "1 op", "2 ops"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
