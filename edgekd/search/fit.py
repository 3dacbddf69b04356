"""What a student of the space costs on the target, and how far that is from what it may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgekd.compress.blank import blank_graph
from edgekd.errors import BudgetError, ConfigError, UnsupportedOpError
from edgekd.learn.structure import MODELS, Structure
from edgekd.mcu.options import options_for
from edgekd.mcu.price import price
from edgekd.recipe import StudentParams
from edgekd.search.space import Candidate, Choice, Space
from edgekd.target import Target

LIMITS = ("cycles", "instructions", "ram_bytes", "flash_bytes")
_STARTS = 3  # points that the look for a fitting student begins from


@dataclass(frozen=True)
class Pricer:
    """limits: of LIMITS, what a student may cost at most."""

    target: Target
    compiler: str
    input_shape: tuple[int, ...]
    classes: int
    limits: Mapping[str, int]

    def costs(self, candidate: Candidate) -> dict[str, int]:
        """LIMITS -> what the code of `candidate` costs. Raises UnsupportedOpError."""
        bits = candidate.layer_bits(self.input_shape[0])
        return self._costs(candidate.structure(self.input_shape, self.classes), bits)

    def student_costs(self, student: StudentParams) -> dict[str, int]:
        """The same of a recipe's own student."""
        return self._costs(MODELS[student.model](student, self.input_shape, self.classes), {})

    def _costs(self, structure: Structure, bits: Mapping[int, int]) -> dict[str, int]:
        roomy = replace(options_for(self.target, compiler=self.compiler), flash_bytes=None, ram_bytes=None)
        found = asdict(price(blank_graph(structure, bits), self.target, roomy))
        unknown = [name for name, value in found.items() if value is None]
        if unknown:
            raise UnsupportedOpError(f"{unknown[0]} of a student cannot be predicted for {self.target.name}")
        return found

    def excess(self, costs: Mapping[str, int]) -> dict[str, float]:
        """Limit -> costs / limit - 1: above 0 where it is broken."""
        return {name: costs[name] / limit - 1 for name, limit in self.limits.items()}

    def broken_by(self, costs: Mapping[str, int]) -> float:
        """The sum of what is too much; 0 where all fits."""
        return sum(max(0.0, value) for value in self.excess(costs).values())


def limits_of(target: Target, wanted: Mapping[str, int]) -> dict[str, int]:
    """The limits asked for (0: none), and the target's own memory. Raises ConfigError beyond that."""
    assert target.memory is not None
    own = {"ram_bytes": target.memory.ram_bytes, "flash_bytes": target.memory.flash_bytes}
    for name, have in own.items():
        if wanted.get(name, 0) > have:
            raise ConfigError(
                f"the search may take {wanted[name]:,} {name.replace('_', ' ')} and target {target.name} has "
                f"{have:,}; ask for less, or take another target"
            )
    return own | {name: value for name, value in wanted.items() if value}


def fitting_point(space: Space, pricer: Pricer) -> dict[str, Choice]:
    """A point whose student fits: downhill from the smallest choices, one dimension at a time.

    Raises BudgetError with the nearest and by how much it breaks the limits where none is found.
    """
    best: tuple[float, dict[str, Choice]] | None = None
    for start in _starts(space):
        found = _downhill(space, pricer, start)
        if found[0] == 0:
            return found[1]
        best = min([found, *([best] if best else [])], key=lambda pair: pair[0])
    assert best is not None
    candidate = space.candidate(best[1])
    costs = pricer.costs(candidate)
    over = [
        f"{costs[name]:,} {name.replace('_', ' ')} of {pricer.limits[name]:,} ({100 * much:.0f} % too many)"
        for name, much in pricer.excess(costs).items()
        if much > 0
    ]
    raise BudgetError(
        f"no student of [search] fits: the nearest ({described(candidate)}) needs {' and '.join(over)}; "
        "allow more, or smaller choices (channels, stem_channels, depths; larger strides)"
    )


def described(candidate: Candidate) -> str:
    """A student in a line: "conv 8 /2, separable 16 /2 x2, residual 24 (4 bits)"."""

    def said(block: Any, bits: int) -> str:
        text = f"{block.kind} {block.stride}" if block.kind == "shrink" else f"{block.kind} {block.channels}"
        text += f" e{block.expansion}" if block.expansion > 1 else ""
        text += f" k{block.kernel}" if block.kernel != 3 else ""
        text += f" /{block.stride}" if block.stride > 1 and block.kind != "shrink" else ""
        text += f" x{block.repeat}" if block.repeat > 1 else ""
        return text + (f" ({bits} bits)" if bits < 8 else "")

    return ", ".join(said(*pair) for pair in zip(candidate.blocks, candidate.bits, strict=True))


def _starts(space: Space) -> Iterator[dict[str, Choice]]:
    """The smallest choices, with each of the first kinds of block."""
    smallest = {
        name: choices[-1] if name.startswith(("stride", "shrink", "stem_stride")) else choices[0]
        for name, choices in space.dimensions.items()
    }
    for kind in space.dimensions["kind1"][:_STARTS]:
        yield {name: kind if name.startswith("kind") else value for name, value in smallest.items()}


def _downhill(space: Space, pricer: Pricer, point: dict[str, Choice]) -> tuple[float, dict[str, Choice]]:
    def broken(at: dict[str, Choice]) -> float:
        return pricer.broken_by(pricer.costs(space.candidate(at)))

    least, moved = broken(point), True
    while moved and least > 0:
        moved = False
        for name, choices in space.dimensions.items():
            for choice in choices:
                if choice != point[name] and least > 0:
                    tried = point | {name: choice}
                    found = broken(tried)
                    if found < least:
                        least, point, moved = found, tried, True
    return least, point
