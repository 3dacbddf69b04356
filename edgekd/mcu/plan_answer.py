"""A memory plan told: what lies where and when, where the arena is fullest, whose it is, what would lower it.

`tell` makes plain data of a generated model's plan: the table, the JSON and the picture (plan_picture.py)
are made from it. Every statement about what a change would bring is computed from the plan's own blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.codegen_text import one_line
from edgekd.mcu.plan import Placed, Plan
from edgekd.qgraph.ir import QGraph

MOST_OWNERS = 4  # blocks that a sentence names


def tell(model: GeneratedModel) -> dict[str, Any]:
    """The plan of `model` as data.

    Returns {"model", "arena_bytes", "lower_bound_bytes", "proved_bytes", "gap_bytes", "slow_bytes",
    "slow_accesses", "slow_cycles", "optimal", "steps": [{step, layer, op, alive_bytes}], "blocks": [{name,
    kind, tensors, offset_bytes, size_bytes, first, last, region}], "peak": {step, layer, op, bytes, also,
    owners: [{name, kind, bytes, share, wins_bytes}]} or None, "words", "advice": [sentence]}. Steps run from
    -1 (the caller writes the inputs) to the number of ops (the caller reads the outputs). proved_bytes: no
    arena for these blocks is smaller. kind: tensor, input, output or scratch. also: the other steps with as
    many bytes. wins_bytes: by how much the lower bound falls at the most if this block alone gets smaller.
    region: fast or slow, the offset is within it; slow_...: of slow RAM, 0 without.
    """
    where, graph = model.plan, model.graph
    blocks = [_block(block, graph) for block in sorted(where.blocks, key=lambda b: (b.first, b.offset_bytes))]
    steps = [
        {"step": step, **_step(graph, step), "alive_bytes": alive_bytes(where.blocks, step)}
        for step in range(-1, len(graph.ops) + 1)
    ]
    peak = _peak(where, graph)
    return {
        "model": graph.name,
        "arena_bytes": where.arena_bytes,
        "lower_bound_bytes": where.lower_bound_bytes,
        "proved_bytes": max(where.proved_bytes, where.lower_bound_bytes),
        "gap_bytes": where.gap_bytes,
        "slow_bytes": where.slow_bytes,
        "slow_accesses": where.slow_accesses,
        "slow_cycles": where.slow_cycles,
        "optimal": where.is_optimal,
        "steps": steps,
        "blocks": blocks,
        "peak": peak,
        "words": _words(where, peak),
        "advice": _advice(where, graph, peak),
    }


def alive_bytes(blocks: Iterable[Placed], step: int) -> int:
    """Bytes of the blocks that live at `step`."""
    return sum(block.size_bytes for block in blocks if block.first <= step <= block.last)


def _step(graph: QGraph, step: int) -> dict[str, str]:
    if 0 <= step < len(graph.ops):
        return {"layer": _name(graph, graph.ops[step].outputs[0]), "op": graph.ops[step].kind}
    return {"layer": "(input written)" if step < 0 else "(output read)", "op": ""}


def _name(graph: QGraph, tensor: int) -> str:
    """A tensor's name without the scopes that all share."""
    parts = [part for part in one_line(graph.tensors[tensor].name).split(";")[0].split("/") if part]
    return "/".join(parts[-2:]) or f"tensor {tensor}"


def _block(block: Placed, graph: QGraph) -> dict[str, Any]:
    return {
        "name": _block_name(block, graph),
        "kind": _kind(block, graph),
        "tensors": [_name(graph, i) for i in block.tensors],
        "offset_bytes": block.offset_bytes,
        "size_bytes": block.size_bytes,
        "first": block.first,
        "last": block.last,
        "region": "slow" if block.is_slow else "fast",
    }


def _kind(block: Placed, graph: QGraph) -> str:
    if not block.tensors:
        return "scratch"
    if any(i in graph.inputs for i in block.tensors):
        return "input"
    return "output" if any(i in graph.outputs for i in block.tensors) else "tensor"


def _block_name(block: Placed, graph: QGraph) -> str:
    if not block.tensors:
        return f"scratch of {_step(graph, block.scratch)['layer']}"
    return _name(graph, max(block.tensors, key=lambda i: (graph.tensors[i].nbytes, -i)))


# ---- the peak, and what would lower it ----


def _peak(where: Plan, graph: QGraph) -> dict[str, Any] | None:
    """The first of the fullest steps, with whose the bytes are."""
    if not where.blocks:
        return None
    steps = range(-1, len(graph.ops) + 1)
    alive = {step: alive_bytes(where.blocks, step) for step in steps}
    most = max(alive.values())
    fullest = [step for step in steps if alive[step] == most]
    step = next((step for step in fullest if 0 <= step < len(graph.ops)), fullest[0])
    own = [block for block in where.blocks if block.first <= step <= block.last]
    owners = [
        {
            "name": _block_name(block, graph),
            "kind": _kind(block, graph),
            "bytes": block.size_bytes,
            "share": round(block.size_bytes / most, 4),
            "wins_bytes": most - _without(where.blocks, block, alive),
        }
        for block in sorted(own, key=lambda b: (-b.size_bytes, b.offset_bytes))
    ]
    also = [other for other in fullest if other != step]
    return {"step": step, **_step(graph, step), "bytes": most, "also": also, "owners": owners}


def _without(blocks: Sequence[Placed], gone: Placed, alive: dict[int, int]) -> int:
    """The most bytes alive at one step if `gone` took none."""
    return max(
        held - (gone.size_bytes if gone.first <= step <= gone.last else 0) for step, held in alive.items()
    )


def _words(where: Plan, peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "the model needs no arena"
    owners = [
        f"{owner['name']} {owner['bytes']:,} ({100 * owner['share']:.0f} %)"
        for owner in peak["owners"][:MOST_OWNERS]
    ]
    rest = len(peak["owners"]) - MOST_OWNERS
    owners += [f"{rest} more"] if rest > 0 else []
    layer = f"{peak['layer']} ({peak['op']})" if peak["op"] else peak["layer"]
    return f"the arena is fullest in {layer}: {peak['bytes']:,} bytes, of them {', '.join(owners)}"


def _advice(where: Plan, graph: QGraph, peak: dict[str, Any] | None) -> list[str]:
    if peak is None:
        return []
    found = [
        *([_slow_words(where)] if where.slow_bytes else []),
        _PROOFS[where.is_optimal](where),
        *(line for owner in peak["owners"][:MOST_OWNERS] if (line := _owner_advice(owner))),
    ]
    if all(owner["wins_bytes"] == 0 for owner in peak["owners"]):
        layers = [_step(graph, step)["layer"] for step in peak["also"][:MOST_OWNERS]]
        found.append(
            f"as full: {', '.join(layers)}; no single size lowers the arena, all of these have to fall"
        )
    return found


def _slow_words(where: Plan) -> str:
    count = sum(block.is_slow for block in where.blocks)
    wait = f", {where.slow_cycles:,} cycles more by the profile's wait" if where.slow_cycles else ""
    return (
        f"{count} of {len(where.blocks)} buffers lie in slow RAM: {where.slow_bytes:,} bytes, about "
        f"{where.slow_accesses:,} accesses an inference{wait}; {where.arena_bytes:,} are in the fast one"
    )


_PROOFS: dict[bool, Callable[[Plan], str]] = {
    True: lambda where: (
        f"the placement is optimal, proved: these {_fast(where)} buffers fit into no arena below "
        f"{where.arena_bytes:,} bytes"
    ),
    False: lambda where: (
        f"the placement is {where.arena_bytes - where.proved_bytes:,} bytes above what is proved needed "
        f"({where.proved_bytes:,}); whether less is possible the search could not tell"
    ),
}


def _fast(where: Plan) -> int:
    return sum(not block.is_slow for block in where.blocks)


_MENDS = {
    "scratch": "a kernel of less scratch (--optimize ram or flash, a smaller limit) wins up to {wins} bytes",
    "input": "a smaller input wins up to {wins} bytes",
    "output": "a smaller output wins up to {wins} bytes",
    "tensor": "fewer channels, or an earlier stride or pool, wins up to {wins} bytes",
}


def _owner_advice(owner: dict[str, Any]) -> str:
    if not owner["wins_bytes"]:
        return ""
    mend = _MENDS[owner["kind"]].format(wins=f"{owner['wins_bytes']:,}")
    return f"{owner['name']}: {mend}, then another step is the fullest"
