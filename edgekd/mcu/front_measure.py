"""One build of a front, built and run on the emulated core: what the estimates are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import VerifyError
from edgekd.mcu.bench import Bytes, pack
from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.target import Target


def measure(
    model: GeneratedModel,
    graph: QGraph,
    inputs: list[Any],
    target: Target,
    compiler: Compiler,
    work: Path,
) -> dict[str, Any]:
    """Build `model` (generated from `graph`) in the empty folder `work`, run `inputs` [N, ...] on the core.

    Returns {"cycles", "instructions", "ram_bytes", "flash_bytes"}: modelled cycles and instructions of the
    slowest sample, arena, statics and the stack that was reached, the linked image. Raises VerifyError where
    an output byte differs from the integer reference's, BudgetError where the image does not fit.
    """
    folder = work / "generated"
    folder.mkdir()
    for name, text in model.files.items():
        (folder / name).write_text(text, "utf-8")
    build_image(folder, target, compiler, work / "image")
    rows: Bytes = pack(inputs)
    layers, elf = folder / "layers.json", work / "image" / "firmware.elf"
    result = run_image(elf, layers, target, rows, counted=len(rows), watched=0)
    if not np.array_equal(result.outputs, pack(run(graph, inputs))):
        raise VerifyError(
            f"{graph.name}: the core's outputs differ from the reference; this is a defect of edgekd, "
            "please report the model"
        )
    image: dict[str, Any] = json.loads((work / "image" / "image.json").read_text("utf-8"))
    ram = image["ram_bytes"]
    return {
        "cycles": max(result.cycles),
        "instructions": max(result.instructions),
        "ram_bytes": ram["arena"] + ram["static"] + (result.peak_stack_bytes or 0),
        "flash_bytes": image["flash_bytes"]["total"],
    }
