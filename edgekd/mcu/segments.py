"""Which layers run by rows: the cuts of a graph into chains and single layers that need the least memory.

Each op is in one segment: alone, as a whole, or in a chain. What a segment needs while it runs depends on it
alone (the tensors alive around it are whole whatever the cuts elsewhere), so the best cuts come from a walk
through the ops that keeps, at each, every pair of memory and extra instructions that no other one beats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from edgekd.mcu.chains import in_planes, make_chain, stage_of
from edgekd.mcu.choice import Chosen
from edgekd.mcu.codegen_case import Emission
from edgekd.mcu.options import Options
from edgekd.mcu.plan import IN_PLACE
from edgekd.mcu.rowcost import extra_instructions
from edgekd.mcu.stream import Chain
from edgekd.qgraph.ir import QGraph

ROWS_A_RUN = (1, 2, 3, 4)
LONGEST = 40  # ops of a chain
BEHIND = 3  # ops that a chain may reach beyond the last one that is crowded
KEPT = 24  # pairs that the walk keeps at each op
# In Options.prefer: "rows 2", "rows 3 parked": all layers that can run by rows do, so many a run.
FORCED = "rows"
# The part of the fastest choice's instructions that rows may cost besides.
SHARES = {"ram": 0.13, "balanced": 0.04}


_REMEMBERED = 16


@dataclass(frozen=True)
class _Cut:
    """Segments up to some op: bytes at the fullest one, instructions that rows cost besides, the chains."""

    peak_bytes: int
    extra: float
    chains: tuple[Chain, ...]


_WALKED: dict[str, list[_Cut]] = {}


def chains_of(graph: QGraph, chosen: Mapping[int, Chosen], options: Options) -> tuple[Chain, ...]:
    """The chains that make the arena least within the mode's price in instructions; none in other modes."""
    share = SHARES.get(options.optimize)
    forced = wishes(options)
    if options.library.is_updatable or options.regions is not None or not (forced or share):
        return ()
    if forced:
        words = forced[0].split()
        return _longest(graph, chosen, int(words[1]), "parked" in words)
    assert share is not None
    works = [found.best.work for found in chosen.values()]
    total = sum(work.instructions for work in works if work is not None)
    cuts = [cut for cut in walk(graph, chosen) if cut.extra <= share * total]
    return min(cuts, key=lambda cut: (cut.peak_bytes, cut.extra)).chains


def wishes(options: Options) -> list[str]:
    """The forms in which layers shall run by rows whatever it costs."""
    return [wish for wish in options.prefer if wish.startswith(FORCED)]


def _longest(graph: QGraph, chosen: Mapping[int, Chosen], most: int, parks: bool) -> tuple[Chain, ...]:
    """From the first op on, always the longest chain."""
    emissions = {index: found.best.emission for index, found in chosen.items()}
    found: list[Chain] = []
    for first in range(len(graph.ops)):
        if found and first <= found[-1].last:
            continue
        last = first
        while last in emissions and stage_of(graph, last, emissions[last], 1) is not None:
            last += 1
        chains = (
            make_chain(graph, emissions, first, end, most, parks=parks)
            for end in reversed(range(first, last))
        )
        found += [chain for chain in chains if chain is not None][:1]
    return tuple(found)


def walk(graph: QGraph, chosen: Mapping[int, Chosen]) -> list[_Cut]:
    """Every pair of memory and instructions worth having, by memory.

    The last results are kept: many builds of one model (a front of them) differ in nothing that counts here.
    """
    key = _key(graph, chosen)
    if key not in _WALKED:
        while len(_WALKED) >= _REMEMBERED:
            _WALKED.pop(next(iter(_WALKED)))
        _WALKED[key] = _walk(graph, chosen)
    return _WALKED[key]


def _key(graph: QGraph, chosen: Mapping[int, Chosen]) -> str:
    """All that the walk looks at, as text."""
    parts = [repr((graph.inputs, graph.outputs, [(t.shape, t.dtype, t.is_constant) for t in graph.tensors]))]
    parts += [repr((op.kind, op.inputs, op.outputs, sorted(op.attrs.items()))) for op in graph.ops]
    for index, found in chosen.items():
        emission, work = found.best.emission, found.best.work
        instructions = 0.0 if work is None else work.instructions
        leaves = [leaf.name for leaf in emission.assembly]
        parts.append(
            repr((index, emission.calls, emission.struct, emission.scratch_bytes, leaves, instructions))
        )
    return "\n".join(parts)


def _walk(graph: QGraph, chosen: Mapping[int, Chosen]) -> list[_Cut]:
    emissions = {index: found.best.emission for index, found in chosen.items()}
    alive = _Alive(graph)
    end = _last_crowded(graph, emissions, alive) + 1 + BEHIND
    # (next op, whether its first input lies row by row) -> cuts
    reached: dict[tuple[int, bool], list[_Cut]] = {(0, False): [_Cut(0, 0.0, ())]}
    for first in range(len(graph.ops)):
        for by_row in (False, True):
            cuts = _pareto(reached.pop((first, by_row), []))
            if not cuts:
                continue
            for chain, ends_by_row in _chains(graph, emissions, first, by_row, end):
                need = alive.during(chain)
                extra = extra_instructions(graph, chosen, chain)
                place = reached.setdefault((chain.last + 1, ends_by_row), [])
                place += [_Cut(max(c.peak_bytes, need), c.extra + extra, (*c.chains, chain)) for c in cuts]
            if not by_row:
                scratch = emissions[first].scratch_bytes if first in emissions else 0
                need = alive.at(first) + scratch
                place = reached.setdefault((first + 1, False), [])
                place += [_Cut(max(c.peak_bytes, need), c.extra, c.chains) for c in cuts]
    return _pareto(reached[len(graph.ops), False])


def _last_crowded(graph: QGraph, emissions: Mapping[int, Emission], alive: _Alive) -> int:
    """The last op that, run as a whole, needs more than the model's inputs or outputs do by themselves."""
    floor = max(sum(graph.tensors[t].nbytes for t in side) for side in (graph.inputs, graph.outputs))
    needs = [
        alive.at(at) + (emissions[at].scratch_bytes if at in emissions else 0) for at in range(len(graph.ops))
    ]
    return max((at for at, need in enumerate(needs) if need > floor), default=-1)


def _pareto(cuts: list[_Cut]) -> list[_Cut]:
    """Those that no other one beats, by memory, at most KEPT."""
    found: list[_Cut] = []
    for cut in sorted(cuts, key=lambda c: (c.peak_bytes, c.extra, len(c.chains))):
        if not found or cut.extra < found[-1].extra:
            found.append(cut)
    return found[: KEPT - 1] + found[KEPT - 1 :][-1:]


def _chains(
    graph: QGraph, emissions: Mapping[int, Emission], first: int, from_rows: bool, end: int
) -> Iterator[tuple[Chain, bool]]:
    """The chains that begin at an op, in every form; and whether the output lies row by row."""
    for last in range(first, min(first + LONGEST, end, len(graph.ops))):
        if last not in emissions or stage_of(graph, last, emissions[last], 1) is None:
            return
        to_rows = _may_lie_by_row(graph, emissions, last)
        for most, parks, ends in product(ROWS_A_RUN, (False, True), (False, *([True] if to_rows else []))):
            if last == first and (parks or (most > 1 and (ends or from_rows))):
                continue
            chain = make_chain(
                graph, emissions, first, last, most, parks=parks, from_rows=from_rows, to_rows=ends
            )
            if chain is not None and (last > first or from_rows or chain.lag_bytes >= 0):
                yield chain, ends


def _may_lie_by_row(graph: QGraph, emissions: Mapping[int, Emission], last: int) -> bool:
    """Whether the output is in planes and its only reader, the next op, takes one row of it at a time."""
    output = graph.ops[last].outputs[0]
    readers = [i for i, op in enumerate(graph.ops) if output in op.inputs]
    if readers != [last + 1] or output in graph.outputs or last + 1 not in emissions:
        return False
    following = emissions[last + 1]
    if stage_of(graph, last + 1, following, 1) is None or graph.ops[last + 1].kind != "CONV_2D":
        return False
    return in_planes(emissions[last], output=True) and in_planes(following, output=False)


class _Alive:
    """Bytes of whole tensors alive around segments."""

    def __init__(self, graph: QGraph) -> None:
        self.graph = graph
        self.first = dict.fromkeys(graph.inputs, -1)
        self.last = dict.fromkeys(graph.inputs, -1)
        for step, op in enumerate(graph.ops):
            self.first.update(dict.fromkeys(op.outputs, step))
            self.last.update(dict.fromkeys(op.outputs, step))
            self.last.update({i: step for i in op.inputs if i in self.first})
        self.last.update(dict.fromkeys(graph.outputs, len(graph.ops)))

    def _bytes(self, tensor: int) -> int:
        return -(-self.graph.tensors[tensor].nbytes // 4) * 4

    def _around(self, first: int) -> int:
        """Of what was made before `first` and is needed there or behind."""
        return sum(self._bytes(t) for t in self.first if self.first[t] < first <= self.last[t])

    def at(self, step: int) -> int:
        """While op `step` runs by itself; an output that may take an input's place counts once."""
        op = self.graph.ops[step]
        output = op.outputs[0]
        found = self._around(step)
        dying = [i for i in op.inputs if i in self.first and self.last[i] == step]
        same = [i for i in dying if self._bytes(i) == self._bytes(output)]
        if op.kind == "RESHAPE" or (op.kind in IN_PLACE and same):
            return found
        return found + self._bytes(output)

    def during(self, chain: Chain) -> int:
        """While a chain runs, at its fullest stage."""
        held = self._around(chain.first) + 4 * chain.state_words + chain.sums_bytes
        source, output = self._bytes(chain.source), self._bytes(chain.output)
        if chain.lag_bytes >= 0:
            held += max(source + chain.lag_bytes, output) - source
        else:
            held += output
        inside = chain.inside.values()
        held += sum(rows.parked_bytes for rows in inside)
        return held + max(
            sum(r.window_bytes for r in inside if r.first <= s.op <= r.last) + chain.scratch[s.op]
            for s in chain.stages
        )
