"""Which residual ADDs are fused into the convolution in front: those that make the arena smaller.

Only where both ops have the DSP family's kernels anyway, so that code and cycles stay as they are but for a
call a block. All that can be are tried together, for several layers may be equally large; then those without
which the arena is as small stay apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgekd.mcu.choice import Chosen
from edgekd.mcu.codegen_case import Case
from edgekd.mcu.dsp import add, conv, residual
from edgekd.mcu.options import Options
from edgekd.mcu.plan import plan
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fuse_residual import fuse_residuals, residuals
from edgekd.qgraph.passes.rewrite import Changed, producers
from edgekd.qgraph.residual import KIND

FORCED = "residual"  # in Options.prefer


def fused_residuals(graph: QGraph, chosen: Mapping[int, Chosen], options: Options) -> Changed:
    """The graph with the ADDs fused that pay. chosen: the kernels as long as none is."""
    pairs = {a: c for a, c in residuals(graph).items() if _has_kernels(chosen, a, c) and _runs(graph, a)}
    if not pairs or FORCED in options.prefer:
        return fuse_residuals(graph, pairs)
    scratch = _scratch(graph, chosen, pairs)
    taken, best = set(pairs), _arena_bytes(graph, pairs, scratch)
    if best >= _arena_bytes(graph, (), scratch):
        return fuse_residuals(graph, ())
    for a in pairs:
        without = _arena_bytes(graph, taken - {a}, scratch)
        if without <= best:
            taken, best = taken - {a}, without
    return fuse_residuals(graph, taken)


def _has_kernels(chosen: Mapping[int, Chosen], a: int, c: int) -> bool:
    structs = [chosen[i].best.emission.struct for i in (c, a)]
    return [s[0] if s else "" for s in structs] == [f"{conv.DRIVER}_t", f"{add.KERNEL}_t"]


def _runs(graph: QGraph, a: int) -> bool:
    found = fuse_residuals(graph, {a}).graph
    return residual.plan(Case(found, producers(found)[graph.ops[a].outputs[0]])) is not None


def _scratch(graph: QGraph, chosen: Mapping[int, Chosen], pairs: Mapping[int, int]) -> dict[int, int]:
    """Bytes by the tensor that the op writes; of pairs that are fused, by -1 - the tensor."""
    found = {graph.ops[i].outputs[0]: each.best.emission.scratch_bytes for i, each in chosen.items()}
    for a, c in pairs.items():
        output = graph.ops[a].outputs[0]
        kept_bytes = 4 * residual.kept_words(graph.tensors[output].shape[3])
        found[-1 - output] = found[graph.ops[c].outputs[0]] + kept_bytes
    return found


def _arena_bytes(graph: QGraph, adds: Collection[int], scratch: Mapping[int, int]) -> int:
    found = fuse_residuals(graph, adds).graph
    keys = [-1 - op.outputs[0] if op.kind == KIND else op.outputs[0] for op in found.ops]
    return plan(found, {i: scratch.get(key, 0) for i, key in enumerate(keys)}).arena_bytes
