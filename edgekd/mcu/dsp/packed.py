"""Convolutions whose weights are indices: the leaves of k_dsp_packed_s8, and how many channels at once.

See k_dsp_packed_s8.h. A byte of indices is looked up in a table of 256 words that is made in scratch, so a
weight costs about 1.4 instructions (0.7 with 2 bits), once an inference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.mcu.dsp.assembly import Function, Kernel

DRIVER = "k_dsp_packed_s8"
TWINS = {4: "k_dsp_unpack4_s8", 2: "k_dsp_unpack2_s8"}
TABLE_WORDS = 256
REGATHER_SHARE = 0.03  # of a layer's instructions that may go into gathering its windows again
TWICE_SHARE = 0.07  # the same where two parts do

Indices = npt.NDArray[np.int64]


def index_bytes(indices: Indices, bits: int) -> npt.NDArray[np.uint8]:
    """[outputs, depth] in the kernel's order of channels and inputs -> the stream of bytes."""
    pair = indices[0::2] | indices[1::2] << bits
    if bits == 4:
        return pair.astype(np.uint8).ravel()
    fours = pair.reshape(len(pair), -1, 4)
    return (fours[..., :2] | fours[..., 2:] << 4).astype(np.uint8).ravel()


def most_chunks(again: float) -> int:
    """Parts that a layer may be unpacked in. again: gathering its windows once, of its instructions."""
    return max(1 + int(REGATHER_SHARE / again), 2 if again <= TWICE_SHARE else 1)


def chunk_of(outputs: int, multiple: int, pair_bytes: int, room_bytes: int, most: int) -> int:
    """Channels to unpack together: as many as fit `room_bytes`, and at most `most` chunks in all.

    multiple: of channels, 2 or 4; pair_bytes: of two channels unpacked.
    """
    units = -(-outputs // multiple)
    unit_bytes = pair_bytes * multiple // 2
    fitting = max(1, min(units, room_bytes // unit_bytes))
    chunks = min(-(-units // fitting), most)
    return multiple * -(-units // chunks)


def kernel(bits: int) -> Kernel:
    """The leaf: eight inputs of two channels a turn."""
    return _unpack4() if bits == 4 else _unpack2()


def runs(fours: int) -> dict[str, float]:
    """How often the regions of a leaf run in one call, for so many fours of inputs."""
    odd, looped = fours % 2, min(fours // 2, 1)
    return {"odd": odd, "even": 1 - odd, "single": odd * (1 - looped), "turn": fours // 2, "looped": looped}


def _unpack4() -> Kernel:
    f = Function("k_dsp_unpack4")
    f.add("push {r4-r11, lr}", "lsrs r3, r3, #1")
    f.branch_ahead("bcc 2f", taken="even")
    f.region("odd")
    _load(f, "r0", [4, 5, 6, 7], 4)
    _look_up(f, [4, 5, 6, 7])
    f.add("orr r4, r4, r6, lsl #16", "orr r5, r5, r7, lsl #16", "stmia r2!, {r4, r5}", "cmp r3, #0")
    f.branch_ahead("beq 3f", taken="single")
    f.region("turn")
    f.label(2)
    _load(f, "r0", [4, 5, 6, 7, 8, 9, 10, 11], 8)
    _look_up(f, [4, 5, 6, 7, 8, 9, 10, 11])
    f.add("orr r4, r4, r6, lsl #16", "orr r5, r5, r7, lsl #16")
    f.add("orr r6, r8, r10, lsl #16", "orr r7, r9, r11, lsl #16")
    f.add("stmia r2!, {r4-r7}", "subs r3, r3, #1")
    f.branch_back("bne 2b", outer="looped")
    f.region("call")
    f.label(3)
    f.add("pop {r4-r11, pc}")
    return f.kernel(TWINS[4])


def _unpack2() -> Kernel:
    f = Function("k_dsp_unpack2")
    f.add("push {r4-r7, lr}", "lsrs r3, r3, #1")
    f.branch_ahead("bcc 2f", taken="even")
    f.region("odd")
    _load(f, "r0", [4, 5], 2)
    _look_up(f, [4, 5])
    f.add("stmia r2!, {r4, r5}", "cmp r3, #0")
    f.branch_ahead("beq 3f", taken="single")
    f.region("turn")
    f.label(2)
    _load(f, "r0", [4, 5, 6, 7], 4)
    _look_up(f, [4, 5, 6, 7])
    f.add("stmia r2!, {r4-r7}", "subs r3, r3, #1")
    f.branch_back("bne 2b", outer="looped")
    f.region("call")
    f.label(3)
    f.add("pop {r4-r7, pc}")
    return f.kernel(TWINS[2])


def _load(f: Function, source: str, registers: list[int], step: int) -> None:
    """Bytes behind each other; the first comes last and moves the pointer on."""
    f.add(*(f"ldrb.w r{r}, [{source}, #{i}]" for i, r in enumerate(registers) if i))
    f.add(f"ldrb.w r{registers[0]}, [{source}], #{step}")


def _look_up(f: Function, registers: list[int]) -> None:
    f.add(*(f"ldr.w r{r}, [r1, r{r}, lsl #2]" for r in registers))
