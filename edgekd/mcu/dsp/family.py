"""The DSP family as a whole: which layers it runs, how their tensors lie, which leaves they share.

A tensor between two of its kernels may be in planes of four channels, [C / 4][H * W][4], instead of
NHWC: depthwise kernels need it on both sides, 1x1 convolutions read and write either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from edgekd.mcu.candidate import Candidate, Layout, Plan
from edgekd.mcu.codegen_case import Case
from edgekd.mcu.dsp import add, average, conv, dense, depthwise, residual, winograd
from edgekd.mcu.dsp.rounding import LARGEST_TWICE_SHIFT
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.residual import KIND as RESIDUAL
from edgekd.qgraph.residual import OTHER

_PLAIN_SHARE = 20  # a plain layer is at most one part in so many of all multiply-accumulates

DSP_CORES = ("cortex-m4", "cortex-m7", "cortex-m33")

Plans = dict[int, tuple[Plan, ...]]

# Every way to run each kind of op; candidate.py says how another one joins.
Planners = tuple[Callable[[Case], Plan | None], ...]
PLANNERS: dict[str, Planners] = {
    "ADD": (add.plan,),
    "AVERAGE_POOL_2D": (average.plan,),
    "CONV_2D": (winograd.plan, conv.plan),
    RESIDUAL: (residual.plan,),
    "DEPTHWISE_CONV_2D": (depthwise.plan,),
    "FULLY_CONNECTED": (dense.plan,),
    "SUB": (add.plan,),
}


def family_of(cpu: str) -> str:
    """The kernel family of a core."""
    return "dsp" if cpu in DSP_CORES else "portable"


@dataclass(frozen=True)
class Found:
    """candidates: op index -> the family's; planes: the tensors that lie in planes of four channels."""

    candidates: Mapping[int, tuple[Candidate, ...]]
    planes: frozenset[int]


def dsp_candidates(graph: QGraph, allow_winograd: bool = False, allow_plain: bool = False) -> Found:
    """What the family can run of `graph`; the portable kernels run the rest.

    allow_winograd: whether 3 x 3 convolutions may take weights of 3.6 times their bytes. allow_plain: whether
    depthwise layers may be in plain C where that spares a leaf.
    """
    barred = () if allow_winograd else (winograd.plan,)
    plans = {index: found for index in range(len(graph.ops)) if (found := _plans(Case(graph, index), barred))}
    _drop_large_plain(graph, plans)
    if allow_plain:
        plans |= {index: _also_plain(found) for index, found in plans.items()}
    planes = _layouts(graph, plans)
    shifts = _agree(plans)
    candidates = {
        index: tuple(
            candidate
            for plan in found
            for candidate in plan.candidates(shifts[id(plan)], _layout(graph, index, planes))
        )
        for index, found in plans.items()
    }
    return Found(candidates, frozenset(planes))


def _also_plain(found: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """Depthwise plans with their plain form as a candidate, where its rounding can be that."""
    return tuple(
        replace(plan, may_be_plain=bool(plan.shifts.max() <= LARGEST_TWICE_SHIFT))
        if isinstance(plan, depthwise.Plan)
        else plan
        for plan in found
    )


def _plans(case: Case, barred: Planners) -> tuple[Plan, ...]:
    every = (planner(case) for planner in PLANNERS.get(case.op.kind, ()) if planner not in barred)
    return tuple(plan for plan in every if plan is not None)


def _agree(plans: Plans) -> dict[int, int]:
    """The shift of each plan (by its id): as few different ones as can be within one kind of kernel."""
    every = [plan for found in plans.values() for plan in found]
    shifts: dict[int, int] = {}
    for kind in {_rounds_as(plan): None for plan in every}:
        shifts |= choose_shifts({id(plan): plan.proofs for plan in every if _rounds_as(plan) is kind})
    return shifts


def _rounds_as(plan: Plan) -> type:
    """The kind of kernel whose leaves the plan's rounding is in."""
    return type(plan.conv) if isinstance(plan, residual.Plan) else type(plan)


def _layout(graph: QGraph, index: int, planes: set[int]) -> Layout:
    op = graph.ops[index]
    return Layout(op.inputs[0] in planes, op.outputs[0] in planes)


def _macs(graph: QGraph, index: int) -> int:
    """Multiply-accumulates of a linear op, 0 of others."""
    op = graph.ops[index]
    if op.kind not in ("CONV_2D", RESIDUAL, "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights, y = graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    return y.elements * weights.elements // y.shape[-1]


def _drop_large_plain(graph: QGraph, plans: Plans) -> None:
    """A depthwise layer in plain C is only worth its layout where it is a small part of the model."""
    macs = {index: _macs(graph, index) for index in range(len(graph.ops))}
    for index, found in list(plans.items()):
        plain = all(isinstance(plan, depthwise.Plan) and not plan.folds for plan in found)
        if plain and macs[index] * _PLAIN_SHARE > sum(macs.values()):
            del plans[index]


def _layouts(graph: QGraph, plans: Plans) -> set[int]:
    """The tensors in planes; drops from `plans` what cannot have its layout."""
    while True:
        planes = {index for index in _inner(graph) if _may_be_planes(graph, index, plans)}
        taking = {
            index: tuple(plan for plan in found if plan.takes(_layout(graph, index, planes)))
            for index, found in plans.items()
        }
        failing = [index for index, found in taking.items() if not found]
        if not failing:
            plans |= taking
            return planes
        for index in failing:
            del plans[index]


def _inner(graph: QGraph) -> Iterable[int]:
    """The activations that nobody outside sees, of four dimensions and whole planes."""
    for op in graph.ops:
        tensor = graph.tensors[op.outputs[0]]
        if len(tensor.shape) == 4 and tensor.shape[3] % 4 == 0 and op.outputs[0] not in graph.outputs:
            yield op.outputs[0]


def _may_be_planes(graph: QGraph, tensor: int, plans: Plans) -> bool:
    """Whether its writer and all its readers have a kernel that takes planes."""
    for index, op in enumerate(graph.ops):
        found = plans.get(index, ())
        if op.kind == RESIDUAL and tensor == op.inputs[OTHER]:
            return False  # the sum takes it as it gives its output
        if tensor in op.outputs and not _takes_some(found, [Layout(x, True) for x in (False, True)]):
            return False
        if tensor in op.inputs and not _takes_some(found, [Layout(True, y) for y in (False, True)]):
            return False
    return True


def _takes_some(plans: Iterable[Plan], layouts: list[Layout]) -> bool:
    return any(plan.takes(layout) for plan in plans for layout in layouts)


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
