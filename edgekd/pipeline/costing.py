"""What a structure costs on a microcontroller before anything is trained or built, and pruning to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from edgekd.declaration import told
from edgekd.errors import ConfigError
from edgekd.pipeline.request import Job, Request
from edgekd.target import Target

if TYPE_CHECKING:
    from edgekd.compress.widths import DeviceCosts
    from edgekd.learn.structure import Structure
    from edgekd.qgraph.ir import QGraph


def priced(graph: QGraph, target: Target) -> dict[str, float]:
    """What a graph costs on `target`, as `check` tells it.

    Keys: instructions and cycles (predicted), ram_bytes (with the reserved stack) and flash_bytes (a bound of
    the code's included); what cannot be told is left out.
    """
    from edgekd.mcu.check import check

    row = check(graph, [target], "clang")["targets"][0]
    names = {"ram_bytes": "ram_need", "flash_bytes": "flash_need"}
    names |= {"instructions": "instructions", "cycles": "cycles"}
    return {name: float(row[key]) for name, key in names.items() if row[key] is not None}


def predicted(
    structure: Structure, target: Target, bits: Mapping[int, int] | None = None
) -> dict[str, float]:
    """What a structure costs on `target` as int8: its blank graph, priced; bits: as that takes them."""
    from edgekd.compress.blank import blank_graph

    return priced(blank_graph(structure, bits), target)


def device_costs(target: Target) -> DeviceCosts:
    """The costs on `target` of any structure, each told once."""
    return cache(lambda structure: predicted(structure, target))


def widths_params(request: Request) -> dict[str, Any]:
    """What decides widths: how the recipe prunes, and what of the profile the costs depend on."""
    recipe, target = request.need_recipe(), _priced_on(request)
    tables = {table: told(getattr(target, table)) for table in ("core", "memory", "cost")}
    asked = told(recipe.compress)
    return tables | {key: asked[key] for key in ("prune_to", "prune_floor") if key in asked}


def run_widths(job: Job) -> dict[str, Any]:
    from edgekd.compress.stage import choose_widths

    costs = device_costs(_priced_on(job.request))
    return choose_widths(job.path("student"), job.request.need_recipe(), costs, job.out)


def _priced_on(request: Request) -> Target:
    if request.priced_on is None:
        raise ConfigError("compress.prune_to names no target; set one (`invoke targets` lists them)")
    return request.priced_on
