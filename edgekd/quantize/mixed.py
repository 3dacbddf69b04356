"""Bits by layer: how much each layer minds fewer bits, and the choice that fits a budget of weight bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import BudgetError, ConfigError
from edgekd.qgraph.encoding import uniform
from edgekd.qgraph.rounding import grid_of
from edgekd.quantize.layers import Layer, constant, layers_of, put_constant
from edgekd.recipe import QuantizeParams

Floats = npt.NDArray[np.float32]

STEPS = (8, 4, 2)


@dataclass(frozen=True)
class Sensitivity:
    """What one layer alone at `bits` bits does to the outputs, all others at 8, on the calibration samples.

    loss: squared change of the outputs as a share of their variance. changed: share of the samples whose
    largest output is another one. stored_bytes: the layer's weights in flash.
    """

    layer: str
    bits: int
    loss: float
    changed: float
    stored_bytes: int


def stored_bytes(layer: Layer, weights: npt.NDArray[Any], bits: int) -> int:
    """A layer's weights in flash; indices come with their table and a kernel's own fields."""
    if bits == 8:
        return int(weights.size)
    return uniform(bits, weights.shape[layer.axis]).stored_bytes(int(weights.size))


def sensitivities(model: Any, calibration: Floats) -> list[Sensitivity]:
    """Of each layer of a float onnx.ModelProto at 8, 4 and 2 bits; `model` is left as it was.

    Weights are rounded and activations are not, so that the layers' effects can be told apart.
    """
    import onnx

    from edgekd.export.onnx_session import run_onnx

    trial = onnx.ModelProto()
    trial.CopyFrom(model)
    layers = layers_of(trial)
    originals = {layer.weights: constant(trial, layer.weights) for layer in layers}

    def put(layer: Layer, bits: int) -> None:
        weights = originals[layer.weights]
        grid = grid_of(weights, bits, layer.axis if layer.per_channel else None)
        put_constant(trial, layer.weights, grid.values(weights))

    for layer in layers:
        put(layer, 8)
    before = run_onnx(trial.SerializeToString(), calibration)
    found = []
    for layer in layers:
        for bits in STEPS:
            put(layer, bits)
            after = before if bits == 8 else run_onnx(trial.SerializeToString(), calibration)
            held = stored_bytes(layer, originals[layer.weights], bits)
            found.append(Sensitivity(layer.name, bits, *_change(before, after), held))
        put(layer, 8)
    return found


def _change(before: Floats, after: Floats) -> tuple[float, float]:
    """(squared change as a share of the variance, share of changed largest outputs)."""
    flat, other = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    variance = max(float(((flat - flat.mean(axis=0)) ** 2).sum()), np.finfo(np.float64).tiny)
    loss = float(((flat - other) ** 2).sum()) / variance
    return loss, float((flat.argmax(axis=1) != other.argmax(axis=1)).mean())


def choose(rows: Sequence[Sensitivity], budget_bytes: int, fixed: Mapping[str, int]) -> dict[str, int]:
    """Bits by layer with at most `budget_bytes` of weights: the step with least loss a byte saved, repeated.

    fixed: layers whose bits are given. Raises BudgetError where even the fewest bits need more.
    """
    table = {(row.layer, row.bits): row for row in rows}
    bits = {row.layer: fixed.get(row.layer, STEPS[0]) for row in rows}

    def total() -> int:
        return sum(table[layer, each].stored_bytes for layer, each in bits.items())

    while total() > budget_bytes:
        steps = []
        for layer, each in bits.items():
            for fewer in STEPS[STEPS.index(each) + 1 :] if layer not in fixed else ():
                now, then = table[layer, each], table[layer, fewer]
                saved = now.stored_bytes - then.stored_bytes
                if saved > 0:
                    steps.append((max(then.loss - now.loss, 0.0) / saved, layer, fewer))
        if not steps:
            raise BudgetError(
                f"with the fewest bits a layer the weights still take {total()} bytes and "
                f"quantize.max_weight_bytes allows {budget_bytes}; allow more, or take a smaller student"
            )
        _, layer, fewer = min(steps)
        bits[layer] = fewer
    return bits


def layer_bits(
    model: Any, calibration: Floats, params: QuantizeParams
) -> tuple[dict[str, int], list[Sensitivity]]:
    """Bits by layer as the recipe gives or chooses them; the sensitivities where a budget asked for them.

    Raises ConfigError for a layer that is not there, BudgetError for a budget that cannot be met.
    """
    names = list(dict.fromkeys(layer.name for layer in layers_of(model)))
    fixed = {each.layer: each.bits for each in params.layer_bits}
    for name in fixed:
        if name not in names:
            raise ConfigError(
                f"quantize.layer_bits: the model has no weights of layer {name!r}; it has {', '.join(names)}"
            )
    if not params.max_weight_bytes:
        return {name: fixed.get(name, params.weight_bits) for name in names}, []
    rows = sensitivities(model, calibration)
    return choose(rows, params.max_weight_bytes, fixed), rows


def report(rows: Sequence[Sensitivity], bits: Mapping[str, int]) -> dict[str, Any]:
    """The JSON of `sensitivity.json`."""
    return {"schema": 1, "layers": [asdict(row) for row in rows], "chosen_bits": dict(bits)}
