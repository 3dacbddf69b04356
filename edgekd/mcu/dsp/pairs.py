"""Three pixels times a matrix, two output channels at a time: the leaf k_dsp_pairs_s8 in assembly.

See k_dsp_pairs_s8.h for the contract and the layout of weights. The loop over inputs is unrolled; a jump
into its middle serves any depth that is a multiple of 4, so one function serves all layers of a rounding.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from edgekd.mcu.dsp.assembly import REPEATED, Function, Kernel
from edgekd.mcu.dsp.rounding import Ints, Proved

TWIN = "k_dsp_pairs_s8"
STEP_INPUTS = 4
STEP_INSTRUCTIONS = 17
STEP_BYTES = 4 * STEP_INSTRUCTIONS
UNROLLED_INPUTS = (48, 32, 16, 8)  # about 1 kB of straight code at most: a flash cache holds it

# Stack slots, bytes.
_X, _X_END, _ENTRY, _STEP, _Y, _Y_END, _ZERO, _TOTAL, _FRAME = 0, 4, 8, 12, 16, 20, 24, 28, 36


@cache
def kernel(shift: int, unrolled: int, planes: bool) -> Kernel:
    """shift: of the proved rounding, 0 for two roundings; unrolled: inputs in one turn of the loop.

    planes: whether the output is in planes of four channels.
    """
    f = Function(f"k_dsp_pairs{'_planes' * planes}_u{unrolled}_s{shift}")
    _begin(f, planes)
    f.region("pair")
    f.label(1)
    f.add("ldrd r6, r9, [lr], #8", "mov r7, r6", "mov r8, r6", "mov r10, r9", "mov r11, r9")
    f.add(f"ldrd r12, r5, [sp, #{_X}]", f"ldr pc, [sp, #{_ENTRY}]", ".p2align 2")
    f.label(2)
    for step in range(unrolled // STEP_INPUTS):
        f.region(REPEATED if step else "step")
        _step(f)
    f.region("turn")
    f.add("cmp r12, r5")
    f.branch_back("bne 2b", outer="pair")
    f.region("pair")
    if shift:
        _proved(f, shift, planes)
    else:
        _twice(f, planes)
    f.add(f"ldr r0, [sp, #{_Y_END}]", f"str r5, [sp, #{_Y}]", "cmp r5, r0")
    f.branch_back("bne.w 1b", outer="pass")
    f.region("pass")
    if planes:  # the same again for channels 2 and 3 of each plane
        f.add("tst r5, #2")
        f.branch_ahead("bne 3f", taken="call")
        f.region("call")
        f.add(f"ldr r1, [sp, #{_TOTAL}]", "sub r5, r5, r1", "add r5, r5, #2")
        f.add("add r0, r0, #2", f"strd r5, r0, [sp, #{_Y}]", "b.w 1b")
        f.label(3)
    f.region("call")
    f.add(f"add sp, #{_FRAME}", "pop {r4-r11, pc}")
    return f.kernel(TWIN, unrolled=unrolled, passes=2 if planes else 1)


def _begin(f: Function, planes: bool) -> None:
    f.add("push {r4-r11, lr}", f"sub sp, #{_FRAME}", "ldmia r0, {r3-r8}", "mov lr, r3")
    f.add("add r9, r4, r4, lsl #1", "add r9, r1, r9, lsl #1", f"strd r1, r9, [sp, #{_X}]")
    f.add("adr.w r9, 2f", "add r9, r9, r6", "orr r9, r9, #1")
    if planes:
        f.add(f"strd r9, r8, [sp, #{_ENTRY}]", "lsr r5, r5, #2", "mul r5, r5, r8")
    else:
        f.add(f"strd r9, r8, [sp, #{_ENTRY}]")
    f.add(f"strd r7, r5, [sp, #{_ZERO}]", "add r5, r5, r2", f"strd r2, r5, [sp, #{_Y}]")


def _step(f: Function) -> None:
    """Four inputs: 24 multiply-accumulates in 17 instructions of four bytes each."""
    f.add("ldrd r3, r4, [lr], #8")
    for w in ("r3", "r4"):
        f.add("ldmia.w r12!, {r0, r1, r2}")
        f.add(*(f"smlad r{9 + i}, r{i}, {w}, r{9 + i}" for i in range(3)))
        f.add(f"sxtb16 {w}, {w}")
        f.add(*(f"smlad r{6 + i}, r{i}, {w}, r{6 + i}" for i in range(3)))


def _proved(f: Function, shift: int, planes: bool) -> None:
    f.add("ldmia lr!, {r0-r3}", f"ldrd r4, r5, [sp, #{_STEP}]")
    for i in range(3):
        f.add(f"sub r{9 + i}, r{9 + i}, r{6 + i}", f"lsl r{6 + i}, r{6 + i}, #8")
    for first, m, c in ((6, 0, 2), (9, 1, 3)):
        for i in range(3):
            f.add(f"smmla r{first + i}, r{first + i}, r{m}, r{c}")
            f.add(f"ssat r{first + i}, #8, r{first + i}, asr #{shift}")
        _store(f, first, planes)


def _twice(f: Function, planes: bool) -> None:
    """TFLite's two roundings for sums of either sign: r2 holds the shifts less one, r3 the constant."""
    f.add("ldmia lr!, {r0-r2}", f"ldrd r4, r5, [sp, #{_STEP}]", f"ldr r3, [sp, #{_ZERO}]")
    f.add(*(f"sub r{9 + i}, r{9 + i}, r{6 + i}" for i in range(3)), "lsl r3, r3, r2")
    _twice_of(f, 6, 0, "lsl {0}, {0}, #1")
    _store(f, 6, planes)
    f.add("lsr r2, r2, #8", f"ldr r3, [sp, #{_ZERO}]", "lsl r3, r3, r2")
    _twice_of(f, 9, 1, "asr {0}, {0}, #7")
    _store(f, 9, planes)


def _twice_of(f: Function, first: int, m: int, doubled: str) -> None:
    for i in range(3):
        r = f"r{first + i}"
        f.add(doubled.format(r), f"add r12, r3, {r}, asr #31", f"smmlar {r}, {r}, r{m}, r12")
        f.add(f"asr {r}, {r}, r2", f"ssat {r}, #8, {r}, asr #1")


def _store(f: Function, first: int, planes: bool) -> None:
    """One channel of three pixels. r4: bytes from a pixel (or a plane) to the next; r5 moves on."""
    if planes:
        channel = 0 if first == 6 else 1
        f.add(*(f"strb r{first + i}, [r5, #{4 * i + channel}]" for i in range(3)))
        f.add(*["add r5, r5, r4"] * channel)
        return
    f.add(f"strb r{first + 1}, [r5, r4]", f"strb r{first + 2}, [r5, r4, lsl #1]", f"strb r{first}, [r5], #1")


def skip_bytes(depth: int, unrolled: int) -> int:
    """How far into the unrolled loop the first turn of a depth begins."""
    return -depth % unrolled // STEP_INPUTS * STEP_BYTES


def instructions(depth: int, outputs: int, unrolled: int, proved: bool) -> int:
    """Instructions that one call runs."""
    turns = -(-depth // unrolled)
    pair = 7 + depth // STEP_INPUTS * STEP_INSTRUCTIONS + 2 * turns + (30 if proved else 47)
    return 16 + outputs // 2 * pair


def runs(leaf: Kernel, depth: int, outputs: int) -> dict[str, float]:
    """How often the regions of `kernel` run in one call."""
    pairs, unrolled = outputs // 2, leaf.facts["unrolled"]
    return {
        "pair": pairs,
        "step": pairs * depth // STEP_INPUTS,
        "turn": pairs * -(-depth // unrolled),
        "pass": leaf.facts["passes"],
    }


def ordered(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.uint32]:
    """[outputs, depth] int8, not below -127, depth a multiple of 4 -> [outputs / 2, depth / 2] words."""
    wide = weights.astype(np.int64)
    half = (wide[0::2] + 256 * wide[1::2]) & 0xFFFF
    fours = half.reshape(len(half), -1, 4)
    words = np.stack([fours[..., 0] | fours[..., 2] << 16, fours[..., 1] | fours[..., 3] << 16], axis=-1)
    return words.reshape(len(half), -1).astype(np.uint32)


def channel_order(outputs: int, planes: bool) -> Ints:
    """The order in which the kernel writes channels."""
    channels = np.arange(outputs, dtype=np.int64)
    if not planes:
        return channels
    return np.concatenate([channels.reshape(-1, 4)[:, :2].ravel(), channels.reshape(-1, 4)[:, 2:].ravel()])


def packed(
    weights: npt.NDArray[np.int8], bias: Ints, proved: Proved | None, multipliers: Ints, shifts: Ints
) -> npt.NDArray[np.int32]:
    """The words of k_dsp_pairs_s8_t.weights, all arguments in the kernel's order of channels.

    bias: the zero point is folded in; shifts: right shifts >= 1.
    """
    begin, end = sides(bias, proved, multipliers, shifts)
    return as_words(np.concatenate([begin, ordered(weights).astype(np.int64), end], axis=1))


def sides(bias: Ints, proved: Proved | None, multipliers: Ints, shifts: Ints) -> tuple[Ints, Ints]:
    """What stands before and behind the weights of each pair of channels."""
    begin = np.stack([bias[0::2], bias[0::2] + 256 * bias[1::2]], axis=1)
    if proved:
        rounding = [proved.multipliers.reshape(-1, 2), proved.constants.reshape(-1, 2)]
    else:
        less = shifts - 1
        rounding = [multipliers.reshape(-1, 2), (less[0::2] + 256 * less[1::2])[:, None]]
    return begin, np.concatenate(rounding, axis=1)


def pair_bytes(depth: int, proved: bool) -> int:
    """Bytes of two channels in k_dsp_pairs_s8_t.weights."""
    return 4 * (2 + depth // 2 + (4 if proved else 3))


def as_words(values: Ints) -> npt.NDArray[np.int32]:
    """The low 32 bits of each value, flat."""
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32).ravel()
