"""Around the network itself: the header, the blob of weights, names, profile, self-test, under one prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgekd.mcu.codegen_header import Facts, edges, header
from edgekd.mcu.codegen_info import info_source
from edgekd.mcu.codegen_prefix import renamed
from edgekd.mcu.codegen_selftest import expected_checksums, selftest_source
from edgekd.mcu.codegen_slow import Slow, slow_source
from edgekd.mcu.codegen_text import Array
from edgekd.mcu.codegen_weights import (
    FIXED,
    Weights,
    header_text,
    layout_of,
    model_digest,
    ordered,
    source_text,
)
from edgekd.mcu.library import Library
from edgekd.qgraph.ir import QGraph


class Layer(Protocol):
    """What is told of a layer."""

    @property
    def name(self) -> str: ...
    @property
    def symbol(self) -> str: ...
    @property
    def macs(self) -> int: ...


def completed(
    graph: QGraph,
    network: Mapping[str, str],
    arrays: Sequence[Array],
    layers: Sequence[Layer],
    arena_bytes: int,
    library: Library,
    profile: str,
    slow: Slow | None = None,
) -> tuple[dict[str, str], Weights]:
    """The whole directory, sorted by name, and its weights.

    graph: as given, before passes; network: model.c, the kernels and what else the layers need; profile: the
    body of model_profile. slow: the part of the tensors that lies in slow RAM.
    """
    expected = expected_checksums(graph, library.selftest_vectors) if library.selftest_vectors else None
    if library.is_updatable and expected is not None:  # the vectors' answers change with the weights
        arrays = [*arrays, expected]
    arrays = ordered(arrays)
    files = dict(network) | {"model_weights.h": header_text(arrays, library.is_updatable)}
    layout = layout_of(files, _edges(graph)) if library.is_updatable else FIXED
    weights = Weights(arrays, layout, model_digest(graph))
    facts = Facts(arena_bytes, weights.bytes, len(layers), sum(layer.macs for layer in layers), weights.model)
    files["model.h"] = header(graph, facts, library, slow)
    if slow is not None:
        files["model_slow.c"] = slow_source(slow)
    files["model_weights.c"] = source_text(weights)
    named = [(layer.name, layer.symbol) for layer in layers]
    files["model_info.c"] = info_source(named, library.labels, profile, is_updatable=library.is_updatable)
    if expected is not None:
        files["model_selftest.c"] = selftest_source(graph, None if library.is_updatable else expected)
    return renamed(dict(sorted(files.items())), library.prefix), weights


def _edges(graph: QGraph) -> str:
    sides = (("INPUT", graph.inputs), ("OUTPUT", graph.outputs))
    lines = [line for side, tensors in sides for line in edges(side, [graph.tensors[i] for i in tensors])]
    return "\n".join(line for line in lines if not line.startswith("\n/*"))
