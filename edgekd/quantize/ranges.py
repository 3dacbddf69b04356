"""Ranges of activations that clip a little: by squared error, by entropy. Plain arrays in, (low, high) out.

Both look at a histogram (values, and how often each was seen), try shares of the range that was seen, and
keep the best: first for the upper end, then for the lower one. 0 always stays inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Cost = Callable[[Reals, Reals, float, float, int], float]

BINS, FEWEST_BINS = 2048, 256
_VALUES_PER_BIN = 64  # on average
_SHARES = np.linspace(1.0, 0.1, 91)
_RARE = 1e-9  # stands for a probability of 0 in a logarithm


def squared_error(values: Reals, counts: Reals, low: float, high: float, levels: int = 256) -> float:
    """Sum of counts * (value - what it is held as)**2 with `levels` steps from low to high."""
    step = (high - low) / (levels - 1)
    held = low + step * np.clip(np.rint((values - low) / step), 0, levels - 1)
    return float((counts * (values - held) ** 2).sum())


def divergence(values: Reals, counts: Reals, low: float, high: float, levels: int = 256) -> float:
    """KL(P || Q) of the clipped histogram P and of Q, in which values of one level are equally frequent.

    What lies outside counts in P at the range's ends and in Q not at all (Migacz 2017). Values that were
    never seen have no share of their level.
    """
    step = (high - low) / (levels - 1)
    inside = (values >= low - step / 2) & (values <= high + step / 2)
    if not inside.any():
        return float("inf")
    kept, seen = np.where(inside, counts, 0.0), np.flatnonzero(inside)
    clipped = kept.copy()
    clipped[seen[0]] += counts[: seen[0]].sum()
    clipped[seen[-1]] += counts[seen[-1] + 1 :].sum()
    level = np.clip(np.rint((values - low) / step), 0, levels - 1).astype(np.int64)
    found = (kept > 0).astype(np.float64)
    total, members = np.bincount(level, kept, levels), np.bincount(level, found, levels)
    spread = found * (total / np.maximum(members, 1))[level]
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), _RARE)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], _RARE))).sum())


COSTS: dict[str, Cost] = {"mse": squared_error, "entropy": divergence}


def best_range(values: Reals, counts: Reals, method: str, levels: int = 256) -> tuple[float, float]:
    """(low, high) around 0 with the least cost of `method`; (0, 0) where all values are 0."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    cost = COSTS[method]
    if high > 0:
        high *= min(_SHARES, key=lambda share: cost(values, counts, low, high * share, levels))
    if low < 0:
        low *= min(_SHARES, key=lambda share: cost(values, counts, low * share, high, levels))
    return float(low), float(high)


def observed_ranges(
    model: Any, names: list[str], calibration: Floats, method: str
) -> dict[str, tuple[float, float]]:
    """The best range of each float tensor in `names` (the input, or a node's output) of an onnx.ModelProto.

    calibration: float32 [N, ...]; it is run twice, so that a histogram and no sample is kept.
    """
    extremes: dict[str, tuple[float, float]] = {}
    for seen in observed(model, names, calibration):
        for name, x in seen.items():
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = min(low, float(x.min())), max(high, float(x.max()))
    counts: dict[str, Reals] = {}
    for seen in observed(model, names, calibration):
        for name, x in seen.items():
            if extremes[name][0] < extremes[name][1]:
                counts.setdefault(name, np.zeros(_bins(x.size * len(calibration))))
                counts[name] += np.histogram(x, len(counts[name]), extremes[name])[0]
    found = {}
    for name, (low, high) in extremes.items():
        if low == high:
            found[name] = (0.0, 0.0)
            continue
        edges = np.linspace(low, high, len(counts[name]) + 1)
        found[name] = best_range((edges[1:] + edges[:-1]) / 2, counts[name], method)
        if low == 0 or high == 0:  # the end that is 0 stays exactly 0: a ReLU's zero point
            found[name] = found[name][0] if low else 0.0, found[name][1] if high else 0.0
    return found


def _bins(values: int) -> int:
    """Bins for so many values: in a thin histogram the divergence would take chance for shape, and clip."""
    return min(max(values // _VALUES_PER_BIN, FEWEST_BINS), BINS)


def observed(model: Any, names: list[str], calibration: Floats) -> Iterator[Mapping[str, Floats]]:
    """For each sample the float tensors in `names`, by name: the model's input or any node's output."""
    import onnx

    from edgekd.export.onnx_session import session

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    entry = opened.graph.input[0].name
    inner = [name for name in names if name != entry]
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    runner = session(opened.SerializeToString()) if inner else None
    for row in range(len(calibration)):
        x = calibration[row : row + 1]
        given = runner.run(inner, {entry: x}) if runner else []
        yield dict(zip(inner, given, strict=True)) | ({entry: x} if entry in names else {})
