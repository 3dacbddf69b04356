"""Weights rounded to tables of a few values by plain k-means, without training: for tests and benchmarks.

It costs accuracy that training with the tables gives back; the tables hold 0, for dead channels and padding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.encoding import Encoding, Int8, encode
from edgekd.qgraph.ir import QGraph

_ROUNDS = 40
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def round_to_tables(data: Int8, entries: int, groups: int = 1, axis: int = 0) -> tuple[Int8, Encoding]:
    """`data` with each value replaced by the nearest of its group's table, and the encoding of that.

    entries: of each table, 2 to 256. groups: tables; output channels (on `axis`) are split evenly, in order.
    """
    channels = data.shape[axis]
    group = (np.arange(channels) * groups // channels).astype(np.uint8)
    rows = np.moveaxis(data, axis, 0).reshape(channels, -1).astype(np.int64)
    tables = np.stack([_centres(rows[group == g].ravel(), entries) for g in range(groups)])
    nearest = np.abs(rows[:, :, None] - tables[group][:, None, :]).argmin(axis=2)
    rounded = np.take_along_axis(tables[group], nearest, axis=1).astype(np.int8)
    moved = rounded.reshape(np.moveaxis(data, axis, 0).shape)
    values = np.ascontiguousarray(np.moveaxis(moved, 0, axis))
    return values, encode(values, tables, group, axis)


def share_weights(graph: QGraph, entries: int = 16, groups: int = 1) -> QGraph:
    """`graph` with the weights of every linear op rounded to tables: another function than before."""
    tensors = list(graph.tensors)
    for op in graph.ops:
        if op.kind in _WEIGHTED and tensors[op.inputs[1]].encoding is None:
            given = tensors[op.inputs[1]]
            axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
            several = min(groups, given.shape[axis])
            data, found = round_to_tables(np.asarray(given.data, np.int8), entries, several, axis)
            tensors[op.inputs[1]] = replace(given, data=data, encoding=found)
    return replace(graph, tensors=tuple(tensors))


def _centres(values: npt.NDArray[np.int64], entries: int) -> npt.NDArray[np.int64]:
    """Ascending whole numbers, `entries` of them (some may repeat), 0 among them."""
    found, counts = np.unique(values, return_counts=True)
    if not len(found):
        return np.zeros(entries, np.int64)
    centres = np.linspace(found[0], found[-1], entries)
    for _ in range(_ROUNDS):
        owner = np.abs(found[:, None] - centres[None, :]).argmin(axis=1)
        weight = np.bincount(owner, counts, entries)
        total = np.bincount(owner, counts * found, entries)
        centres = np.where(weight > 0, total / np.maximum(weight, 1), centres)
    whole = np.sort(np.rint(centres).astype(np.int64))
    whole[np.abs(whole).argmin()] = 0
    return np.clip(whole, -127, 127)
