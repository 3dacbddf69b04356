"""Soak `graphs`: random graphs, TFLite Micro = integer reference = generated C of both kernel
families on the host, byte for byte.

Graphs are compiled a batch at a time; a batch that differs is taken apart to name the graph. The
histogram says how often each operator, attribute, form and kernel was reached.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.mcu.codegen import generate
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from tests.graphs import inputs_for
from tests.mcu.generated import merge, pack, unpack, write
from tests.qgraph.interpreters import run_tflite_micro
from tests.random_graphs import dsp_kernels, passed, reached, wide_graph

SAMPLES = 8
BATCH = 10
FAMILIES = ("portable", "dsp")
OFTEN_ENOUGH = 30


def graphs(seed: int, count: int) -> dict[str, Any]:
    """`count` graphs on SAMPLES inputs each; what was reached, and where any two executions differ."""
    hits: Counter[str] = Counter()
    differing: list[dict[str, Any]] = []
    ops = 0
    with tempfile.TemporaryDirectory() as name:
        compiler = find_compiler("clang", Path(name) / "cache")
        for first in range(0, count, BATCH):
            batch = [_graph(seed, index) for index in range(first, min(first + BATCH, count))]
            ops += sum(len(graph.ops) for graph in batch)
            for graph in batch:
                model = generate(graph)
                hits.update(reached(graph, model.files["model.c"]))
                hits.update(dsp_kernels(generate(graph, "dsp").files["model.c"]))
                hits.update(passed(model))
            differing += _differences(batch, seed, first, compiler, Path(name) / str(first))
            print(f"graphs {first + len(batch)}/{count}", file=sys.stderr, flush=True)
    return {
        "ops": ops,
        "samples_a_graph": SAMPLES,
        "differing_bytes": sum(row["differing_bytes"] for row in differing),
        "differing_graphs": differing,
        "hit_often_enough": OFTEN_ENOUGH,
        "seldom_hit": sorted(feature for feature, hit in hits.items() if hit < OFTEN_ENOUGH),
        "hits": dict(sorted(hits.items())),
    }


def _on_host(graph: QGraph, inputs: list[Any], compiler: Compiler, folder: Path, family: str) -> list[Any]:
    """The outputs of the C of a kernel family; its assembly stands there as the C twins."""
    directory = write(generate(graph, family), folder / family)
    return unpack(graph, HostModel(directory, compiler, folder / f"{family}-host").run(pack(inputs)))


def histogram(hits: dict[str, int]) -> list[str]:
    """One line a feature, a bar as long as the logarithm of its hits."""
    return [f"{feature:<50}{hit:>7}  {'#' * int(4 * np.log2(hit + 1))}" for feature, hit in hits.items()]


def _graph(seed: int, index: int) -> QGraph:
    return wide_graph(np.random.default_rng([seed, index]))


def _differences(
    batch: list[QGraph], seed: int, first: int, compiler: Compiler, folder: Path
) -> list[dict[str, Any]]:
    """Per graph that differs: its index, the execution and the number of bytes."""
    inputs = [
        inputs_for(g, np.random.default_rng([seed, first + i, 1]), SAMPLES) for i, g in enumerate(batch)
    ]
    expected = [run(graph, x) for graph, x in zip(batch, inputs, strict=True)]
    merged, every = merge(batch), [x for xs in inputs for x in xs]
    ours = {family: _on_host(merged, every, compiler, folder, family) for family in FAMILIES}
    rows, at = [], 0
    for i, graph in enumerate(batch):
        found = {f"c_on_host_{name}": parts[at : at + len(graph.outputs)] for name, parts in ours.items()}
        at += len(graph.outputs)
        for who, outputs in (("tflite_micro", run_tflite_micro(graph, inputs[i])), *found.items()):
            differ = sum(int((a != b).sum()) for a, b in zip(outputs, expected[i], strict=True))
            if differ:
                rows.append({"graph": first + i, "execution": who, "differing_bytes": differ})
    return rows
