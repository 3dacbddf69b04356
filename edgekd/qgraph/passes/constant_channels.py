"""Removes channels that cannot change and channels that nobody needs.

1. Intervals (intervals.py) say which channels have one value, whatever the input.
2. Backwards: a channel is needed where some needed, changing output has a weight on it. A constant channel
   that is read without padding is not: its share goes into the reader's bias. Read with padding, it is
   dropped only where its value is the zero point, for then the border changes nothing.
3. Depthwise convolutions, pools and reshapes have the same channels on both sides, so all tensors that
   they join keep the same ones.
4. What is kept is filled up to a whole `multiple` with channels of zero weights, for kernels that take
   some channels at a time. A constant channel that stays gets zero weights and an ordinary scale.
5. Weights stored as indices stay so where their tables hold zero or have room for it.

Requires a validated graph; the result validates, has the same inputs and outputs, and the same ops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekd.qgraph import requantize
from edgekd.qgraph.arithmetic import INT32_MAX, INT32_MIN, Ints
from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.passes.intervals import bias_of, intervals, is_linear, is_tied, pads
from edgekd.qgraph.passes.rewrite import Changed
from edgekd.qgraph.validate import validate

Mask = npt.NDArray[np.bool_]
_ORDINARY_BITS = 7  # a constant channel's multiplier: 2**-7


def remove_constant_channels(graph: QGraph, multiple: int = 1) -> Changed:
    """The graph without them; `multiple`: kept channels are filled up to a whole multiple where possible."""
    values = _constants(graph)
    needed = _needed(graph, values)
    kept = _kept(graph, needed, multiple)
    before = sum(len(mask) for mask in kept.values())
    after = sum(int(mask.sum()) for mask in kept.values())
    if before == after:
        return Changed(graph, False, "no channel is constant or dead")
    rewriter = _Rewriter(graph, values, needed, kept)
    result = rewriter.graph()
    validate(result)
    return Changed(result, True, f"{before - after} of {before} channels are constant or dead: removed")


def _constants(graph: QGraph) -> dict[int, tuple[Mask, Ints]]:
    """Activation -> (which channels have one value, the value)."""
    return {index: (low == high, low) for index, (low, high) in intervals(graph).items()}


def _foldable(graph: QGraph, op: Op, values: dict[int, tuple[Mask, Ints]]) -> Mask:
    """The input channels of a linear op whose share is the same everywhere."""
    constant, value = values[op.inputs[0]]
    if pads(graph, op):
        constant = constant & np.asarray(value == graph.tensors[op.inputs[0]].zero_point, np.bool_)
    return constant


def _needed(graph: QGraph, values: dict[int, tuple[Mask, Ints]]) -> dict[int, Mask]:
    needed = {index: np.zeros(len(mask), np.bool_) for index, (mask, _) in values.items()}
    for index in (*graph.inputs, *graph.outputs):
        needed[index][:] = True
    while True:
        before = sum(int(mask.sum()) for mask in needed.values())
        for op in reversed(graph.ops):
            _need_inputs(graph, op, values, needed)
        if before == sum(int(mask.sum()) for mask in needed.values()):
            return needed


def _need_inputs(
    graph: QGraph, op: Op, values: dict[int, tuple[Mask, Ints]], needed: dict[int, Mask]
) -> None:
    source, target = op.inputs[0], op.outputs[0]
    if is_linear(graph, op) and source in needed:
        rows = needed[target] & ~values[target][0]
        weights = np.asarray(graph.tensors[op.inputs[1]].data)[rows]
        used = (weights != 0).reshape(-1, weights.shape[-1]).any(axis=0)
        needed[source] |= used & ~_foldable(graph, op, values)
    elif is_tied(graph, op) and source in needed:
        needed[source] |= needed[target]
        needed[target] |= needed[source]
    else:
        for index in (*op.inputs, *op.outputs):
            if index in needed:
                needed[index][:] = True


def _kept(graph: QGraph, needed: dict[int, Mask], multiple: int) -> dict[int, Mask]:
    """The channels that stay, filled up; tensors that tied ops join were made equal by _needed."""
    kept = {}
    for index, mask in needed.items():
        wanted = max(multiple, -(-int(mask.sum()) // multiple) * multiple, 1)
        fillers = np.flatnonzero(~mask)[: wanted - int(mask.sum())]
        kept[index] = mask.copy()
        kept[index][fillers] = True
    return kept


@dataclass
class _Rewriter:
    given: QGraph
    values: dict[int, tuple[Mask, Ints]]
    needed: dict[int, Mask]
    kept: dict[int, Mask]

    def graph(self) -> QGraph:
        self.tensors = [self._narrowed(index) for index in range(len(self.given.tensors))]
        ops = tuple(self._op(op) for op in self.given.ops)
        given = self.given
        return QGraph(given.name, tuple(self.tensors), ops, given.inputs, given.outputs)

    def _narrowed(self, index: int) -> Tensor:
        tensor = self.given.tensors[index]
        if index not in self.kept:
            return tensor
        return replace(tensor, shape=(*tensor.shape[:-1], int(self.kept[index].sum())))

    def _op(self, op: Op) -> Op:
        joined = (op.inputs[0], op.outputs[0])
        # A channel that nobody needs loses its value even where it stays to fill up: its reader folds it.
        if all(index not in self.kept or self.needed[index].all() for index in joined):
            return op
        if op.kind == "DEPTHWISE_CONV_2D":
            weights = np.asarray(self._constant(op, 1).data)
            return self._linear(
                op, np.moveaxis(weights, 3, 0).copy(), bias_of(self.given, op, weights.shape[3])
            )
        if is_linear(self.given, op):
            return self._linear(op, *self._folded(op))
        return op

    def _folded(self, op: Op) -> tuple[npt.NDArray[np.int8], Ints]:
        """Weights without the columns that go, bias with their share."""
        weights = np.asarray(self._constant(op, 1).data).astype(np.int8)
        bias = bias_of(self.given, op, len(weights))
        fold = _foldable(self.given, op, self.values)
        shares = self.values[op.inputs[0]][1] - self.given.tensors[op.inputs[0]].zero_point
        columns = weights.astype(np.int64).reshape(len(weights), -1, len(fold)).sum(axis=1)
        folded = bias + columns[:, fold] @ shares[fold]
        weights = weights.copy()
        weights[..., fold] = 0
        return weights[..., self.kept[op.inputs[0]]], folded

    def _linear(self, op: Op, weights: npt.NDArray[np.int8], bias: Ints) -> Op:
        """`weights` are [outputs, ...]; rows that go are dropped, rows that fill or never change are set."""
        target = op.outputs[0]
        kept, (constant, value) = self.kept[target], self.values[target]
        y = self.given.tensors[target]
        given = self._constant(op, 1)
        scales = np.broadcast_to(given.scale, (len(kept),)).copy()
        still = kept & (constant | ~self.needed[target])
        ordinary = np.float32(float(y.scale[0]) / self._input_scale(op) / (1 << _ORDINARY_BITS))
        level = np.where(constant & self.needed[target], value - y.zero_point, 0)
        single = len(given.scale) == 1
        if single or not (np.isfinite(ordinary) and ordinary > np.finfo(np.float32).tiny):
            still &= ~self.needed[target]  # the scale cannot be chosen: a needed channel stays as it is
        else:
            scales[still] = ordinary
        weights = weights.copy()
        weights[still] = 0
        bias = np.where(still, level << _ORDINARY_BITS, bias)
        bias = np.clip(bias, INT32_MIN, INT32_MAX)
        return self._with(op, weights[kept], bias[kept], scales[kept][: 1 if single else None])

    def _input_scale(self, op: Op) -> float:
        return requantize.scale_of(self.given.tensors[op.inputs[0]])

    def _with(self, op: Op, weights: npt.NDArray[np.int8], bias: Ints, scales: npt.NDArray[np.float32]) -> Op:
        """The op on new constants."""
        given = self._constant(op, 1)
        if op.kind == "DEPTHWISE_CONV_2D":
            weights = np.moveaxis(weights, 0, 3)
        data = np.ascontiguousarray(weights.astype(np.int8))
        axis = given.axis if len(scales) > 1 else 0
        encoding = given.encoding and given.encoding.narrowed(data, self.kept[op.outputs[0]])
        filters = self._add(
            replace(given, shape=data.shape, data=data, scale=scales, axis=axis, encoding=encoding)
        )
        offsets = bias.astype(np.int32)
        products = (np.float32(self._input_scale(op)) * scales).astype(np.float32)
        name = f"{given.name}/bias"
        biases = self._add(Tensor(name, offsets.shape, "int32", products, data=offsets))
        return Op(op.kind, (op.inputs[0], filters, biases), op.outputs, op.attrs)

    def _add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _constant(self, op: Op, position: int) -> Tensor:
        return self.given.tensors[op.inputs[position]]
