"""Weights that were trained with tables: held to the float model, and taken over as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekd.errors import VerifyError
from edgekd.qgraph.rounding import Grid
from edgekd.quantize.layers import constant, layers_of

TOLERANCE = 1e-5  # of a step: float32 products of scale and entry are that exact


def shared_bits(model: Any, shared: Mapping[str, Grid]) -> dict[str, int]:
    """Bits of an index by layer, for the grids (by weights' name) of shared weights.

    Raises VerifyError where the float onnx.ModelProto lacks such weights or they do not stand in their table.
    """
    layers = {layer.weights: layer for layer in layers_of(model)}
    found = {}
    for name, grid in shared.items():
        if name not in layers:
            raise VerifyError(f"the exported model has no weights {name!r}; export the shared student anew")
        weights = constant(model, name)
        apart = np.abs(grid.values(weights) - weights) / grid.spread(weights.ndim)
        if apart.max(initial=0.0) > TOLERANCE * 127:
            raise VerifyError(
                f"layer {layers[name].name}: its weights do not stand in the tables that they were trained "
                "with; export the shared student anew"
            )
        found[layers[name].name] = grid.bits
    return found
