"""The builds that the compiler can make of one model, by cycles, RAM and flash: which of them no other beats.

Each build is the generator's own text with its predicted figures (footprint.py, costs.py); nothing is built
or run. The modes come first; then limits between what the modes need make the choices in between. A pure
function: the same model, the same front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.dsp.family import family_of
from edgekd.mcu.footprint import ROUND_BYTES, predict
from edgekd.mcu.options import OPTIMIZE, Options, options_for
from edgekd.qgraph.ir import QGraph
from edgekd.target import Target

STEPS = 6  # limits tried between the least and the most that the modes need, of RAM and of flash each
WINOGRAD = ("speed", "flash")  # the modes that are looked at with Winograd's convolution too,
LIMITED = ("speed", "flash")  # and under limits: the others plan chains of rows, seconds a build
AXES = ("cycles", "ram_bytes", "flash_bytes")


@dataclass(frozen=True)
class Build:
    """One build. max_ram, max_flash: the limits that it was made under, as a profile's memory has them.

    cycles, instructions: predicted, cycles modelled. ram_bytes: arena, statics and the bound of the stack.
    flash_bytes: weights, constants and the bound of the code. None: not known for this core or kernel.
    """

    optimize: str
    winograd: bool
    max_ram: int | None
    max_flash: int | None
    options: Options
    model: GeneratedModel
    cycles: int | None
    instructions: int | None
    ram_bytes: int | None
    flash_bytes: int | None

    @property
    def figures(self) -> tuple[int, ...] | None:
        """(cycles, RAM, flash), the less the better; None where one is not known."""
        found = (self.cycles, self.ram_bytes, self.flash_bytes)
        known = tuple(value for value in found if value is not None)
        return known if len(known) == len(found) else None

    @property
    def label(self) -> str:
        """The options that make it, and the limit that it was made under."""
        words = ["--optimize", self.optimize, *(["--winograd"] if self.winograd else [])]
        limits = {"RAM": self.max_ram, "flash": self.max_flash}
        return ", ".join([" ".join(words), *(f"{what} at most {n:,}" for what, n in limits.items() if n)])


def front(
    graph: QGraph, target: Target, kind: str, say: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[Build], list[int]]:
    """(builds that differ in their figures, the places of those that none beats), fewest cycles first.

    graph: int8 in and out; kind: "clang" or "gcc"; say: told how many of how many builds were looked at.
    Raises UnsupportedOpError for what C cannot run.
    """
    looking = _Looking(graph, target, kind, say)
    modes = [
        (optimize, winograd)
        for winograd in (False, True)
        for optimize in (WINOGRAD if winograd else OPTIMIZE)
    ]
    limited = [mode for mode in modes if mode[0] in LIMITED]
    looking.total = len(modes) + 2 * STEPS * len(limited)
    found = [build for mode in modes if (build := looking.at(*mode))]
    limits: list[tuple[int | None, int | None]] = [
        *((limit, None) for limit in _between(looking.linked_ram(build) for build in found)),
        *((None, limit) for limit in _between(build.flash_bytes for build in found)),
    ]
    looking.total = len(modes) + len(limited) * len(limits)
    found += [build for limit in limits for mode in limited if (build := looking.at(*mode, *limit))]
    builds = sorted(_different(found), key=lambda build: (build.figures or (), build.label))
    return builds, best([build.figures for build in builds])


def best(points: Sequence[tuple[int, ...] | None]) -> list[int]:
    """The places of the points that none beats; of equal ones the first.

    >>> best([(1, 9), (2, 2), (3, 3), (2, 2), None])
    [0, 1]
    """
    known = [(i, point) for i, point in enumerate(points) if point is not None]
    return [
        i
        for i, point in known
        if not any(
            all(a <= b for a, b in zip(other, point, strict=True)) and (other != point or j < i)
            for j, other in known
            if j != i
        )
    ]


class _Looking:
    """Builds of one model, each as text with its figures."""

    def __init__(self, graph: QGraph, target: Target, kind: str, say: Callable[[int, int], None]) -> None:
        self._graph, self._target, self._kind, self._say = graph, target, kind, say
        self._done = 0
        self.total = 0

    def at(
        self, optimize: str, winograd: bool, max_ram: int | None = None, max_flash: int | None = None
    ) -> Build | None:
        """None where the build does not keep to its limits: nothing can."""
        assert self._target.core is not None and self._target.memory is not None
        roomy = replace(options_for(self._target, optimize, self._kind), winograd=winograd)
        stack_bytes = self._target.memory.stack_bytes
        options = replace(
            roomy,
            ram_bytes=roomy.ram_bytes if max_ram is None else max_ram - stack_bytes,
            flash_bytes=roomy.flash_bytes if max_flash is None else max_flash,
        )
        cpu = self._target.core.cpu
        model = generate(self._graph, family_of(cpu), options)
        self._done += 1
        self._say(self._done, self.total)
        size = predict(model, self._kind, cpu=cpu)
        if max_ram is not None and size.arena + size.static + self._reserved_bytes > max_ram:
            return None
        if max_flash is not None and (size.flash_bytes is None or size.flash_bytes > max_flash):
            return None
        return Build(
            *(optimize, winograd, max_ram, max_flash, options, model),
            cycles=_sum(layer.cycles for layer in model.layers),
            instructions=_sum(layer.instructions for layer in model.layers),
            ram_bytes=size.ram_bytes,
            flash_bytes=size.flash_bytes,
        )

    def linked_ram(self, build: Build) -> int:
        """What a limit of RAM counts: arena, and the whole stack that the profile reserves."""
        return -(-build.model.state_bytes // ROUND_BYTES) * ROUND_BYTES + self._reserved_bytes

    @property
    def _reserved_bytes(self) -> int:
        assert self._target.memory is not None
        return -(-self._target.memory.stack_bytes // ROUND_BYTES) * ROUND_BYTES


def _between(values: Iterable[int | None]) -> list[int]:
    """STEPS limits from the least value on, below the most."""
    known = sorted({value for value in values if value is not None})
    if len(known) < 2:
        return []
    low, high = known[0], known[-1]
    return sorted({low + (high - low) * step // STEPS for step in range(STEPS)})


def _different(builds: Iterable[Build]) -> list[Build]:
    """One build of each figures, the one of the shortest label."""
    found: dict[Any, Build] = {}
    for build in sorted(builds, key=lambda build: (len(build.label), build.label)):
        found.setdefault(build.figures, build)
    return list(found.values())


def _sum(values: Iterable[int | None]) -> int | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None
