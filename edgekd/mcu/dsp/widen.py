"""The windows of three pixels to int16 pairs: the leaf k_dsp_widen_s8 in assembly.

Two forms: a loop over rows and words, for any window; and straight code for one small window, which also
takes rows whose length is no multiple of 4 (an image's three channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from edgekd.mcu.dsp.assembly import Function, Kernel

TWIN = "k_dsp_widen_s8"
STRAIGHT_WORDS = 12  # the most words of a window that straight code is written for
LARGEST_OFFSET = 4000  # of a load


@dataclass(frozen=True)
class Window:
    """rows of row_bytes bytes each, step_bytes from one to the next."""

    rows: int
    row_bytes: int
    step_bytes: int

    @property
    def words(self) -> int:
        return self.row_bytes // 4

    @property
    def leftover(self) -> int:
        return self.row_bytes % 4

    @property
    def depth(self) -> int:
        """Inputs with those that are missing in the last four."""
        return 4 * (self.rows * self.words + -(-self.rows * self.leftover // 4))

    @property
    def fits(self) -> bool:
        """Whether some form of the kernel runs it."""
        return self.leftover == 0 or self.straight

    @property
    def straight(self) -> bool:
        """Whether straight code is worth its bytes, and can reach all of the window."""
        reach = (self.rows - 1) * self.step_bytes + self.row_bytes
        return self.depth <= 4 * STRAIGHT_WORDS and reach <= LARGEST_OFFSET and self.rows * self.row_bytes > 0

    def order(self) -> list[int]:
        """For each input of the block: its position in [rows][row_bytes], -1 where there is none."""
        whole = 4 * self.words
        order = [r * self.row_bytes + b for r in range(self.rows) for b in range(whole)]
        order += [r * self.row_bytes + b for r in range(self.rows) for b in range(whole, self.row_bytes)]
        return order + [-1] * (self.depth - len(order))


@cache
def kernel(window: Window, planes: bool = False) -> Kernel:
    """planes: the rows of the window are words of planes, and its three pixels are neighbours in each."""
    if planes:
        return _planes()
    if window.straight and (window.leftover or window.rows > 1):
        return _straight(window)
    return _looped(next(n for n in (4, 2, 1) if window.words % n == 0))


def instructions(window: Window) -> int:
    """Instructions that one call runs."""
    words = window.rows * window.words
    if window.straight and (window.leftover or window.rows > 1):
        return 4 + 10 * words + (4 * 3 + 1) * (window.depth // 4 - words)
    unrolled = next(n for n in (4, 2, 1) if window.words % n == 0)
    return 6 + 10 * words + 2 * words // unrolled + 6 * window.rows


def runs(leaf: Kernel, words: int, rows: int) -> dict[str, float]:
    """How often the regions of a leaf run in one call, for a window of `rows` rows of `words` words."""
    if "planes" in leaf.facts:
        odd, looped = rows % 2, min(rows // 2, 1)
        return {
            "odd": odd,
            "even": 1 - odd,
            "single": odd * (1 - looped),
            "turn": rows // 2,
            "looped": looped,
        }
    if "columns" in leaf.facts:
        return {"row": rows, "turn": rows * words // 4 // leaf.facts["columns"]}
    return {"row": rows, "turn": rows * words // leaf.facts.get("unrolled", 1)}


def _word(f: Function) -> None:
    f.add("sxtb16 r3, r6", "sxtb16 r4, r7", "sxtb16 r5, r8")
    f.add(*(f"sxtb16 r{6 + i}, r{6 + i}, ror #8" for i in range(3)), "stmia r2!, {r3-r8}")


def _looped(unrolled: int) -> Kernel:
    f = Function(f"k_dsp_widen_{unrolled}")
    f.add("push {r4-r11, lr}", "ldmia r1, {r9-r11}", "ldmia r0, {r1, r3, r4}", "sub r0, r4, r1, lsl #2")
    f.add("mov lr, r3")
    f.region("row")
    f.label(1)
    f.add("mov r12, r1")
    f.region("turn")
    f.label(2)
    for _ in range(unrolled):
        f.add(*(f"ldr r{6 + i}, [r{9 + i}], #4" for i in range(3)))
        _word(f)
    f.add(f"subs r12, r12, #{unrolled}")
    f.branch_back("bne 2b", outer="row")
    f.region("row")
    f.add(*(f"add r{9 + i}, r{9 + i}, r0" for i in range(3)), "subs lr, lr, #1")
    f.branch_back("bne 1b", outer="call")
    f.region("call")
    f.add("pop {r4-r11, pc}")
    return f.kernel(TWIN, unrolled=unrolled)


def _planes() -> Kernel:
    f = Function("k_dsp_widen_planes")
    f.add("push {r4-r10, lr}", "ldr r1, [r1]", "ldrd r9, r10, [r0, #4]")
    f.add("tst r9, #1")
    f.branch_ahead("beq 2f", taken="even")
    f.region("odd")
    f.add("ldmia r1, {r6-r8}", "add r1, r1, r10")
    _word(f)
    f.add("subs r9, r9, #1")
    f.branch_ahead("beq 3f", taken="single")
    f.region("turn")
    f.label(2)
    for _ in range(2):
        f.add("ldmia r1, {r6-r8}", "add r1, r1, r10")
        _word(f)
    f.add("subs r9, r9, #2")
    f.branch_back("bne 2b", outer="looped")
    f.region("call")
    f.label(3)
    f.add("pop {r4-r10, pc}")
    return f.kernel(TWIN, planes=1)


@cache
def shared(window: Window, channels: int) -> Kernel | None:
    """For three neighbouring pixels of stride 1 with windows 3 columns wide: five columns, each read once.

    None where the window is of another kind.
    """
    if window.row_bytes != 3 * channels or channels % 16 or channels > LARGEST_OFFSET // 8:
        return None
    f = Function(f"k_dsp_widen_shared_c{channels}")
    f.add("push {r4-r11, lr}", "sub sp, #12", "ldrd r3, r4, [r0, #4]", f"sub r4, r4, #{channels}")
    f.add("strd r3, r4, [sp]", "ldr r0, [r1]", "mov lr, r2")
    f.region("row")
    f.label(1)
    f.add("mov r1, lr", f"add r2, r1, #{6 * channels}", f"add lr, r2, #{6 * channels}")
    f.add(f"add r3, r0, #{channels}", "str r3, [sp, #8]")
    f.region("turn")
    f.label(2)
    for word in range(4):
        f.add(*(f"ldr r{8 + i}, [r0, #{channels * i + 4 * word}]" for i in range(5)))
        f.add(*(f"sxtb16 r{3 + i}, r{8 + i}" for i in range(5)))
        f.add(*(f"sxtb16 r{8 + i}, r{8 + i}, ror #8" for i in range(5)))
        f.add("stmia r1!, {r3, r4, r5, r8, r9, r10}", "stmia r2!, {r4, r5, r6, r9, r10, r11}")
        f.add("stmia lr!, {r5, r6, r7, r10, r11, r12}")
    f.add("add r0, r0, #16", "ldr r3, [sp, #8]", "cmp r0, r3")
    f.branch_back("bne.w 2b", outer="row")
    f.region("row")
    f.add("ldrd r3, r4, [sp]", "add r0, r0, r4", "subs r3, r3, #1", "str r3, [sp]")
    f.branch_back("bne.w 1b", outer="call")
    f.region("call")
    f.add("add sp, #12", "pop {r4-r11, pc}")
    return f.kernel(TWIN, columns=3)


def shared_instructions(window: Window, channels: int) -> int:
    """Instructions that one call of `shared` runs."""
    return 11 + window.rows * (9 + 76 * channels // 16)


def _straight(window: Window) -> Kernel:
    f = Function(f"k_dsp_widen_{window.rows}x{window.row_bytes}s{window.step_bytes}")
    f.add("push {r4-r11, lr}", "ldmia r1, {r9-r11}")
    for row in range(window.rows):
        for word in range(window.words):
            offset = row * window.step_bytes + 4 * word
            f.add(*(f"ldr r{6 + i}, [r{9 + i}, #{offset}]" for i in range(3)))
            _word(f)
    rest = [
        row * window.step_bytes + 4 * window.words + byte
        for row in range(window.rows)
        for byte in range(window.leftover)
    ]
    for start in range(0, len(rest), 4):
        _leftover(f, rest[start : start + 4])
    f.add("pop {r4-r11, pc}")
    return f.kernel(TWIN)


def _leftover(f: Function, offsets: list[int]) -> None:
    """Up to four bytes of each pixel; the halves that nothing fills meet zero weights."""
    for i in range(3):
        for target, pair in ((3 + i, offsets[0::2]), (6 + i, offsets[1::2])):
            if not pair:
                f.add(f"movs r{target}, #0")
                continue
            f.add(f"ldrsb.w r{target}, [r{9 + i}, #{pair[0]}]")
            if len(pair) == 2:
                f.add(f"ldrsb.w r12, [r{9 + i}, #{pair[1]}]", f"pkhbt r{target}, r{target}, r12, lsl #16")
    f.add("stmia r2!, {r3-r8}")
