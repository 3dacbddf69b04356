"""ADD and SUB of two tensors of one shape: constants that are exact for every pair of inputs, and the kernel.

See k_dsp_add_s8.h. TFLite rounds each input's share and the sum, twice each; here the sum is one linear
form in fixed point. It is taken only where it gives TFLite's byte for all 65,536 pairs, which is tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from edgekd.mcu.candidate import NHWC, Candidate, Layout
from edgekd.mcu.codegen_case import Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp.assembly import Function, Kernel
from edgekd.mcu.dsp.rounding import Ints
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.reference.elementwise import add_or_sub
from edgekd.qgraph.requantize import scale_of

KERNEL = "k_dsp_add_s8"
SHIFTS = range(22, 14, -1)
_NUDGES = (0, 1, -1, 2, -2, 4, -4, 8, -8)


@dataclass(frozen=True)
class Exact:
    """t = constant + (a * a_multiplier >> 8) + (b * b_multiplier >> 8); the output is ssat8(t >> shift)."""

    a_multiplier: int
    b_multiplier: int
    constant: int


@dataclass(frozen=True)
class Plan:
    """An ADD or SUB that the family can run."""

    case: Case
    proofs: dict[int, Exact]

    def takes(self, layout: Layout) -> bool:
        return layout == NHWC

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        yield Candidate("sum", self.emission(shift))

    def emission(self, shift: int) -> Emission:
        case, exact, leaf = self.case, self.proofs[shift], kernel(shift)
        fields: dict[str, Value] = {
            "a_multiplier": exact.a_multiplier,
            "b_multiplier": exact.b_multiplier,
            "constant": exact.constant,
            "elements": case.y.elements,
            "shift": shift,
        }
        arguments = ("&layer", case.source(0), case.source(1), case.target())
        return Emission((Call(leaf.name, arguments),), (f"{KERNEL}_t", fields), assembly=(leaf,))


def plan(case: Case) -> Plan | None:
    """None where another kernel must run."""
    bytes_only = all(tensor.dtype == "int8" for tensor in (*case.inputs, case.y))
    same = all(tensor.elements == case.y.elements for tensor in case.inputs)
    if not bytes_only or not same or case.y.elements % 4 or any(t.is_constant for t in case.inputs):
        return None
    proofs = _proofs(case)
    return Plan(case, proofs) if proofs else None


@cache
def kernel(shift: int) -> Kernel:
    f = Function(f"{KERNEL[:-3]}_s{shift}")
    f.add("push {r4-r11, lr}", "ldmia r0, {r4-r6, r12}", "add lr, r3, r12", "mov.w r12, #0xff00ff00")
    f.region("four")
    f.label(1)
    f.add("ldr r7, [r1], #4", "ldr r9, [r2], #4")
    f.add("and r8, r12, r7", "and r7, r12, r7, lsl #8", "and r10, r12, r9", "and r9, r12, r9, lsl #8")
    for a, b, half in (("r7", "r9", "b"), ("r8", "r10", "b"), ("r7", "r9", "t"), ("r8", "r10", "t")):
        f.add(f"smlaw{half} r11, r4, {a}, r6", f"smlaw{half} r11, r5, {b}, r11")
        f.add(f"ssat r11, #8, r11, asr #{shift}", "strb r11, [r3], #1")
    f.add("cmp r3, lr")
    f.branch_back("bne 1b", outer="call")
    f.region("call")
    f.add("pop {r4-r11, pc}")
    return f.kernel(KERNEL)


def _proofs(case: Case) -> dict[int, Exact]:
    """The first shift that has exact constants, the largest first."""
    a, b = (half.ravel() for half in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij"))
    wanted = _reference(case, a, b)
    signs = (1, -1 if case.op.kind == "SUB" else 1)
    ratios = [s * scale_of(t) / scale_of(case.y) for s, t in zip(signs, case.inputs, strict=True)]
    zero = case.y.zero_point - sum(r * t.zero_point for r, t in zip(ratios, case.inputs, strict=True))
    for shift in SHIFTS:
        factors = [round(ratio * 2.0 ** (shift + 8)) for ratio in ratios]
        constant = round((zero + 0.5) * 2.0**shift)
        if max(map(abs, factors)) >= 1 << 31 or _largest(factors, constant) >= 1 << 31:
            continue
        parts = (a * factors[0] >> 8) + (b * factors[1] >> 8)
        for nudge in _NUDGES:
            if np.array_equal(np.clip((parts + constant + nudge) >> shift, -128, 127), wanted):
                return {shift: Exact(factors[0], factors[1], constant + nudge)}
    return {}


def _largest(factors: list[int], constant: int) -> int:
    return abs(constant) + sum((abs(factor) >> 1) + 16 for factor in factors)


def _reference(case: Case, a: Ints, b: Ints) -> Ints:
    """TFLite's outputs for pairs of inputs."""
    tensors = tuple(replace(tensor, shape=(1, len(a))) for tensor in (*case.inputs, case.y))
    op = Op(case.op.kind, (0, 1), (2,), case.op.attrs)
    pairs = [values[None].astype(np.int8) for values in (a, b)]
    found: Ints = add_or_sub(QGraph("pairs", tensors, (op,), (0, 1), (2,)), op, pairs)[0].astype(np.int64)
    return found
