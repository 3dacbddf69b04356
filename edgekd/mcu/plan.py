"""The offline memory plan: where each activation lies in the arena, decided before any code is written.

Liveness gives each buffer an interval of steps; buffers that may share bytes on purpose (RESHAPE,
element-wise ops over an operand that dies there, a CONCATENATION whose operands can be written right where
they belong) are merged; placement.py places the merged buffers and proves how good that is. A pure function:
same graph, same plan.

Step i is op i; inputs live from step -1 (the caller fills them), outputs to step len(ops) (the caller
reads them). So an input's bytes may be used again after its last reader, and an output's are whole
until the next inference begins.

A chain of ops that run by rows (chains.py) is one step as far as its whole tensors go; the windows of those
inside live while one of the stages runs that use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgekd.mcu.placement import ALIGNMENT_BYTES, EXACT_NODES, SEARCH_ROUNDS, Buffer, lower_bound, settle
from edgekd.mcu.stream import Chain
from edgekd.qgraph import residual
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.ops import TABLE_OPS

IN_PLACE = (*TABLE_OPS, "QUANTIZE", "TABLE", "ADD", "SUB", "MUL", "SOFTMAX")


@dataclass(frozen=True)
class Placed:
    """A buffer of the arena: offset_bytes .. offset_bytes + size_bytes, alive in steps first .. last.

    tensors: those that lie in it, in the order of their numbers; empty for scratch, which is op `scratch`'s
    (-1: no scratch), and for a chain's state, which counts as scratch of its first op. Of a tensor inside a
    chain it holds a window of its rows, or the rows that wait.
    """

    offset_bytes: int
    size_bytes: int
    first: int
    last: int
    tensors: tuple[int, ...] = ()
    scratch: int = -1
    is_slow: bool = False  # in the slow RAM of two; the offset is there


@dataclass(frozen=True)
class Plan:
    """Offsets in the arena.

    offsets: tensor index -> byte offset, for every activation; of those inside a chain, of their window.
    scratch: op index -> byte offset of its scratch.
    parked: tensor index -> byte offset of the rows that wait beside the window, where some do.
    states: first op of a chain -> byte offset of its state; an average's sums lie behind it.
    chains: what runs by rows.
    arena_bytes: what the arena needs; lower_bound_bytes: the most bytes alive at one step, which no
        placement of the same buffers can undercut; proved_bytes: the most that was proved to be needed, which
        is more where a search has ruled out every arena below.
    blocks: the buffers that all this lies in.
    slow_bytes: of a second, slow RAM (regions.py), 0: all is in one; slow_accesses: to it, about, and
        slow_cycles: what they cost more by the profile's wait.
    """

    offsets: Mapping[int, int]
    scratch: Mapping[int, int]
    arena_bytes: int
    lower_bound_bytes: int
    proved_bytes: int = 0
    blocks: tuple[Placed, ...] = ()
    slow_bytes: int = 0
    slow_accesses: int = 0
    slow_cycles: int = 0
    parked: Mapping[int, int] = field(default_factory=dict)
    states: Mapping[int, int] = field(default_factory=dict)
    chains: tuple[Chain, ...] = ()

    @property
    def slow(self) -> frozenset[int]:
        """The tensors in slow RAM, and of ops whose scratch lies there -1 - the op."""
        every = [block for block in self.blocks if block.is_slow]
        return frozenset({i for block in every for i in block.tensors or (-1 - block.scratch,)})

    @property
    def gap_bytes(self) -> int:
        """How far the plan is from the lower bound of all alive at one step."""
        return self.arena_bytes - self.lower_bound_bytes

    @property
    def is_optimal(self) -> bool:
        """Proved: the same buffers fit into no smaller arena."""
        return self.arena_bytes == max(self.proved_bytes, self.lower_bound_bytes)


@dataclass(frozen=True)
class _Home:
    """Where a tensor lies: in the buffer of tensor `owner`, `shift_bytes` behind its start."""

    owner: int
    shift_bytes: int


def plan(
    graph: QGraph,
    scratch_bytes: Mapping[int, int] | None = None,
    chains: Sequence[Chain] = (),
    consumed: Mapping[int, int] | None = None,
) -> Plan:
    """Place every activation of `graph`, and `scratch_bytes` (op index -> bytes) for the op's step alone.

    Operands of a CONCATENATION are placed inside its output where that takes no more memory. chains: the ops
    that run by rows, apart from each other; their scratch is the chain's own. consumed: op index -> where in
    its scratch its first input may lie, in bytes, for the op has read each byte before it writes there; done
    where it takes less memory and nobody needs the input later.
    """
    scratch = dict(scratch_bytes or {})
    for chain in chains:
        scratch |= chain.scratch
    joined = frozenset[int]()
    possible = [step for step, op in enumerate(graph.ops) if operand_starts(graph, op)]
    if possible:
        least = _plan(graph, scratch, joined, 0, 0, chains).arena_bytes
        every = frozenset(possible)
        for trial in (every, *(frozenset({step}) for step in possible)):
            if joined < every and _plan(graph, scratch, joined | trial, 0, 0, chains).arena_bytes <= least:
                joined |= trial
    eaten = _eaten(graph, scratch, chains, joined, consumed or {})
    return _plan(graph, scratch, joined, SEARCH_ROUNDS, EXACT_NODES, chains, eaten)


def _eaten(
    graph: QGraph,
    scratch: Mapping[int, int],
    chains: Sequence[Chain],
    joined: frozenset[int],
    consumed: Mapping[int, int],
) -> dict[int, int]:
    """Those of `consumed` that make the arena smaller."""
    found: dict[int, int] = {}
    if not consumed:
        return found
    least = _plan(graph, scratch, joined, 0, 0, chains).arena_bytes
    for step, shift_bytes in consumed.items():
        trial = {**found, step: shift_bytes}
        arena_bytes = _plan(graph, scratch, joined, 0, 0, chains, trial).arena_bytes
        if arena_bytes < least:
            found, least = trial, arena_bytes
    return found


def operand_starts(graph: QGraph, op: Op) -> list[tuple[int, int]]:
    """(input, bytes from the output's start) of each operand that is one block of a CONCATENATION's output.

    Empty for other ops, and where the joined axis is not the outermost one that counts. Kernels may read
    and write words: a block that begins elsewhere is left out.
    """
    if op.kind != "CONCATENATION":
        return []
    shape, axis = graph.tensors[op.outputs[0]].shape, op.attrs["axis"]
    assert isinstance(axis, int)
    if any(extent > 1 for extent in shape[: axis % len(shape)]):
        return []
    starts, start = [], 0
    for index in op.inputs:
        if start % ALIGNMENT_BYTES == 0:
            starts.append((index, start))
        start += graph.tensors[index].nbytes
    return starts


def _plan(
    graph: QGraph,
    scratch_bytes: Mapping[int, int],
    joined: frozenset[int],
    rounds: int,
    nodes: int,
    chains: Sequence[Chain] = (),
    eaten: Mapping[int, int] | None = None,
) -> Plan:
    """joined: the CONCATENATIONs (steps) whose operands lie inside; rounds, nodes: of placement.settle.

    eaten: as `consumed` of `plan`, done.
    """
    homes = _merge(graph, joined, chains)
    inside = _eat(graph, homes, eaten or {})
    buffers = _buffers(graph, homes)
    for step, owner in inside.items():
        size_bytes = max(buffers[owner].size_bytes, _aligned(scratch_bytes[step]))
        buffers[owner] = replace(buffers[owner], size_bytes=size_bytes)
    buffers, chains = _with_chains(buffers, homes, chains)
    keys: list[tuple[str, int]] = [("tensor", index) for index in buffers]
    blocks = list(buffers.values())
    for step, size_bytes in sorted(scratch_bytes.items()):
        if size_bytes > 0 and step not in inside:
            keys.append(("scratch", step))
            blocks.append(Buffer(_aligned(size_bytes), step, step))
    for key, block in _inside(chains):
        keys.append(key)
        blocks.append(block)
    found = settle(blocks, rounds, nodes)
    placed = dict(zip(keys, found.offsets, strict=True))
    offsets = {i: placed["tensor", homes[i].owner] + homes[i].shift_bytes for i in sorted(homes)}
    for chain in chains:
        if chain.lag_bytes > 0:
            for tensor in _family(homes, chain.source):  # they are worked on in the same bytes
                offsets[tensor] += chain.lag_bytes
    offsets |= _of(placed, "window")
    families = {owner: tuple(sorted(_family(homes, owner))) for owner in buffers}
    shown = tuple(_placed(key, placed[key], block, families) for key, block in zip(keys, blocks, strict=True))
    return Plan(
        offsets,
        _of(placed, "scratch") | {step: placed["tensor", owner] for step, owner in inside.items()},
        found.total_bytes,
        lower_bound(blocks),
        found.bound_bytes,
        shown,
        parked=_of(placed, "parked"),
        states=_of(placed, "state"),
        chains=tuple(chains),
    )


def _eat(graph: QGraph, homes: dict[int, _Home], eaten: Mapping[int, int]) -> dict[int, int]:
    """Moves the inputs of ops into those ops' scratch. Op index -> the owner of the buffer that holds both.

    Only where nothing else that shares the input's buffer is needed later, or lies elsewhere in it.
    """
    last, found = _last_use(graph), dict[int, int]()
    for step, shift_bytes in eaten.items():
        source = graph.ops[step].inputs[0]
        if source not in homes or homes[source].owner in found.values():
            continue
        family = _family(homes, source)
        if all(last[i] <= step and homes[i].shift_bytes == 0 for i in family):
            found[step] = homes[source].owner
            for i in family:
                homes[i] = _Home(homes[i].owner, shift_bytes)
    return found


def _of(placed: Mapping[tuple[str, int], int], wanted: str) -> dict[int, int]:
    return {index: offset for (kind, index), offset in placed.items() if kind == wanted}


def _placed(
    key: tuple[str, int], offset: int, block: Buffer, families: Mapping[int, tuple[int, ...]]
) -> Placed:
    kind, index = key
    whole = offset, block.size_bytes, block.first, block.last
    if kind in ("scratch", "state"):
        return Placed(*whole, scratch=index)
    return Placed(*whole, families[index] if kind == "tensor" else (index,))


def _with_chains(
    buffers: Mapping[int, Buffer], homes: Mapping[int, _Home], chains: Sequence[Chain]
) -> tuple[dict[int, Buffer], list[Chain]]:
    """The buffers of whole tensors with the lives that chains give them, and the chains as they can be.

    Where a chain's output may lie over its input, both begin at the arena's start: the input's buffer is
    large enough for both as long as the chain runs, and the output's begins behind it. Two such chains may
    not meet in time; of those that do the first one stays.
    """
    found, taken, result = dict(buffers), list[Buffer](), list[Chain]()
    for chain in chains:
        source, output = homes[chain.source].owner, homes[chain.output].owner
        over = chain.lag_bytes >= 0 and source != output
        over = over and all(homes[t].shift_bytes == 0 for t in (chain.source, chain.output))
        if over:
            size = max(_aligned(found[source].size_bytes + chain.lag_bytes), found[output].size_bytes)
            first = Buffer(size, found[source].first, max(chain.last, found[source].last), 0)
            second = replace(found[output], first=chain.last + 1, fixed=0)
            over = first.last < second.first and not any(b.meets(first) or b.meets(second) for b in taken)
        if over:
            found[source], found[output] = first, second
            taken += [first, second]
            result.append(chain)
            continue
        result.append(replace(chain, lag_bytes=-1))
        for rows in chain.tensors.values():
            if rows.is_whole:
                home = homes[rows.tensor].owner
                old = found[home]
                found[home] = replace(old, first=min(old.first, chain.first), last=max(old.last, chain.last))
    return found, result


def _inside(chains: Sequence[Chain]) -> list[tuple[tuple[str, int], Buffer]]:
    """The windows of the chains' inner tensors, the rows that wait beside them, and the chains' state."""
    found = []
    for chain in chains:
        for rows in chain.inside.values():
            window = Buffer(_aligned(rows.window_bytes), rows.first, rows.last)
            found.append((("window", rows.tensor), window))
            if rows.parked_rows:
                parked = Buffer(_aligned(rows.parked_bytes), chain.first, chain.last)
                found.append((("parked", rows.tensor), parked))
        size_bytes = _aligned(4 * chain.state_words + chain.sums_bytes)
        found.append((("state", chain.first), Buffer(size_bytes, chain.first, chain.last)))
    return found


def room_bytes(graph: QGraph) -> list[int]:
    """For each op: bytes of activations alive at the fullest step that are not alive at its own."""
    blocks = list(_buffers(graph, _merge(graph, frozenset(), ())).values())
    alive = [sum(b.size_bytes for b in blocks if b.first <= step <= b.last) for step in range(len(graph.ops))]
    return [max(alive) - held for held in alive]


def _merge(graph: QGraph, joined: frozenset[int], chains: Sequence[Chain]) -> dict[int, _Home]:
    """Activation -> where it lies: alone, or where one lies that it overwrites, aliases or is part of.

    Tensors inside a chain lie nowhere.
    """
    inside = {tensor for chain in chains for tensor in chain.inside}
    by_rows = {stage.op for chain in chains for stage in chain.stages}
    activations = {*graph.inputs, *(i for op in graph.ops for i in op.outputs)}
    homes = {i: _Home(i, 0) for i in activations - inside if not graph.tensors[i].is_constant}
    last = _last_use(graph)
    for step, op in enumerate(graph.ops):
        if step in by_rows:
            continue
        if step in joined:
            _join(graph, op, homes)
        for source in _may_overwrite(graph, op):
            family = [] if source not in homes else _family(homes, source)
            if op.kind == residual.KIND and op.inputs[0] in family:
                continue  # a window's pixels may not change under it
            # Every tensor that already shares the bytes must be dead behind this step.
            if family and (op.kind == "RESHAPE" or all(last[i] <= step for i in family)):
                homes[op.outputs[0]] = homes[source]
                break
    return homes


def _family(homes: Mapping[int, _Home], tensor: int) -> list[int]:
    return [i for i in homes if homes[i].owner == homes[tensor].owner]


def _join(graph: QGraph, op: Op, homes: dict[int, _Home]) -> None:
    """Move the operands of a CONCATENATION into its output's buffer, each with all that shares its bytes.

    Only where those lie within the operand's own bytes: then what is alive behind this step has the very
    bytes that the output has there.
    """
    output = op.outputs[0]
    for source, start in operand_starts(graph, op):
        if source not in homes or homes[source].owner == output:
            continue
        begin = homes[source].shift_bytes
        end = begin + graph.tensors[source].nbytes
        family = _family(homes, source)
        ranges = [(homes[i].shift_bytes, homes[i].shift_bytes + graph.tensors[i].nbytes) for i in family]
        if all(begin <= first and stop <= end for first, stop in ranges):
            for i in family:
                homes[i] = _Home(output, start + homes[i].shift_bytes - begin)


def _may_overwrite(graph: QGraph, op: Op) -> list[int]:
    """The inputs whose bytes the output may take: same number of bytes, read element by element."""
    if op.kind == "RESHAPE":
        return [op.inputs[0]]
    if op.kind == residual.KIND:
        return [op.inputs[residual.OTHER]]
    if op.kind not in IN_PLACE:
        return []
    wanted = graph.tensors[op.outputs[0]]
    candidates = [i for i in op.inputs if i != -1 and not graph.tensors[i].is_constant]
    return [i for i in candidates if graph.tensors[i].nbytes == wanted.nbytes]


def _last_use(graph: QGraph) -> dict[int, int]:
    """Tensor -> the last step that needs its value."""
    last: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    for step, op in enumerate(graph.ops):
        last.update({i: step for i in op.inputs if i != -1})
        last.update(dict.fromkeys(op.outputs, step))
    last.update({i: len(graph.ops) for i in graph.outputs})
    return last


def _buffers(graph: QGraph, homes: Mapping[int, _Home]) -> dict[int, Buffer]:
    """One buffer an owner: the union of its family's lives, as long as the furthest end."""
    last = _last_use(graph)
    first = dict.fromkeys(graph.inputs, -1)
    for step, op in enumerate(graph.ops):
        first.update(dict.fromkeys(op.outputs, step))
    families: dict[int, list[int]] = {}
    for index in sorted(homes):
        families.setdefault(homes[index].owner, []).append(index)
    return {
        key: Buffer(
            _aligned(max(homes[i].shift_bytes + graph.tensors[i].nbytes for i in family)),
            min(first[i] for i in family),
            max(last[i] for i in family),
        )
        for key, family in families.items()
    }


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
