"""RAM in two parts: which tensors lie in the fast one, which in the slow one, by how often they are touched.

Where the whole arena fits into the fast RAM nothing changes. Else every buffer goes to one of both, so that
the accesses to the slow one are few: the most touched a byte first, as long as what is fast can still be
placed there. Both parts are placed like an arena of their own. Counts are of the kernels' loops, read off the
shapes; they order the buffers and are no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekd.errors import BudgetError
from edgekd.mcu.options import Regions
from edgekd.mcu.placement import Buffer, Placement, lower_bound, settle
from edgekd.mcu.plan import Placed, Plan
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.residual import KIND as RESIDUAL

TRIAL_ROUNDS = 20
POINTER_BYTES = 8  # of model_t: where its slow part lies
_SHARED_OUTPUTS = 4  # what a matrix kernel computes from one load of its input
_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", RESIDUAL)


def in_regions(graph: QGraph, where: Plan, regions: Regions | None) -> Plan:
    """`where` in two regions if it does not fit into the fast one.

    Raises BudgetError where it fits into both together neither, or runs by rows, which takes fast RAM alone.
    """
    if regions is None or where.arena_bytes <= regions.fast_bytes:
        return where
    regions = replace(regions, fast_bytes=max(regions.fast_bytes - POINTER_BYTES, 0))
    if getattr(where, "chains", ()):
        raise BudgetError(
            f"graph {graph.name}: layers that run by rows take fast RAM alone, {where.arena_bytes:,} bytes; "
            f"{regions.fast_bytes:,} are left beside the stack; take --optimize speed, which can use both"
        )
    touched = accesses(graph, where.blocks)
    found = [split for rank in _ranks(where.blocks, touched) if (split := _split(where, rank, regions))]
    if not found:
        raise BudgetError(
            f"graph {graph.name}: the tensors need {where.arena_bytes:,} bytes, and do not fit into "
            f"{regions.fast_bytes:,} of fast RAM beside the stack and {regions.slow_bytes:,} of slow RAM; "
            "compress the model or take a larger target"
        )
    placed = [_placed(where, split, touched, regions) for split in found]
    return min(placed, key=lambda plan: plan.slow_accesses)


def accesses(graph: QGraph, blocks: Sequence[Placed]) -> list[int]:
    """How often each block is read or written in an inference, about, in elements."""
    reads: dict[int, float] = {}
    for op in graph.ops:
        for position, tensor in enumerate(op.inputs):
            if tensor != -1 and not graph.tensors[tensor].is_constant:
                times = _reads(graph, op) if position == 0 else 1.0
                reads[tensor] = reads.get(tensor, 0) + times * graph.tensors[tensor].elements
        for tensor in op.outputs:
            reads[tensor] = reads.get(tensor, 0) + graph.tensors[tensor].elements
    for tensor in (*graph.inputs, *graph.outputs):  # the caller writes and reads them
        reads[tensor] = reads.get(tensor, 0) + graph.tensors[tensor].elements
    return [
        round(sum(reads.get(i, 0) for i in block.tensors))
        if block.tensors
        else _scratch_accesses(graph, graph.ops[block.scratch], block.size_bytes)
        for block in blocks
    ]


def _reads(graph: QGraph, op: Op) -> float:
    """How often an op reads an element of its first input."""
    stride = float(str(op.attrs.get("stride_h", 1))) * float(str(op.attrs.get("stride_w", 1)))
    if op.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return float(str(op.attrs["filter_h"])) * float(str(op.attrs["filter_w"])) / stride
    if op.kind not in _LINEAR:
        return 1.0
    shape = graph.tensors[op.inputs[1]].shape
    if op.kind == "FULLY_CONNECTED":
        return -(-shape[0] // _SHARED_OUTPUTS)
    return shape[1] * shape[2] / stride


def _scratch_accesses(graph: QGraph, op: Op, size_bytes: int) -> int:
    """A convolution reads what it widened once for two multiply-accumulates."""
    if op.kind not in _LINEAR:
        return 2 * size_bytes
    weights, y = graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    return max(y.elements * weights.elements // y.shape[-1] // 2, 2 * size_bytes)


# ---- which block goes where ----


def _ranks(blocks: Sequence[Placed], touched: Sequence[int]) -> list[list[int]]:
    """Orders in which blocks ask for fast RAM: by accesses a byte, by accesses."""
    everyone = range(len(blocks))
    return [
        sorted(everyone, key=lambda i: (-touched[i] / blocks[i].size_bytes, i)),
        sorted(everyone, key=lambda i: (-touched[i], i)),
    ]


def _split(where: Plan, rank: Sequence[int], regions: Regions) -> frozenset[int] | None:
    """The places of the blocks that are slow; None where the rest does not fit."""
    fast: list[int] = []
    for index in rank:
        if _settled(where.blocks, [*fast, index], TRIAL_ROUNDS).total_bytes <= regions.fast_bytes:
            fast.append(index)
    slow = [index for index in range(len(where.blocks)) if index not in fast]
    if _settled(where.blocks, slow, TRIAL_ROUNDS).total_bytes > regions.slow_bytes:
        return None
    return frozenset(slow)


def _settled(blocks: Sequence[Placed], chosen: Sequence[int], rounds: int = 0) -> Placement:
    wanted = _buffers(blocks, sorted(chosen))
    return settle(wanted, rounds, 0) if rounds else settle(wanted)


def _buffers(blocks: Sequence[Placed], chosen: Sequence[int]) -> list[Buffer]:
    return [Buffer(blocks[i].size_bytes, blocks[i].first, blocks[i].last) for i in chosen]


def _placed(where: Plan, slow: frozenset[int], touched: Sequence[int], regions: Regions) -> Plan:
    """The plan with both parts placed; offsets are within a tensor's own part."""
    parts = [i for i in range(len(where.blocks)) if i not in slow], sorted(slow)
    placements = [_settled(where.blocks, part) for part in parts]
    moved = list(where.blocks)
    for part, placement in zip(parts, placements, strict=True):
        for index, offset in zip(part, placement.offsets, strict=True):
            moved[index] = replace(moved[index], offset_bytes=offset, is_slow=index in slow)
    offsets, scratch = _followed(where, moved)
    count = sum(touched[i] for i in slow)
    return replace(
        where,
        offsets=offsets,
        scratch=scratch,
        arena_bytes=placements[0].total_bytes,
        lower_bound_bytes=lower_bound(_buffers(where.blocks, parts[0])),
        proved_bytes=placements[0].bound_bytes,
        blocks=tuple(moved),
        slow_bytes=-(-placements[1].total_bytes // 8) * 8,
        slow_accesses=count,
        slow_cycles=count * regions.wait_cycles,
    )


def _followed(where: Plan, moved: Sequence[Placed]) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Tensors' and scratches' offsets behind their blocks' moves."""
    offsets, scratch = {}, {}
    for before, after in zip(where.blocks, moved, strict=True):
        shift = after.offset_bytes - before.offset_bytes
        offsets.update({i: where.offsets[i] + shift for i in before.tensors})
        if not before.tensors:
            scratch[before.scratch] = after.offset_bytes
    return offsets, scratch
