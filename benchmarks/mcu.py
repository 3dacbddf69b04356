"""The generated C beside TensorFlow Lite Micro on the emulated Cortex-M4F, as a Markdown table.

    python benchmarks/mcu.py [--target T] [--optimize MODE] [--winograd] [--updatable] [MODEL ...]

Each MLPerf Tiny model is generated, built with clang and GCC, and run on its golden inputs; every output
byte must be equal. TFLM's column is its best row for that core in baseline_tflm.json, counted the same
way. Instructions are counted, cycles are modelled; both are the most over the counted samples. --winograd
lets 3 x 3 convolutions take weights of 3.6 times their bytes; --updatable builds code whose weights can be
replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from edgekd.errors import MissingDependencyError, VerifyError  # noqa: E402
from edgekd.mcu.codegen import generate  # noqa: E402
from edgekd.mcu.emulator import run_image  # noqa: E402
from edgekd.mcu.firmware import build_image  # noqa: E402
from edgekd.mcu.library import Library  # noqa: E402
from edgekd.mcu.options import OPTIMIZE, Options  # noqa: E402
from edgekd.mcu.toolchain import Compiler, find_compiler  # noqa: E402
from edgekd.qgraph.tflite_reader import read_tflite  # noqa: E402
from edgekd.target import Target, load_target  # noqa: E402

MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
COUNTED = 3
HEAD = (
    "| model | compiler | instructions, M (TFLM) | modelled cycles, M | RAM: arena + static + stack (TFLM) "
    "| code + constants (TFLM) | weights |\n|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Figures:
    """One model with one compiler; bytes are the linked image's, the stack is what was reached."""

    instructions: int
    cycles: int
    ram_bytes: int
    code_bytes: int
    weights_bytes: int


def measure(
    name: str, family: str, options: Options, target: Target, data: Path, compiler: Compiler, work: Path
) -> Figures:
    """Build and run one model; VerifyError where an output byte differs from its golden one."""
    graph = read_tflite((data / "models" / f"{name}.tflite").read_bytes(), name)
    model = generate(graph, family, options)
    folder = work / "generated"
    folder.mkdir()
    for file, text in model.files.items():
        (folder / file).write_text(text, encoding="utf-8")
    build_image(folder, target, compiler, work / "image")
    samples, golden = (
        np.fromfile(data / "golden" / f"{name}.{kind}.bin", np.uint8) for kind in ("input", "output")
    )
    inputs = samples.reshape(-1, graph.tensors[graph.inputs[0]].nbytes)
    layers = folder / "layers.json"
    result = run_image(work / "image/firmware.elf", layers, target, inputs, counted=COUNTED, watched=1)
    if not np.array_equal(result.outputs.ravel(), golden):
        raise VerifyError(f"{name}: the core's outputs differ from the golden bytes; please report the model")
    image: dict[str, Any] = json.loads((work / "image/image.json").read_text("utf-8"))
    ram, flash = image["ram_bytes"], image["flash_bytes"]
    return Figures(
        instructions=max(result.instructions),
        cycles=max(result.cycles),
        ram_bytes=ram["arena"] + ram["static"] + (result.peak_stack_bytes or 0),
        code_bytes=flash["code"] + flash["constants"],
        weights_bytes=flash["weights"],
    )


def best_of_tflm(name: str, data: Path) -> Figures:
    """TFLM's row of the fewest instructions on a Cortex-M4."""
    rows = json.loads((data / "baseline_tflm.json").read_text("utf-8"))[f"{name}.tflite"]
    row = min((r for r in rows if r["core"] == "cortex-m4"), key=lambda r: int(r["instructions"]))
    ram = row["arena_bytes"] + row["static_ram_bytes"] + row["peak_stack_bytes"]
    return Figures(row["instructions"], 0, ram, row["runtime_flash_bytes"], row["model_flash_bytes"])


def line(name: str, compiler: str, ours: Figures, theirs: Figures) -> str:
    """One row of the table."""
    return (
        f"| {name} | {compiler} | {ours.instructions / 1e6:.3f} ({theirs.instructions / 1e6:.3f}) "
        f"| {ours.cycles / 1e6:.3f} | {ours.ram_bytes:,} ({theirs.ram_bytes:,}) "
        f"| {ours.code_bytes:,} ({theirs.code_bytes:,}) | {ours.weights_bytes:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--family", choices=("dsp", "portable"), default="dsp")
    parser.add_argument("--target", default="mcu-sim")
    parser.add_argument("--winograd", action="store_true")
    parser.add_argument("--updatable", action="store_true")
    parser.add_argument("--optimize", choices=OPTIMIZE, default="speed")
    arguments = parser.parse_args()
    library = Library(is_updatable=arguments.updatable)
    target = load_target(arguments.target, [ROOT / "targets"])
    data = arguments.shared / "data" / "mlperf_tiny"
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="edgekd-mcu-") as cache:
        for kind in ("clang", "gcc"):
            try:
                compiler = find_compiler(kind, Path(cache))
            except MissingDependencyError as error:
                print(error, file=sys.stderr)
                continue
            options = Options(
                arguments.optimize,
                cost=target.cost,
                winograd=arguments.winograd,
                compiler=kind,
                library=library,
            )
            for name in arguments.models:
                with tempfile.TemporaryDirectory(prefix="edgekd-mcu-") as work:
                    ours = measure(name, arguments.family, options, target, data, compiler, Path(work))
                print(line(name, compiler.kind, ours, best_of_tflm(name, data)), flush=True)


if __name__ == "__main__":
    main()
