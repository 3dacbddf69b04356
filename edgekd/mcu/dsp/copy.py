"""Copies bytes for a convolution's band: the leaf k_dsp_copy_8 in assembly."""

from __future__ import annotations

from functools import cache

from edgekd.mcu.dsp.assembly import Function, Kernel

TWIN = "k_dsp_copy_8"


@cache
def kernel() -> Kernel:
    """Eight words a turn between aligned areas, four between others, then single bytes."""
    f = Function("k_dsp_copy_fast")
    f.add("push {r4-r10, lr}", "orr r3, r0, r1", "tst r3, #3")
    f.branch_ahead("bne 3f", taken="unaligned")
    f.region("aligned")
    f.add("subs r2, r2, #32")
    f.branch_ahead("blo 2f", taken="aligned without eights")
    f.region("eight")
    f.label(1)
    f.add("ldmia r0!, {r3-r10}", "stmia r1!, {r3-r10}", "subs r2, r2, #32")
    f.branch_back("bhs 1b", outer="with eights")
    f.region("aligned")
    f.label(2)
    f.add("add r2, r2, #32")
    f.region("call")
    f.label(3)
    f.add("subs r2, r2, #16")
    f.branch_ahead("blo 5f", taken="without fours")
    f.region("four")
    f.label(4)
    f.add(*(f"ldr r{3 + i}, [r0], #4" for i in range(4)), *(f"str r{3 + i}, [r1], #4" for i in range(4)))
    f.add("subs r2, r2, #16")
    f.branch_back("bhs 4b", outer="with fours")
    f.region("call")
    f.label(5)
    f.add("adds r2, r2, #16")
    f.branch_ahead("beq 7f", taken="without bytes")
    f.region("byte")
    f.label(6)
    f.add("ldrb r3, [r0], #1", "strb r3, [r1], #1", "subs r2, r2, #1")
    f.branch_back("bne 6b", outer="with bytes")
    f.region("call")
    f.label(7)
    f.add("pop {r4-r10, pc}")
    return f.kernel(TWIN)


def runs(size_bytes: int, aligned: bool) -> dict[str, float]:
    """How often the regions of `kernel` run in one call."""
    eights, rest = divmod(size_bytes, 32) if aligned else (0, size_bytes)
    fours, single = divmod(rest, 16)
    return {
        "aligned": int(aligned),
        "unaligned": int(not aligned),
        "eight": eights,
        "with eights": min(eights, 1),
        "aligned without eights": int(aligned and not eights),
        "four": fours,
        "with fours": min(fours, 1),
        "without fours": 1 - min(fours, 1),
        "byte": single,
        "with bytes": min(single, 1),
        "without bytes": 1 - min(single, 1),
    }
