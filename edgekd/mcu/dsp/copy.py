"""Copies bytes for a convolution's band: the leaf k_dsp_copy_8 in assembly."""

from __future__ import annotations

from edgekd.mcu.dsp.assembly import Function, Kernel

TWIN = "k_dsp_copy_8"


def kernel() -> Kernel:
    """Eight words a turn between aligned areas, four between others, then single bytes."""
    f = Function("k_dsp_copy_fast")
    f.add("push {r4-r10, lr}", "orr r3, r0, r1", "tst r3, #3", "bne 3f", "subs r2, r2, #32", "blo 2f")
    f.label(1)
    f.add("ldmia r0!, {r3-r10}", "stmia r1!, {r3-r10}", "subs r2, r2, #32", "bhs 1b")
    f.label(2)
    f.add("add r2, r2, #32")
    f.label(3)
    f.add("subs r2, r2, #16", "blo 5f")
    f.label(4)
    f.add(*(f"ldr r{3 + i}, [r0], #4" for i in range(4)), *(f"str r{3 + i}, [r1], #4" for i in range(4)))
    f.add("subs r2, r2, #16", "bhs 4b")
    f.label(5)
    f.add("adds r2, r2, #16", "beq 7f")
    f.label(6)
    f.add("ldrb r3, [r0], #1", "strb r3, [r1], #1", "subs r2, r2, #1", "bne 6b")
    f.label(7)
    f.add("pop {r4-r10, pc}")
    return Kernel(f.name, TWIN, f.text)
