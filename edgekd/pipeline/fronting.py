"""The builds that the compiler can make of a model, and which of them no other one beats."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.pipeline.planning import stripped_graph
from edgekd.pipeline.request import Request

if TYPE_CHECKING:
    from edgekd.mcu.front import Build
    from edgekd.qgraph.ir import QGraph

MEASURED_SAMPLES = 2
NOTE = "est.: predicted from the generated text by measured tables; cycles are modelled; nothing was compiled"
LIMIT_NOTE = "at most: what the profile's memory.ram_bytes or memory.flash_bytes says, where less than it has"
MEASURED_NOTE = "run: on the emulated core, outputs equal to the integer reference's; cycles are modelled"


def front_of(request: Request, is_measured: bool = False) -> dict[str, Any]:
    """Every build of the request's int8 model on its target, those of the front first numbered.

    is_measured: build and run those of the front. Returns {"model", "target", "compiler", "builds":
    [{number, label, optimize, winograd, max_ram, max_flash, cycles, instructions, ram_bytes, flash_bytes,
    on_front, measured}], "notes", "picture"}; `number` is null off the front, `measured` null where not run.
    """
    from edgekd.mcu.front import front
    from edgekd.mcu.front_picture import front_svg

    target, graph = request.need_target("mcu"), stripped_graph(request)
    builds, best = front(
        graph, target, request.compiler, lambda done, total: request.progress("front", done, total)
    )
    rows = [_row(build, at in best) for at, build in enumerate(builds)]
    for number, at in enumerate(best, 1):
        rows[at]["number"] = number
    if is_measured:
        for step, at in enumerate(best):
            request.progress("measure", step, len(best))
            rows[at]["measured"] = _measured(request, graph, builds[at])
    found: dict[str, Any] = {"model": graph.name, "target": target.name, "compiler": request.compiler}
    limited = any(builds[at].max_ram or builds[at].max_flash for at in best)
    notes = [NOTE, *([MEASURED_NOTE] if is_measured else []), *([LIMIT_NOTE] if limited else [])]
    found |= {"builds": rows, "notes": notes}
    return found | {"picture": front_svg(found)}


def _row(build: Build, on_front: bool) -> dict[str, Any]:
    names = ("label", "optimize", "winograd", "max_ram", "max_flash")
    figures = ("cycles", "instructions", "ram_bytes", "flash_bytes")
    found = {name: getattr(build, name) for name in (*names, *figures)}
    return {"number": None, **found, "on_front": on_front, "measured": None}


def _measured(request: Request, graph: QGraph, build: Build) -> dict[str, Any]:
    from edgekd.mcu.front_measure import measure
    from edgekd.mcu.toolchain import find_compiler
    from edgekd.pipeline.samples import probe_inputs

    compiler = find_compiler(request.compiler, request.store.work("compiler"))
    inputs = probe_inputs(graph, MEASURED_SAMPLES)
    with tempfile.TemporaryDirectory() as work:
        return measure(build.model, graph, inputs, request.need_target("mcu"), compiler, Path(work))
