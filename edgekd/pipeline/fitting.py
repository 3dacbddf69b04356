"""`compress --to-fit`: the mildest combination of methods that fits a microcontroller and passes the gate.

Every combination is priced before anything is tuned; then those that fit are made in turn, the mildest
first, each stage kept in the store: stopped, it goes on where it was. The first that passes the gate as
integers, and whose integers fit as well, is the answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekd.declaration import told
from edgekd.errors import BudgetError, ConfigError
from edgekd.pipeline import evaluating, graph
from edgekd.pipeline.costing import predicted
from edgekd.pipeline.request import Request
from edgekd.recipe import CompressParams
from edgekd.target import Target

if TYPE_CHECKING:
    from edgekd.compress.ladder import Rung
    from edgekd.learn.structure import Structure


def limits_of(
    target: Target, max_flash: int | None, max_ram: int | None, max_cycles: int | None
) -> dict[str, float]:
    """What a model may take: the profile's memory (and latency, where it limits it), or the caller's less."""
    assert target.memory is not None and target.core is not None
    found = {"flash_bytes": target.memory.flash_bytes, "ram_bytes": target.memory.ram_bytes}
    if target.limits.max_latency_us is not None:
        found["cycles"] = int(target.limits.max_latency_us * target.core.clock_hz / 1e6)
    for name, most in (("flash_bytes", max_flash), ("ram_bytes", max_ram), ("cycles", max_cycles)):
        if most is not None:
            if name in found and most > found[name]:
                raise ConfigError(
                    f"--max-{name.removesuffix('_bytes')} {most:,} is more than target {target.name} has "
                    f"({found[name]:,}); leave it out"
                )
            found[name] = most
    return {name: float(most) for name, most in found.items()}


def fit(request: Request, limits: Mapping[str, float]) -> dict[str, Any]:
    """Try combinations until one fits `limits` and passes the gate; makes the distilled student first.

    Returns {"target", "limits", "tried": [row], "chosen": the [compress] table or None, "reason": None or the
    sentence that says what is in the way: the nearest, and the gap}. A row: methods, strength, costs
    (predicted), over (quantity -> too much), accuracy, outcome ("chosen", "failed the gate", "does not fit",
    "fits, not tried"), said.
    """
    from edgekd.compress.ladder import rungs
    from edgekd.learn.student import load_student

    target, recipe = request.need_target("mcu"), request.need_recipe()
    net = load_student(graph.make(request, "distill").path).net

    def price(structure: Structure, bits: Mapping[int, int]) -> dict[str, float]:
        request.progress(f"price {structure.macs:,} multiply-accumulates", 0, 1)
        return predicted(structure, target, bits)

    rows, chosen = [], None
    for rung in rungs(net, recipe.compress, price, limits):
        row = _row(rung)
        if rung.fits and chosen is None:
            row |= _tried(request, rung.params, limits)
            chosen = rung if row["outcome"] == "chosen" else None
        rows.append(row)
    answer = {"target": target.name, "limits": dict(limits), "tried": rows}
    table = None if chosen is None else told(chosen.params)
    return answer | {"chosen": table, "reason": None if chosen else _reason(target, rows, limits)}


def _row(rung: Rung) -> dict[str, Any]:
    outcome = "fits, not tried" if rung.fits else "does not fit"
    figures = {"strength": rung.strength, "costs": dict(rung.costs), "over": dict(rung.missing)}
    return {"methods": list(rung.params.methods), **figures, "accuracy": None, "outcome": outcome, "said": ""}


def _tried(request: Request, params: CompressParams, limits: Mapping[str, float]) -> dict[str, Any]:
    """Make one combination as integers: what the gate says, and whether the integers fit as well."""
    recipe = dataclasses.replace(request.need_recipe(), compress=params)
    asked = dataclasses.replace(request, recipe=recipe, priced_on=None)
    try:
        made = graph.make(asked, "quantize")
    except BudgetError as error:
        return {"outcome": "failed the gate", "said": str(error)}
    evaluation = graph.make(asked, evaluating.GATES["quantize"].by, gated=False)
    accuracy = evaluation.metrics["value"]
    over = _over(asked, made, limits)
    if over:
        said = ", ".join(f"{amount:,.0f} {name} too many" for name, amount in over.items())
        return {"outcome": "does not fit", "said": f"as integers: {said}", "accuracy": accuracy, "over": over}
    return {"outcome": "chosen", "accuracy": accuracy}


def _over(request: Request, made: Any, limits: Mapping[str, float]) -> dict[str, float]:
    """What the integers take too much of."""
    from edgekd.pipeline.costing import priced
    from edgekd.pipeline.shipping import graph_of

    costs = priced(graph_of(made), request.need_target("mcu"))
    return {name: costs[name] - most for name, most in limits.items() if costs.get(name, 0) > most}


def _reason(target: Target, rows: list[dict[str, Any]], limits: Mapping[str, float]) -> str:
    """What is in the way: the nearest that does not fit and its gap, or that the gate refused what fits."""
    within = " and ".join(f"{most:,.0f} {name}" for name, most in limits.items())
    fitting = [row for row in rows if not row["over"]]
    if fitting:
        return (
            f"{len(fitting)} combinations fit {within} on {target.name}, and none passes the gate; the "
            f"mildest, {_named(fitting[0])}: {fitting[0]['said']}"
        )
    nearest = rows[0]
    gap = " and ".join(f"{over:,.0f} {name} too many" for name, over in nearest["over"].items())
    return (
        f"no combination of methods fits {within} on {target.name}; the nearest is {_named(nearest)} with "
        f"{gap}: raise the limits, take a smaller student, or a larger target"
    )


def _named(row: Mapping[str, Any]) -> str:
    name = " then ".join(row["methods"]) or "the student as it is"
    return name if row["strength"] is None else f"{name} at {row['strength']:g}"
