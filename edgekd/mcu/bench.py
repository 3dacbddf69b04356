"""Bench of a firmware image: four executions of one graph, held equal, and what the core spent.

The integer reference and the host build of the same C run on every sample; the emulated core runs
all of them, or the first `on_core` where a split is too big to emulate. Every output byte must be
the same in all three: a difference is a VerifyError, not a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError
from edgekd.evaluate.record import spread
from edgekd.mcu.emulator import run_image
from edgekd.mcu.engine import EmulatorResult
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler
from edgekd.progress import Progress, silent
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.target import Target

Bytes = npt.NDArray[np.uint8]

# What one bench may cost: half a minute of emulation without hooks, a few seconds with them.
CORE_MACS = 500_000_000
COUNTED_MACS = 20_000_000
WATCHED_MACS = 1_000_000
LEAST_ON_CORE = 200


@dataclass(frozen=True)
class SamplePlan:
    """How many samples the core runs, counts (exact instructions) and watches (every memory access)."""

    on_core: int
    counted: int
    watched: int


def plan_samples(samples: int, macs: int) -> SamplePlan:
    """Spread the budget: all of a small split, 200 samples of a big one; a few counted and watched."""
    on_core = min(samples, max(LEAST_ON_CORE, CORE_MACS // max(macs, 1)))
    counted = min(on_core, max(3, COUNTED_MACS // max(macs, 1)))
    watched = min(on_core, max(1, min(3, WATCHED_MACS // max(macs, 1))))
    return SamplePlan(on_core, counted, watched)


def bench_image(
    image: Path,
    generated: Path,
    graph: QGraph,
    inputs: list[npt.NDArray[np.generic]],
    target: Target,
    host_compiler: Compiler,
    work: Path,
    *,
    engine: str,
    progress: Progress = silent,
) -> tuple[dict[str, Any], list[npt.NDArray[np.generic]]]:
    """Run `inputs` (one array [N, ...] an input of `graph`, in its dtypes) through every execution.

    image: the directory of `build_image`; generated: the directory of the generated C.
    Returns the measured pieces of a bench record and the outputs (one array [N, ...] an output).
    Raises VerifyError where two executions differ or the core broke a memory rule.
    """
    layers = _read_json(generated / "layers.json")
    samples = len(inputs[0])
    plan = plan_samples(samples, sum(int(layer["macs"]) for layer in layers))
    progress("reference", 0, 1)
    outputs = run(graph, inputs)
    packed, expected = pack(inputs), pack(outputs)
    on_host = HostModel(generated, host_compiler, work).run(packed)
    _hold_equal("the generated C on the host", on_host.view(np.uint8), expected, graph)
    result = run_image(
        image / "firmware.elf",
        generated / "layers.json",
        target,
        packed[: plan.on_core],
        engine=engine,
        counted=plan.counted,
        watched=plan.watched,
        progress=progress,
    )
    _hold_equal(f"the generated C on the {engine} core", result.outputs, expected[: plan.on_core], graph)
    return _pieces(result, plan, target, _read_json(image / "image.json")), outputs


def pack(arrays: list[npt.NDArray[np.generic]]) -> Bytes:
    """Several tensors of N samples as one row of bytes a sample: as model_input and model_output lie."""
    rows = [np.ascontiguousarray(a).view(np.uint8).reshape(len(a), -1) for a in arrays]
    return np.concatenate(rows, axis=1)


def _pieces(
    result: EmulatorResult, plan: SamplePlan, target: Target, image: Mapping[str, Any]
) -> dict[str, Any]:
    assert target.core is not None
    ram = dict(image["ram_bytes"])
    pieces: dict[str, Any] = {
        "samples_on_device": plan.on_core,
        "bit_exact": True,
        "flash_bytes": image["flash_bytes"],
        "device": {"kind": "emulated", "core": target.core.cpu, "engine": result.engine},
    }
    if result.instructions:
        pieces["instructions"] = spread(result.instructions) | {
            "counted_samples": len(result.instructions),
            "by_layer": result.by_layer,
        }
    if result.cycles:
        cycles = spread(result.cycles)
        pieces["estimated_cycles"] = cycles
        pieces["estimated_latency_us"] = cycles["median"] * 1e6 / target.core.clock_hz
    if result.peak_stack_bytes is not None:
        ram["stack"] = result.peak_stack_bytes
        ram["total"] = ram["arena"] + ram["static"] + ram["stack"] + ram.get("slow", 0)
    pieces["ram_bytes"] = ram
    return pieces


def _hold_equal(who: str, got: Bytes, expected: Bytes, graph: QGraph) -> None:
    differing = np.argwhere(got != expected)
    if len(differing):
        sample, position = (int(v) for v in differing[0])
        raise VerifyError(
            f"{graph.name}: {who} differs from the integer reference in {len(differing)} output bytes, "
            f"first in sample {sample}, byte {position}; this is a defect of edgekd, please report the model"
        )


def _read_json(path: Path) -> Any:
    import json

    return json.loads(path.read_text("utf-8"))
