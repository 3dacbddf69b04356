"""Soak `agreement`: the four MLPerf Tiny models through every execution, the emulated core included."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soaks.places import MODELS, ROOT
from edgekd.mcu.bench import pack
from edgekd.mcu.codegen import generate
from edgekd.mcu.dsp.family import family_of
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import find_compiler
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.target import load_target
from tests.graphs import inputs_for
from tests.qgraph.interpreters import run_tflite_micro

ON_CORE = 200


def agreement(seed: int, count: int, on_core: int = ON_CORE) -> dict[str, Any]:
    """The four MLPerf Tiny models on `count` inputs each (a quarter uniform, near the zero point,
    extremes, real-like): reference = TFLite Micro = C on the host on all, = C on the core on `on_core`."""
    rows = {}
    for path in sorted(MODELS.glob("*.tflite")):
        began = time.monotonic()
        graph = strip_float_edges(read_tflite(path.read_bytes(), path.stem))
        rows[path.stem] = _differences(graph, seed, count, min(count, on_core))
        rows[path.stem]["seconds"] = round(time.monotonic() - began, 1)
        print(path.stem, rows[path.stem], file=sys.stderr, flush=True)
    return {"models": rows, "differing_bytes": sum(r["differing_bytes"] for r in rows.values())}


def _differences(graph: QGraph, seed: int, count: int, on_core: int) -> dict[str, Any]:
    """Differing output bytes between the executions of one graph."""
    inputs = inputs_for(graph, np.random.default_rng(seed), count)
    expected = pack(run(graph, inputs))
    micro = pack(run_tflite_micro(graph, inputs))
    target = load_target("mcu-sim", [ROOT / "targets"])
    family = family_of(target.core.cpu)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generated = folder / "c"
        generated.mkdir()
        for file, text in generate(graph, family).files.items():
            (generated / file).write_text(text)
        compiler = find_compiler("clang", folder / "cache")
        host = HostModel(generated, compiler, folder / "host").run(pack(inputs)).view(np.uint8)
        (folder / "image").mkdir()
        build_image(generated, target, compiler, folder / "image")
        elf, layers = folder / "image" / "firmware.elf", generated / "layers.json"
        core = run_image(elf, layers, target, pack(inputs)[:on_core], counted=1, watched=1).outputs
    differing = [int((other != expected[: len(other)]).sum()) for other in (micro, host, core)]
    names = ("tflite_micro", "c_on_host", "c_on_core")
    return {
        "kernels": family,
        "inputs": count,
        "inputs_on_core": on_core,
        "differing_bytes": sum(differing),
        "by_execution": dict(zip(names, differing, strict=True)),
    }
