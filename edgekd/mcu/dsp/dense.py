"""FULLY_CONNECTED of one row, four outputs at a time: k_dsp_dense_s8 in assembly, and its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from edgekd.mcu.candidate import NHWC, Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Address, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import copy, pairs
from edgekd.mcu.dsp.assembly import REPEATED, Function, Kernel
from edgekd.mcu.dsp.linear import Linear, linear_range
from edgekd.mcu.dsp.rounding import LARGEST_TWICE_SHIFT, Proved, possible_shifts

KERNEL = "k_dsp_dense_s8"
UNROLLED_INPUTS = (64, 16, 8)  # long rows pay for long code
STEP_INPUTS = 8
_GROUP = 4  # outputs at a time
STEP_BYTES = 4 * 27

# Stack slots, bytes.
_X, _X_END, _ENTRY, _ZERO, _Y, _Y_END, _FRAME = 0, 4, 8, 12, 16, 20, 28


@dataclass(frozen=True)
class Plan:
    """A fully connected layer that the family can run."""

    case: Case
    linear: Linear
    proofs: dict[int, Proved]

    def takes(self, layout: Layout) -> bool:
        return layout == NHWC

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        """shift: of the proved rounding, 0 for two roundings."""
        proved = self.proofs[shift] if shift else None
        missing = -len(self.linear.weights) % _GROUP
        words = _packed(_filled(self.linear, missing), proved and _more(proved, missing))
        for unrolled in UNROLLED_INPUTS:
            yield Candidate(f"dense u{unrolled}", self._emission(shift, unrolled, words))

    def _emission(self, shift: int, unrolled: int, words: npt.NDArray[np.int32]) -> Emission:
        linear, leaf = self.linear, kernel(shift, unrolled)
        outputs, depth = linear.weights.shape
        missing = -outputs % _GROUP
        weights = self.case.array("filter", words)
        fields: dict[str, Value] = {
            "weights": f"(const uint32_t *){weights.name}",
            "depth": depth,
            "outputs": outputs + missing,
            "skip_bytes": -depth % unrolled // STEP_INPUTS * STEP_BYTES,
            "zero": 2 * self.case.y.zero_point + 1,
            "shift": shift,
        }
        calls = [Call(leaf.name, ("&layer", self.case.source(), SCRATCH, self.case.target()))]
        if missing:  # the outputs that fill up the last four must not be written behind y
            beside = Address(-1, "int8_t", writes=True, offset=2 * depth)
            calls = [
                Call(leaf.name, ("&layer", self.case.source(), SCRATCH, beside)),
                Call(copy.kernel().name, (beside, self.case.target(), str(outputs))),
            ]
        return Emission(
            calls=tuple(calls),
            struct=(f"{KERNEL}_t", fields),
            weights=(weights,),
            macs=linear.weights.size,
            scratch_bytes=2 * depth + (outputs + missing if missing else 0),
            assembly=(leaf, copy.kernel()) if missing else (leaf,),
            consumed=depth,  # it is widened from its start on
        )


def plan(case: Case) -> Plan | None:
    """None where another kernel must run."""
    data = case.inputs[1].data
    if data is None or data.shape[1] % STEP_INPUTS or case.x.elements != data.shape[1]:
        return None
    linear = linear_range(case, data.astype(np.int8))
    if linear is None:
        return None
    proofs: dict[int, Proved] = {}
    if case.y.zero_point == -128:
        proofs = possible_shifts(linear.multipliers, linear.shifts, linear.lowest, linear.highest)
    if linear.shifts.max() > LARGEST_TWICE_SHIFT and not proofs:
        return None
    return Plan(case, linear, proofs)


def _filled(linear: Linear, missing: int) -> Linear:
    """`missing` more outputs of zero weights."""
    ones, zeros = np.ones(missing, np.int64), np.zeros(missing, np.int64)
    weights = np.concatenate([linear.weights, np.zeros((missing, linear.weights.shape[1]), np.int8)])
    more = {
        name: np.concatenate([getattr(linear, name), zeros])
        for name in ("bias", "lowest", "highest", "multipliers")
    }
    return replace(linear, weights=weights, shifts=np.concatenate([linear.shifts, ones]), **more)


def _more(proved: Proved, missing: int) -> Proved:
    zeros = np.zeros(missing, np.int64)
    multipliers, constants = (np.concatenate([v, zeros]) for v in (proved.multipliers, proved.constants))
    return Proved(proved.shift, multipliers, constants)


@cache
def kernel(shift: int, unrolled: int) -> Kernel:
    """unrolled: inputs in one turn of the loop."""
    f = Function(f"k_dsp_dense_u{unrolled}_s{shift}")
    _begin(f)
    f.region("group")
    f.label(1)
    f.add("ldmia lr!, {r8-r11}", f"ldr r12, [sp, #{_X}]", f"ldr pc, [sp, #{_ENTRY}]", ".p2align 2")
    f.label(2)
    for step in range(unrolled // STEP_INPUTS):
        f.region(REPEATED if step else "step")
        _step(f)
    f.region("turn")
    f.add(f"ldr r0, [sp, #{_X_END}]", "cmp r12, r0")
    f.branch_back("bne.w 2b", outer="group")
    f.region("group")
    f.add("sub r9, r9, r8", "sub r11, r11, r10")
    if shift:
        _proved(f, shift)
    else:
        _twice(f)
    f.add(f"ldr r0, [sp, #{_Y_END}]", f"str r6, [sp, #{_Y}]", "cmp r6, r0")
    f.branch_back("bne.w 1b", outer="call")
    f.region("call")
    f.add(f"add sp, #{_FRAME}", "pop {r4-r11, pc}")
    return f.kernel(KERNEL, unrolled=unrolled)


def runs(leaf: Kernel, depth: int, outputs: int) -> dict[str, float]:
    """How often the regions of `kernel` run in one call; `outputs` is a multiple of four."""
    groups = outputs // _GROUP
    return {
        "widen": depth // STEP_INPUTS,
        "group": groups,
        "step": groups * depth // STEP_INPUTS,
        "turn": groups * -(-depth // leaf.facts["unrolled"]),
    }


def _begin(f: Function) -> None:
    """Widens x into scratch, and lays out the stack slots."""
    f.add("push {r4-r11, lr}", f"sub sp, #{_FRAME}", "ldmia r0, {r4-r8}", "mov lr, r4")
    f.add("add r9, r2, r5, lsl #1", f"strd r2, r9, [sp, #{_X}]", "adr.w r10, 2f", "add r10, r10, r7")
    f.add("orr r10, r10, #1", f"strd r10, r8, [sp, #{_ENTRY}]", "add r6, r6, r3", f"strd r3, r6, [sp, #{_Y}]")
    f.region("widen")
    f.label(3)
    f.add("ldr r4, [r1], #4", "ldr r6, [r1], #4", "sxtb16 r3, r4", "sxtb16 r4, r4, ror #8")
    f.add("sxtb16 r5, r6", "sxtb16 r6, r6, ror #8", "stmia r2!, {r3-r6}", "cmp r2, r9")
    f.branch_back("bne 3b", outer="call")


def _step(f: Function) -> None:
    """Eight inputs: 32 multiply-accumulates in 27 instructions of four bytes each."""
    f.add("ldmia.w r12!, {r0, r1, r2, r3}")
    for x in ((0, 1), (2, 3)):
        f.add("ldmia.w lr!, {r4, r5, r6, r7}")
        for i in range(2):
            value, ab, cd = f"r{x[i]}", f"r{4 + 2 * i}", f"r{5 + 2 * i}"
            f.add(f"smlad r9, {value}, {ab}, r9", f"smlad r11, {value}, {cd}, r11")
            f.add(f"sxtb16 {ab}, {ab}", f"sxtb16 {cd}, {cd}")
            f.add(f"smlad r8, {value}, {ab}, r8", f"smlad r10, {value}, {cd}, r10")


def _proved(f: Function, shift: int) -> None:
    f.add("ldmia lr!, {r0-r5, r7, r12}", f"ldr r6, [sp, #{_Y}]", "lsl r8, r8, #8", "lsl r10, r10, #8")
    for total, m, c in (("r8", 0, 4), ("r9", 1, 5), ("r10", 2, 7), ("r11", 3, 12)):
        f.add(f"smmla {total}, {total}, r{m}, r{c}", f"ssat {total}, #8, {total}, asr #{shift}")
        f.add(f"strb {total}, [r6], #1")


def _twice(f: Function) -> None:
    f.add("ldmia lr!, {r0-r4}", f"ldrd r5, r6, [sp, #{_ZERO}]")
    for i, total in enumerate(("r8", "r9", "r10", "r11")):
        f.add(*["lsr r4, r4, #8"] * (i > 0))
        f.add(f"asr {total}, {total}, #7" if i % 2 else f"lsl {total}, {total}, #1")
        f.add("lsl r7, r5, r4", f"add r7, r7, {total}, asr #31", f"smmlar {total}, {total}, r{i}, r7")
        f.add(f"asr {total}, {total}, r4", f"ssat {total}, #8, {total}, asr #1", f"strb {total}, [r6], #1")


def _packed(linear: Linear, proved: Proved | None) -> npt.NDArray[np.int32]:
    """The words of k_dsp_dense_s8_t.weights."""
    bias = linear.bias.reshape(-1, 2)
    begin = np.stack([bias[:, 0], bias[:, 0] + 256 * bias[:, 1]], axis=1).reshape(-1, 4)
    words = pairs.ordered(linear.weights).astype(np.int64)
    both = np.stack([words[0::2], words[1::2]], axis=-1).reshape(len(begin), -1)
    if proved:
        rounding = [proved.multipliers.reshape(-1, 4), proved.constants.reshape(-1, 4)]
    else:
        less = (linear.shifts - 1).reshape(-1, 4)
        packed = (less << np.array([0, 8, 16, 24])).sum(axis=1, keepdims=True)
        rounding = [linear.multipliers.reshape(-1, 4), packed]
    rows = np.concatenate([begin, both, *rounding], axis=1)
    return (rows & 0xFFFFFFFF).astype(np.uint32).view(np.int32).ravel()
