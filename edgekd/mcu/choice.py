"""Which kernel runs each layer: the candidates of a graph, their modelled cost, and the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekd.mcu.candidate import Candidate
from edgekd.mcu.codegen_case import Case, Emission
from edgekd.mcu.codegen_ops import EMITTERS
from edgekd.mcu.codegen_updatable import externalized
from edgekd.mcu.costs import work_of
from edgekd.mcu.dsp.family import dsp_candidates
from edgekd.mcu.options import Options
from edgekd.mcu.plan import plan
from edgekd.mcu.sizes import Part, Sizes, sizes_of
from edgekd.mcu.work import Work
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.residual import KIND as RESIDUAL
from edgekd.target import CostModel

# What a byte of flash is worth, as a share of the fastest choice's cycles: with "speed" a kilobyte of code
# must save a thousandth of them; with "flash" cycles only decide among equals.
PRICES = {"speed": 1e-6, "ram": 3e-5, "flash": 1e3, "balanced": 1e-5}
UNKNOWN_CYCLES = 1e12

Candidates = dict[int, tuple["Priced", ...]]


@dataclass(frozen=True)
class Priced:
    """A candidate, what it runs (None: not known), its own bytes of flash and the functions that it needs."""

    candidate: Candidate
    work: Work | None
    cycles: float
    own_bytes: int
    parts: frozenset[Part]

    @property
    def emission(self) -> Emission:
        return self.candidate.emission

    def figures(self, cost: CostModel) -> dict[str, Any]:
        """For reports: kernel, instructions and cycles (None where they are not known), and flash_bytes, the
        layer's own (weights, tables, struct), without code that others may share."""
        spent = (None, None) if self.work is None else (self.work.instructions, self.work.cycles(cost))
        rounded = [None if value is None else round(value) for value in spent]
        own = {"kernel": self.candidate.kernel, "flash_bytes": self.own_bytes}
        return own | {"instructions": rounded[0], "cycles": rounded[1]}


@dataclass(frozen=True)
class Chosen:
    """A layer's kernel, and the others that could run it, the fewest cycles first."""

    best: Priced
    others: tuple[Priced, ...]

    def running(self, emission: Emission, options: Options) -> Chosen:
        """The same choice where the best one's emission became another."""
        if emission is self.best.emission or emission.calls == self.best.emission.calls:
            return self
        best = _price(replace(self.best.candidate, emission=emission), options, sizes_of(options.compiler))
        return replace(self, best=best)


def candidates_of(graph: QGraph, family: str, options: Options) -> dict[int, tuple[Candidate, ...]]:
    """Op index -> every way to run it, of the ops that run at all. Updatable builds are portable.

    Raises UnsupportedOpError for what no kernel can run.
    """
    is_updatable = options.library.is_updatable
    plain = options.optimize in ("ram", "balanced")
    found = dsp_candidates(graph, options.winograd, plain) if family == "dsp" and not is_updatable else None
    every: dict[int, tuple[Candidate, ...]] = {}
    for index in range(len(graph.ops)):
        if not _runs(graph, index):
            continue
        own = found.candidates.get(index, ()) if found else ()
        if options.optimize == "flash" and _is_packed_matrix(graph, index):
            own = ()
        in_planes = found is not None and not found.planes.isdisjoint(
            (*graph.ops[index].inputs, *graph.ops[index].outputs)
        )
        together = graph.ops[index].kind == RESIDUAL  # only the family runs it
        every[index] = own if in_planes or together else (*own, portable(graph, index, options))
    return every


def _is_packed_matrix(graph: QGraph, index: int) -> bool:
    """A FULLY_CONNECTED whose weights are indices: only the portable family reads those."""
    op = graph.ops[index]
    encoding = graph.tensors[op.inputs[1]].encoding if op.kind == "FULLY_CONNECTED" else None
    return encoding is not None and encoding.stored_bits < 8


def portable(graph: QGraph, index: int, options: Options) -> Candidate:
    """The kernel in portable C."""
    is_updatable = options.library.is_updatable
    case = Case(graph, index, is_updatable=is_updatable, wants_flash=options.optimize == "flash")
    emitter: Callable[[Case], Emission] | None = EMITTERS.get(case.op.kind)
    if emitter is None:
        case.fail("generated C has no kernel for it")
    emission = emitter(case)
    return Candidate("portable", externalized(index, emission) if is_updatable else emission)


def _runs(graph: QGraph, index: int) -> bool:
    """A RESHAPE of an activation is an alias; everything else is a layer."""
    op = graph.ops[index]
    return op.kind != "RESHAPE" or graph.tensors[op.inputs[0]].is_constant


def choose(graph: QGraph, family: str, options: Options) -> dict[int, Chosen]:
    """The kernel of every layer: the least price of cycles and flash together, within the limits.

    The arena's limit is met first (by candidates of less scratch), then that of flash (by a higher price of
    a byte). What no choice meets gets the nearest one.
    """
    sizes = sizes_of(options.compiler)
    every = {
        index: tuple(_price(candidate, options, sizes) for candidate in candidates)
        for index, candidates in candidates_of(graph, family, options).items()
    }
    allowed = {index: _preferred(found, options.prefer) for index, found in every.items()}
    allowed = within_arena(graph, allowed, options)
    best = within_flash(allowed, options, sizes)
    return {
        index: Chosen(best[index], tuple(sorted((p for p in found if p is not best[index]), key=_cycles)))
        for index, found in every.items()
    }


def _cycles(priced: Priced) -> float:
    return priced.cycles


def _price(candidate: Candidate, options: Options, sizes: Sizes) -> Priced:
    work = work_of(candidate.emission, options.compiler)
    cycles = UNKNOWN_CYCLES if work is None else work.cycles(options.cost)
    return Priced(
        candidate, work, cycles, sizes.own_bytes(candidate.emission), sizes.parts(candidate.emission)
    )


def _preferred(found: tuple[Priced, ...], prefer: tuple[str, ...]) -> tuple[Priced, ...]:
    liked = tuple(priced for priced in found if prefer and priced.candidate.kernel.startswith(prefer))
    return liked or found


def within_arena(graph: QGraph, allowed: Candidates, options: Options) -> Candidates:
    """Without the candidates whose scratch makes the arena too large, as long as others are left."""
    limit = options.ram_bytes
    while limit is not None:
        fastest = {index: min(found, key=_cycles) for index, found in allowed.items()}
        scratch = {index: priced.emission.scratch_bytes for index, priced in fastest.items()}
        if plan(graph, scratch).arena_bytes <= limit:
            break
        leaner = {index: _leaner(found, scratch[index]) for index, found in allowed.items()}
        waiting = [index for index in scratch if leaner[index]]
        if not waiting:
            break
        largest = max(waiting, key=lambda index: scratch[index])
        allowed = allowed | {largest: leaner[largest]}
    return allowed


def _leaner(found: tuple[Priced, ...], scratch_bytes: int) -> tuple[Priced, ...]:
    return tuple(priced for priced in found if priced.emission.scratch_bytes < scratch_bytes)


def within_flash(allowed: Candidates, options: Options, sizes: Sizes) -> dict[int, Priced]:
    """The choice at the mode's price of a byte, or at the first higher one that meets the limit."""
    least = [min(priced.cycles for priced in found) for found in allowed.values()]
    fastest = sum(cycles for cycles in least if cycles < UNKNOWN_CYCLES)
    price = fastest * PRICES[options.optimize]
    best = cheapest(allowed, price, sizes)
    while options.flash_bytes is not None and price < fastest:
        if sizes.image_bytes + flash_of(best.values(), sizes) <= options.flash_bytes:
            break
        price *= 4
        best = cheapest(allowed, price, sizes)
    return best


def flash_of(best: Iterable[Priced], sizes: Sizes) -> int:
    """Bytes of the layers and of every function that they need."""
    chosen = list(best)
    parts = {part for priced in chosen for part in priced.parts}
    return sum(priced.own_bytes for priced in chosen) + sizes.code_bytes(parts)


def cheapest(allowed: Candidates, price: float, sizes: Sizes) -> dict[int, Priced]:
    """The least sum of cycles and `price` a byte of flash that a local search finds.

    Code is shared: a function costs its bytes once. The search starts from each layer's own best, and from
    every kernel taken wherever it runs; it gives up functions one by one where the sum falls by it, then
    changes single layers until that helps no more.
    """
    names = sorted({priced.candidate.kernel for found in allowed.values() for priced in found})
    starts = [_picked(allowed, price, liked) for liked in ("", *(names if price else ()))]
    ends = [_polished(allowed, _dropped(allowed, start, price, sizes), price, sizes) for start in starts]
    return min(ends, key=lambda best: _total(best, price, sizes))


def _picked(allowed: Candidates, price: float, liked: str = "") -> dict[int, Priced]:
    """The kernel `liked` where it is a candidate, else each layer's own best."""

    def rank(priced: Priced) -> tuple[bool, float]:
        return priced.candidate.kernel != liked, priced.cycles + price * priced.own_bytes

    return {index: min(found, key=rank) for index, found in allowed.items()}


def _dropped(allowed: Candidates, best: dict[int, Priced], price: float, sizes: Sizes) -> dict[int, Priced]:
    """Without the functions whose users are cheaper off with others."""
    least = _total(best, price, sizes)
    for part in sorted({part for priced in best.values() for part in priced.parts}):
        others = {i: tuple(p for p in allowed[i] if part not in p.parts) for i in best}
        if all(others[i] for i, priced in best.items() if part in priced.parts):
            moved = _picked({i: others[i] for i, p in best.items() if part in p.parts}, price)
            total = _total(best | moved, price, sizes)
            if total < least:
                best, least = best | moved, total
    return best


def _polished(allowed: Candidates, best: dict[int, Priced], price: float, sizes: Sizes) -> dict[int, Priced]:
    """Single layers changed, each to what costs least beside the functions that others use anyway."""
    uses = Counter(part for priced in best.values() for part in priced.parts)
    changing = True
    while changing:
        changing = False
        for index, found in allowed.items():
            uses.subtract(best[index].parts)
            costs = [
                p.cycles + price * (p.own_bytes + sizes.code_bytes(q for q in p.parts if not uses[q]))
                for p in found
            ]
            least = found[costs.index(min(costs))]
            if min(costs) < costs[found.index(best[index])]:
                best, changing = best | {index: least}, True
            uses.update(best[index].parts)
    return best


def _total(best: Mapping[int, Priced], price: float, sizes: Sizes) -> float:
    return sum(p.cycles for p in best.values()) + price * flash_of(best.values(), sizes)
