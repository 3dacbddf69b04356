"""Two executions of one graph side by side: the first layer, channel and pixel where they part.

An execution gives the value of every layer, and where it can, the sum behind one output of a linear layer
(diff_sums.py; diff_code.py for generated C). Never in the fast path: nothing here is used by a build or a
bench.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.mcu.diff_sums import Array, Place, exact_sum
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run_all

Layers = Mapping[int, Array]  # op index -> its output [N, ...], where known


def no_sum(graph: QGraph, inputs: list[Array], index: int, where: Place) -> int | None:
    """For an execution whose sums nobody can see."""
    return None


@dataclass(frozen=True)
class Execution:
    """One way to run a graph.

    layers: (graph, inputs [N, ...] each) -> the layers that it knows. sum_at: (graph, inputs, op index,
    sample and position) -> the sum, bias included, that this execution had there; None where it shows none.
    """

    layers: Callable[[QGraph, list[Array]], Layers]
    sum_at: Callable[[QGraph, list[Array], int, Place], int | None] = no_sum


@dataclass(frozen=True)
class Difference:
    """Where two executions part first. position: NHWC without the batch; a, b: what each has there.

    differing: elements of that layer that differ, in all samples. accumulator_a, accumulator_b: the sum of a
    linear layer there before requantization, each from its own execution; None: it cannot be had.
    """

    op: int
    kind: str
    layer: str
    sample: int
    position: tuple[int, ...]
    a: int
    b: int
    differing: int
    elements: int
    accumulator_a: int | None
    accumulator_b: int | None


@dataclass(frozen=True)
class Comparison:
    """All layers that both executions know, and the first difference (None: there is none)."""

    samples: int
    compared: tuple[str, ...]
    first: Difference | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(graph: QGraph, inputs: list[Array], a: Execution, b: Execution) -> Comparison:
    """Run `inputs` ([N, ...] each) through both and find where they part, in the order of the ops.

    Raises ArtifactError where they have no layer in common.
    """
    one, other = a.layers(graph, inputs), b.layers(graph, inputs)
    both = [index for index in range(len(graph.ops)) if index in one and index in other]
    if not both:
        raise ArtifactError(f"{graph.name}: the two executions have no layer in common; compare two others")
    first = None
    for index in both:
        tensor = graph.tensors[graph.ops[index].outputs[0]]
        shape = (len(inputs[0]), *tensor.shape[1:])
        x, y = (_values(values[index], tensor.dtype, shape) for values in (one, other))
        if not np.array_equal(x, y):
            where = tuple(int(n) for n in np.argwhere(x != y)[0])
            sums = [side.sum_at(graph, inputs, index, where) for side in (a, b)]
            first = _describe(graph, index, where, x, y, sums)
            break
    return Comparison(len(inputs[0]), tuple(graph.label(index) for index in both), first)


def _reference(graph: QGraph, inputs: list[Array]) -> Layers:
    values = run_all(graph, inputs)
    return {index: values[op.outputs[0]] for index, op in enumerate(graph.ops)}


by_reference = Execution(_reference, exact_sum)


def _values(found: Array, dtype: str, shape: Sequence[int]) -> Array:
    """Bytes or values as the tensor's integers; ArtifactError where their number is another."""
    values = np.ascontiguousarray(found)
    if values.dtype != dtype:
        values = values.view(dtype)
    if values.size != int(np.prod(shape)):
        raise ArtifactError(f"an execution gives {values.size} elements where the layer has {tuple(shape)}")
    return values.reshape(shape)


def _describe(
    graph: QGraph, index: int, where: Place, x: Array, y: Array, sums: Sequence[int | None]
) -> Difference:
    op = graph.ops[index]
    return Difference(
        op=index,
        kind=op.kind,
        layer=graph.tensors[op.outputs[0]].name,
        sample=where[0],
        position=where[1:],
        a=int(x[where]),
        b=int(y[where]),
        differing=int((x != y).sum()),
        elements=x.size,
        accumulator_a=sums[0],
        accumulator_b=sums[1],
    )
