"""The DSP family as a whole: which layers it runs, how their tensors lie, which leaves they share.

A tensor between two of its kernels may be in planes of four channels, [C / 4][H * W][4], instead of
NHWC: depthwise kernels need it on both sides, 1x1 convolutions read and write either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from edgekd.mcu.codegen_case import Case, Emission
from edgekd.mcu.dsp import add, average, conv, dense, depthwise, pairs
from edgekd.qgraph.ir import QGraph

_PLAIN_SHARE = 20  # a plain layer is at most one part in so many of all multiply-accumulates

DSP_CORES = ("cortex-m4",)

Plan = add.Plan | average.Plan | conv.Plan | dense.Plan | depthwise.Plan


_PLANNERS: dict[str, Callable[[Case], Plan | None]] = {
    "ADD": add.plan,
    "AVERAGE_POOL_2D": average.plan,
    "CONV_2D": conv.plan,
    "DEPTHWISE_CONV_2D": depthwise.plan,
    "FULLY_CONNECTED": dense.plan,
    "SUB": add.plan,
}


def family_of(cpu: str) -> str:
    """The kernel family of a core."""
    return "dsp" if cpu in DSP_CORES else "portable"


def dsp_emissions(graph: QGraph) -> dict[int, Emission]:
    """Op index -> its emission, for each op that the family can run; the portable kernels run the rest."""
    plans = {index: found for index in range(len(graph.ops)) if (found := _plan(Case(graph, index)))}
    _drop_large_plain(graph, plans)
    planes = _layouts(graph, plans)
    convs = {index: found for index, found in plans.items() if isinstance(found, conv.Plan)}
    shifts = choose_shifts({index: found.proofs for index, found in convs.items()})
    unrolled = min(
        pairs.UNROLLED_INPUTS,
        key=lambda n: sum(found.instructions(n, shifts[index] > 0) for index, found in convs.items()),
    )
    folds = {index: found.folds for index, found in plans.items() if isinstance(found, depthwise.Plan)}
    matrices = {index: found.proofs for index, found in plans.items() if isinstance(found, dense.Plan)}
    sums = {index: found.proofs for index, found in plans.items() if isinstance(found, add.Plan)}
    shifts |= choose_shifts(folds) | choose_shifts(matrices) | choose_shifts(sums)
    emissions: dict[int, Emission] = {}
    for index, found in plans.items():
        op = graph.ops[index]
        layouts = op.inputs[0] in planes, op.outputs[0] in planes
        if isinstance(found, conv.Plan):
            emissions[index] = found.emission(shifts[index], unrolled, *layouts)
        elif isinstance(found, average.Plan):
            emissions[index] = found.emission(layouts[0])
        else:
            emissions[index] = found.emission(shifts[index])
    return emissions


def _plan(case: Case) -> Plan | None:
    planner = _PLANNERS.get(case.op.kind)
    return planner(case) if planner else None


def _macs(graph: QGraph, index: int) -> int:
    """Multiply-accumulates of a linear op, 0 of others."""
    op = graph.ops[index]
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights, y = graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    return y.elements * weights.elements // y.shape[-1]


def _drop_large_plain(graph: QGraph, plans: dict[int, Plan]) -> None:
    """A depthwise layer in plain C is only worth its layout where it is a small part of the model."""
    macs = {index: _macs(graph, index) for index in range(len(graph.ops))}
    for index, found in list(plans.items()):
        plain = isinstance(found, depthwise.Plan) and not found.folds
        if plain and macs[index] * _PLAIN_SHARE > sum(macs.values()):
            del plans[index]


def _layouts(graph: QGraph, plans: dict[int, Plan]) -> set[int]:
    """The tensors in planes; drops from `plans` each depthwise convolution that cannot have its layout."""
    while True:
        planes = {index for index in _inner(graph) if _may_be_planes(graph, index, plans)}
        failing = [
            index
            for index, found in plans.items()
            if isinstance(found, depthwise.Plan)
            and not {graph.ops[index].inputs[0], graph.ops[index].outputs[0]} <= planes
        ]
        if not failing:
            return planes
        for index in failing:
            del plans[index]


def _inner(graph: QGraph) -> Iterable[int]:
    """The activations that nobody outside sees, of four dimensions and whole planes."""
    for op in graph.ops:
        tensor = graph.tensors[op.outputs[0]]
        if len(tensor.shape) == 4 and tensor.shape[3] % 4 == 0 and op.outputs[0] not in graph.outputs:
            yield op.outputs[0]


def _may_be_planes(graph: QGraph, tensor: int, plans: Mapping[int, Plan]) -> bool:
    """Whether its writer and all its readers take planes."""
    for index, op in enumerate(graph.ops):
        found = plans.get(index)
        if tensor in op.outputs and not isinstance(found, conv.Plan | depthwise.Plan):
            return False
        reads = tensor in op.inputs
        if reads and not _reads_planes(found):
            return False
    return True


def _reads_planes(found: Plan | None) -> bool:
    planes_only = isinstance(found, depthwise.Plan | average.Plan)
    return planes_only or (isinstance(found, conv.Plan) and found.reads_planes)


def choose_shifts(options: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """Possible shifts of each layer -> one shift a layer, with few different ones (each is a function more).

    A layer without a proof gets 0.
    """
    waiting = {key: set(shifts) for key, shifts in options.items()}
    chosen = {key: 0 for key, shifts in waiting.items() if not shifts}
    waiting = {key: shifts for key, shifts in waiting.items() if shifts}
    while waiting:
        every = sorted({shift for shifts in waiting.values() for shift in shifts})
        counts = {shift: sum(shift in shifts for shifts in waiting.values()) for shift in every}
        best = max(every, key=lambda shift: (counts[shift], shift))
        chosen |= {key: best for key, shifts in waiting.items() if best in shifts}
        waiting = {key: shifts for key, shifts in waiting.items() if best not in shifts}
    return chosen
