"""Variants: the forms in which a Linux bundle holds one model, each with its files and golden outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError
from edgekd.export.golden import Golden, exact_golden, litert_golden

if TYPE_CHECKING:
    from edgekd.qgraph.ir import QGraph

TFLITE = "int8.tflite"
ANY = "any"  # a file that serves every architecture

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Variant:
    """One form of the model. `files`: name -> bytes; `layout`: of a sample that it takes, NCHW or NHWC."""

    name: str
    engine: str
    files: Mapping[str, bytes]
    activation: str
    layout: str
    golden: Golden


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """The int8 graph, and which forms are made of it: a .tflite, shared objects by architecture."""

    graph: QGraph
    has_tflite: bool
    native: Mapping[str, bytes]


def architecture_of(file: str) -> str:
    """The architecture that a variant's file is for, `any` for all."""
    return file.removeprefix("native-").removesuffix(".so") if file.startswith("native-") else ANY


def integer_variants(model: IntegerModel, x: Floats, tolerance_steps: int) -> list[Variant]:
    """The variants litert and native, as far as `model` has them; x: float32 [G, ...] in NCHW.

    Raises ArtifactError for samples of another shape than the graph's, UnsupportedOpError for a graph
    whose edges the shared objects cannot have.
    """
    if not model.has_tflite and not model.native:
        return []
    from edgekd.export.native import exact_answers, native_file, native_graph
    from edgekd.qgraph.edges import strip_float_edges, with_float_edges
    from edgekd.qgraph.tflite_writer import write_tflite

    channels_last = to_channels_last(x)
    stripped = strip_float_edges(model.graph)
    taken, given = (stripped.tensors[i] for i in (stripped.inputs[0], stripped.outputs[0]))
    if channels_last.shape[1:] != taken.shape[1:]:
        raise ArtifactError(
            f"the int8 graph takes {list(taken.shape[1:])} and a sample is {list(channels_last.shape[1:])} "
            "(NHWC); give samples of its shape"
        )
    step, found = float(given.scale[0]), []
    if model.has_tflite:
        data = write_tflite(with_float_edges(model.graph))
        golden = litert_golden(data, channels_last, step, tolerance_steps)
        found.append(Variant("litert", "litert", {TFLITE: data}, taken.dtype, "NHWC", golden))
    if model.native:
        exact = exact_golden(exact_answers(native_graph(model.graph), channels_last)[1], step)
        files = {native_file(name): data for name, data in model.native.items()}
        found.append(Variant("native", "native", files, taken.dtype, "NHWC", exact))
    return found


def to_channels_last(x: Floats) -> Floats:
    """[N, C, H, W] as [N, H, W, C]; anything of another rank as it is."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x
