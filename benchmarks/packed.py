"""Weights as indices beside the same weights as int8, on the emulated Cortex-M4F, as a Markdown table.

    python benchmarks/packed.py [--family dsp] [--compiler clang] [--entries 16] [--tables 1] [MODEL ...]
    python benchmarks/packed.py .edgekd/artifacts/quantize/KEY/int8.onnx

MODEL: an MLPerf Tiny model, whose weights are rounded to tables by k-means, without training: the accuracy is
not the point, the bytes are. Or an int8 model file, which keeps the tables that it brings. Both builds hold
the same values and must give the integer reference's outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.mcu import MODELS  # noqa: E402
from edgekd.errors import VerifyError  # noqa: E402
from edgekd.mcu.codegen import generate  # noqa: E402
from edgekd.mcu.emulator import run_image  # noqa: E402
from edgekd.mcu.firmware import build_image  # noqa: E402
from edgekd.mcu.toolchain import Compiler, find_compiler  # noqa: E402
from edgekd.qgraph import reference  # noqa: E402
from edgekd.qgraph.codebook import share_weights  # noqa: E402
from edgekd.qgraph.edges import strip_float_edges  # noqa: E402
from edgekd.qgraph.ir import QGraph  # noqa: E402
from edgekd.qgraph.loader import load_graph  # noqa: E402
from edgekd.qgraph.tflite_reader import read_tflite  # noqa: E402
from edgekd.target import load_target  # noqa: E402

HEAD = (
    "| model | weights, bytes | packed | | code + constants, bytes | packed | RAM, bytes | packed "
    "| instructions, M | packed | |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Figures:
    """One build; bytes are the linked image's, the stack is what was reached."""

    weights_bytes: int
    code_bytes: int
    ram_bytes: int
    instructions: int


def measure(graph: QGraph, sample: Any, family: str, compiler: Compiler, work: Path) -> Figures:
    """Build `graph` and run one sample; VerifyError where an output byte is not the reference's."""
    folder, target = work / "generated", load_target("mcu-sim", [ROOT / "targets"])
    folder.mkdir(parents=True)
    for file, text in generate(graph, family).files.items():
        (folder / file).write_text(text, encoding="utf-8")
    build_image(folder, target, compiler, work / "image")
    layers, elf = folder / "layers.json", work / "image/firmware.elf"
    result = run_image(elf, layers, target, sample, counted=1, watched=0)
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    expected = reference.run(graph, [sample.view(np.int8).reshape(1, *shape)])[0]
    if not np.array_equal(result.outputs.ravel().view(np.int8), expected.ravel()):
        raise VerifyError(f"{graph.name}: the core's outputs differ from the reference; please report it")
    image: dict[str, Any] = json.loads((work / "image/image.json").read_text("utf-8"))
    flash, ram = image["flash_bytes"], image["ram_bytes"]
    return Figures(
        weights_bytes=flash["weights"],
        code_bytes=flash["code"] + flash["constants"],
        ram_bytes=ram["arena"] + ram["static"] + (result.peak_stack_bytes or 0),
        instructions=max(result.instructions),
    )


def line(name: str, plain: Figures, packed: Figures) -> str:
    """One row of the table."""
    return (
        f"| {name} | {plain.weights_bytes:,} | {packed.weights_bytes:,} "
        f"| {packed.weights_bytes / plain.weights_bytes:.3f} | {plain.code_bytes:,} | {packed.code_bytes:,} "
        f"| {plain.ram_bytes:,} | {packed.ram_bytes:,} | {plain.instructions / 1e6:.3f} "
        f"| {packed.instructions / 1e6:.3f} | {packed.instructions / plain.instructions:.3f} |"
    )


def given(name: str, data: Path, entries: int, tables: int) -> tuple[QGraph, Any]:
    """The graph with shared weights, and the bytes of one input [1, bytes]."""
    if Path(name).suffix:
        graph = strip_float_edges(load_graph(Path(name).read_bytes(), name))
        size = graph.tensors[graph.inputs[0]].nbytes
        return graph, np.random.default_rng(1).integers(0, 256, (1, size), np.uint8)
    graph = read_tflite((data / "models" / f"{name}.tflite").read_bytes(), name)
    size = graph.tensors[graph.inputs[0]].nbytes
    sample = np.fromfile(data / "golden" / f"{name}.input.bin", np.uint8)[:size].reshape(1, size)
    return share_weights(graph, entries, tables), sample


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--family", choices=("dsp", "portable"), default="dsp")
    parser.add_argument("--compiler", choices=("clang", "gcc"), default="clang")
    parser.add_argument("--entries", type=int, default=16)
    parser.add_argument("--tables", type=int, default=1)
    arguments = parser.parse_args()
    data = arguments.shared / "data" / "mlperf_tiny"
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="edgekd-packed-") as folder:
        compiler = find_compiler(arguments.compiler, Path(folder) / "cache")
        for name in arguments.models:
            packed, sample = given(name, data, arguments.entries, arguments.tables)
            plain = replace(packed, tensors=tuple(replace(t, encoding=None) for t in packed.tensors))
            work = Path(folder) / Path(name).stem
            both = [
                measure(graph, sample, arguments.family, compiler, work / kind)
                for kind, graph in (("plain", plain), ("packed", packed))
            ]
            print(line(name, *both), flush=True)


if __name__ == "__main__":
    main()
