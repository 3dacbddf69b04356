"""What a graph costs on a core in four numbers, predicted without compiling: what a search asks."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.mcu.codegen import generate
from edgekd.mcu.dsp.family import family_of
from edgekd.mcu.footprint import ROUND_BYTES, predict
from edgekd.mcu.options import Options
from edgekd.qgraph.ir import QGraph
from edgekd.target import Target


@dataclass(frozen=True)
class Price:
    """Of one inference, and of the image.

    instructions, cycles: predicted, cycles modelled; None where a layer's are not known. ram_bytes: arena and
    the profile's reserved stack. flash_bytes: weights, constants and code; weights alone where the sizes of
    code are not known for the core.
    """

    instructions: int | None
    cycles: int | None
    ram_bytes: int
    flash_bytes: int


def price(graph: QGraph, target: Target, options: Options) -> Price:
    """What `graph` (int8 in and out) costs on a microcontroller's profile. Raises UnsupportedOpError."""
    assert target.core is not None and target.memory is not None
    model = generate(graph, family_of(target.core.cpu), options)
    found = predict(model, options.compiler, cpu=target.core.cpu)
    stack_bytes = -(-target.memory.stack_bytes // ROUND_BYTES) * ROUND_BYTES
    return Price(
        instructions=_sum([layer.instructions for layer in model.layers]),
        cycles=_sum([layer.cycles for layer in model.layers]),
        ram_bytes=found.arena + found.static + stack_bytes,
        flash_bytes=found.weights if found.flash_bytes is None else found.flash_bytes,
    )


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
