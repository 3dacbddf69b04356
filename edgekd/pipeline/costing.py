"""What a structure costs on a microcontroller before anything is trained or built, and pruning to it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from edgekd.declaration import told
from edgekd.errors import ConfigError
from edgekd.pipeline.request import Job, Request
from edgekd.target import Target

if TYPE_CHECKING:
    from edgekd.compress.widths import DeviceCosts
    from edgekd.learn.structure import Structure


def device_costs(target: Target) -> DeviceCosts:
    """The costs on `target` of any structure as int8: its blank graph, priced as `check` prices a model.

    Keys: instructions and cycles (predicted), ram_bytes (with the reserved stack) and flash_bytes (a bound of
    the code's included); what cannot be told is left out.
    """
    from edgekd.compress.blank import blank_graph
    from edgekd.mcu.check import check

    @cache
    def costs(structure: Structure) -> dict[str, float]:
        row = check(blank_graph(structure), [target], "clang")["targets"][0]
        names = {"ram_bytes": "ram_need", "flash_bytes": "flash_need"}
        names |= {"instructions": "instructions", "cycles": "cycles"}
        return {name: float(row[key]) for name, key in names.items() if row[key] is not None}

    return costs


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
