"""The offline memory plan: where each activation lies in the arena, decided before any code is written.

Liveness gives each buffer an interval of steps; buffers that may share bytes on purpose (RESHAPE,
element-wise ops over an operand that dies there, a CONCATENATION whose operands can be written right where
they belong) are merged; placement.py places the merged buffers and proves how good that is. A pure function:
same graph, same plan.

Step i is op i; inputs live from step -1 (the caller fills them), outputs to step len(ops) (the caller
reads them). So an input's bytes may be used again after its last reader, and an output's are whole
until the next inference begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.mcu.placement import ALIGNMENT_BYTES, EXACT_NODES, SEARCH_ROUNDS, Buffer, lower_bound, settle
from edgekd.qgraph import residual
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.ops import TABLE_OPS

IN_PLACE = (*TABLE_OPS, "QUANTIZE", "TABLE", "ADD", "SUB", "MUL", "SOFTMAX")


@dataclass(frozen=True)
class Placed:
    """A buffer of the arena: offset_bytes .. offset_bytes + size_bytes, alive in steps first .. last.

    tensors: those that lie in it, in the order of their numbers; empty for scratch, which is op `scratch`'s
    (-1: no scratch).
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

    offsets: tensor index -> byte offset, for every activation.
    scratch: op index -> byte offset of its scratch.
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


def plan(graph: QGraph, scratch_bytes: Mapping[int, int] | None = None) -> Plan:
    """Place every activation of `graph`, and `scratch_bytes` (op index -> bytes) for the op's step alone.

    Operands of a CONCATENATION are placed inside its output where that takes no more memory.
    """
    scratch = scratch_bytes or {}
    joined = frozenset[int]()
    possible = [step for step, op in enumerate(graph.ops) if operand_starts(graph, op)]
    if possible:
        least = _plan(graph, scratch, joined, 0, 0).arena_bytes
        every = frozenset(possible)
        for trial in (every, *(frozenset({step}) for step in possible)):
            if joined < every and _plan(graph, scratch, joined | trial, 0, 0).arena_bytes <= least:
                joined |= trial
    return _plan(graph, scratch, joined, SEARCH_ROUNDS, EXACT_NODES)


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
    graph: QGraph, scratch_bytes: Mapping[int, int], joined: frozenset[int], rounds: int, nodes: int
) -> Plan:
    """joined: the CONCATENATIONs (steps) whose operands lie inside; rounds, nodes: of placement.settle."""
    homes = _merge(graph, joined)
    buffers = _buffers(graph, homes)
    keys: list[tuple[str, int]] = [("tensor", index) for index in buffers]
    blocks = list(buffers.values())
    for step, size_bytes in sorted(scratch_bytes.items()):
        if size_bytes > 0:
            keys.append(("scratch", step))
            blocks.append(Buffer(_aligned(size_bytes), step, step))
    found = settle(blocks, rounds, nodes)
    placed = dict(zip(keys, found.offsets, strict=True))
    offsets = {i: placed["tensor", homes[i].owner] + homes[i].shift_bytes for i in sorted(homes)}
    scratch = {index: offset for (kind, index), offset in placed.items() if kind == "scratch"}
    families = {owner: tuple(sorted(_family(homes, owner))) for owner in buffers}
    shown = tuple(
        Placed(placed[key], block.size_bytes, block.first, block.last, families[key[1]])
        if key[0] == "tensor"
        else Placed(placed[key], block.size_bytes, block.first, block.last, scratch=key[1])
        for key, block in zip(keys, blocks, strict=True)
    )
    return Plan(offsets, scratch, found.total_bytes, lower_bound(blocks), found.bound_bytes, shown)


def room_bytes(graph: QGraph) -> list[int]:
    """For each op: bytes of activations alive at the fullest step that are not alive at its own."""
    blocks = list(_buffers(graph, _merge(graph, frozenset())).values())
    alive = [sum(b.size_bytes for b in blocks if b.first <= step <= b.last) for step in range(len(graph.ops))]
    return [max(alive) - held for held in alive]


def _merge(graph: QGraph, joined: frozenset[int]) -> dict[int, _Home]:
    """Activation -> where it lies: alone, or where one lies that it overwrites, aliases or is part of."""
    activations = {*graph.inputs, *(i for op in graph.ops for i in op.outputs)}
    homes = {i: _Home(i, 0) for i in activations if not graph.tensors[i].is_constant}
    last = _last_use(graph)
    for step, op in enumerate(graph.ops):
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
