"""Checks that take too long for CI: run by `./bootstrap soak NAME`, results kept under benchmarks/results/.

A result names its seed, its count, the commit and the machine. CI runs a slice of each soak whose seed
comes from the commit (tests/spine/test_soak_slices.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))

from edgekd.mcu.bench import pack  # noqa: E402
from edgekd.mcu.codegen import generate  # noqa: E402
from edgekd.mcu.emulator import run_image  # noqa: E402
from edgekd.mcu.firmware import build_image  # noqa: E402
from edgekd.mcu.host import HostModel  # noqa: E402
from edgekd.mcu.toolchain import find_compiler  # noqa: E402
from edgekd.qgraph.edges import strip_float_edges  # noqa: E402
from edgekd.qgraph.ir import QGraph  # noqa: E402
from edgekd.qgraph.reference import run  # noqa: E402
from edgekd.qgraph.tflite_reader import read_tflite  # noqa: E402
from edgekd.target import load_target  # noqa: E402
from tests.graphs import inputs_for  # noqa: E402
from tests.qgraph.interpreters import run_tflite_micro  # noqa: E402

ON_CORE = 200


def agreement(seed: int, count: int, on_core: int = ON_CORE) -> dict[str, Any]:
    """The four MLPerf Tiny models on `count` inputs each (a quarter uniform, near the zero point,
    extremes, real-like): reference = TFLite Micro = C on the host on all, = C on the core on `on_core`."""
    folder = next(p for p in (SHARED / "data" / "mlperf_tiny", SHARED / "mlperf_tiny") if p.is_dir())
    rows = {}
    for path in sorted((folder / "models").glob("*.tflite")):
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generated = folder / "c"
        generated.mkdir()
        for file, text in generate(graph).files.items():
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
        "inputs": count,
        "inputs_on_core": on_core,
        "differing_bytes": sum(differing),
        "by_execution": dict(zip(names, differing, strict=True)),
    }


SOAKS: dict[str, tuple[Callable[[int, int], dict[str, Any]], int]] = {"agreement": (agreement, 1000)}


def machine() -> dict[str, Any]:
    """What the soak ran on."""
    return {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}


def commit() -> str:
    """The commit that is checked out, with + where the tree differs from it."""
    ask = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        [*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    )
    return found + ("+" if changed.stdout.strip() else "")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description="long checks; results under benchmarks/results/"
    )
    parser.add_argument("name", choices=sorted(SOAKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int)
    chosen = parser.parse_args(arguments)
    work, count = SOAKS[chosen.name][0], chosen.count or SOAKS[chosen.name][1]
    began = time.monotonic()
    result = work(chosen.seed, count)
    record = {
        "soak": chosen.name,
        "seed": chosen.seed,
        "count": count,
        "commit": commit(),
        "machine": machine(),
        "minutes": round((time.monotonic() - began) / 60, 2),
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    (RESULTS / f"{chosen.name}.json").write_text(text)
    print(text)
    return 0 if result["differing_bytes"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
