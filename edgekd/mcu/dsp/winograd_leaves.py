"""The three leaves of k_dsp_winograd_s8 in assembly; see there for what each reads and writes.

Their sizes are literals: channels, outputs and columns are in a leaf's name. The multiplication is rolled
over a tile's four rows and pairs of output channels; the loop over input channels inside is straight code,
or two turns of it.
"""

from __future__ import annotations

from edgekd.mcu.dsp.assembly import Function, Kernel

STRIP, TILES, MULTIPLY = (f"k_dsp_winograd_{leaf}_s8" for leaf in ("strip", "tiles", "multiply"))
MOST_STRAIGHT = 64  # input channels; as much code again for each is more than a flash cache holds
LEAST_LOOPED = 36
MOST_CHANNELS = 2 * MOST_STRAIGHT
MOST_COLUMNS = 127  # of a strip: the reach of an ADD's literal
MOST_OUTPUTS = 1024  # the reach of a store

# Stack slots of the multiplication, bytes.
_Y, _Y_END, _X, _X_END, _ZERO, _FRAME = 0, 8, 12, 16, 20, 28


def possible_turns(channels: int) -> list[int]:
    """Of the inner loop over channels: 1 is straight code, 2 half as much; none: no leaf runs so many."""
    straight = [1] if channels <= MOST_STRAIGHT and channels % 4 == 0 else []
    looped = [2] if LEAST_LOOPED <= channels <= MOST_CHANNELS and channels % 8 == 0 else []
    return straight + looped


def row_bytes(channels: int) -> int:
    """A block's row: four columns of two tiles, and twice four free words."""
    return 16 * channels + 32


def block_bytes(channels: int) -> int:
    return 4 * row_bytes(channels)


def pair_bytes(channels: int) -> int:
    """The weights of two output channels without their roundings."""
    return 4 * (16 * channels + 8)


def strip(channels: int, columns: int) -> Kernel:
    """Four bytes of a column's four rows to two words of each row, then the next column."""
    row = 8 * columns
    f = Function(f"k_dsp_winograd_strip_c{channels}w{columns}")
    # Slots: the four rows, the strip's start and end of these channels, the end of the channels.
    f.add("push {r4-r11, lr}", "sub sp, #28", "ldr r12, [r0, #28]", "lsl r12, r12, #3", "mov lr, r2")
    f.add("ldmia r1, {r0-r3}", "stmia.w sp, {r0-r3}", "add r4, lr, r12", "strd lr, r4, [sp, #16]")
    f.add(f"add r5, r0, #{channels}", "str r5, [sp, #24]")
    f.region("columns")
    f.label(1)
    f.add(*(f"ldr r{4 + i}, [r{i}], #{channels}" for i in range(4)))
    f.add(*(f"sxtb16 r{8 + i}, r{4 + i}" for i in range(4)))
    _downwards(f, 8, 0, row)
    f.add(*(f"sxtb16 r{4 + i}, r{4 + i}, ror #8" for i in range(4)))
    _downwards(f, 4, 4, row)
    f.add("ldr r5, [sp, #20]", "add lr, lr, #8", "cmp lr, r5")
    f.branch_back("bne 1b", outer="fours")
    f.region("fours")
    f.add("ldmia.w sp, {r0-r3}", *(f"add r{i}, r{i}, #4" for i in range(4)), "stmia.w sp, {r0-r3}")
    f.add("ldrd lr, r4, [sp, #16]", "ldr r5, [sp, #24]", f"add lr, lr, #{4 * row}", f"add r4, r4, #{4 * row}")
    f.add("strd lr, r4, [sp, #16]", "cmp r0, r5")
    f.branch_back("bne.w 1b", outer="call")
    f.region("call")
    f.add("add sp, #28", "pop {r4-r11, pc}")
    return f.kernel(STRIP)


def _downwards(f: Function, first: int, offset: int, row: int) -> None:
    """B^T over four rows in four registers: d0 - d2, d1 + d2, d2 - d1, d1 - d3."""
    d = [f"r{first + i}" for i in range(4)]
    f.add(f"ssub16 {d[0]}, {d[0]}, {d[2]}", f"sadd16 r12, {d[1]}, {d[2]}")
    f.add(f"ssub16 {d[2]}, {d[2]}, {d[1]}", f"ssub16 {d[3]}, {d[1]}, {d[3]}")
    for i, register in enumerate((d[0], "r12", d[2], d[3])):
        f.add(f"str {register}, [lr, #{i * row + offset}]")


def tiles(channels: int, columns: int) -> Kernel:
    """Six columns of a row to four columns of two tiles, four channels at a time."""
    f = Function(f"k_dsp_winograd_tiles_c{channels}w{columns}")
    # Slots: the block's start and end for these four channels, the end of the channels.
    f.add("push {r4-r11, lr}", "sub sp, #12", "mov lr, r1", "mov r12, r2")
    f.add(f"movw r3, #{block_bytes(channels)}", "add r3, r3, r2", "strd r2, r3, [sp]")
    f.add(f"add r4, r2, #{4 * channels}", "str r4, [sp, #8]")
    f.region("rows")
    f.label(1)
    f.add("ldmia.w lr, {r0-r11}", f"add lr, lr, #{8 * columns}")
    _sideways(f, channels)
    f.add("ldr r0, [sp, #4]", f"add r12, r12, #{row_bytes(channels)}", "cmp r12, r0")
    f.branch_back("bne 1b", outer="fours")
    f.region("fours")
    f.add("ldrd r12, r0, [sp]", "ldr r1, [sp, #8]", "add r12, r12, #16", "add r0, r0, #16")
    f.add("strd r12, r0, [sp]", "cmp r12, r1")
    f.branch_back("bne.w 1b", outer="call")
    f.region("call")
    f.add("add sp, #12", "pop {r4-r11, pc}")
    return f.kernel(TILES)


def _sideways(f: Function, channels: int) -> None:
    """B over columns t0 to t5, a word of channels 0, 2 and one of 1, 3 each (r0 to r11)."""
    places = {1: 0, 2: 4 * channels, 3: 8 * channels, 0: 12 * channels + 16}

    def give(column: int, tile: int, op: str, a: int, b: int, low: int) -> None:
        f.add(*(f"{op} r{low + half}, r{2 * a + half}, r{2 * b + half}" for half in range(2)))
        f.add(*(f"str r{low + half}, [r12, #{places[column] + 8 * tile + 4 * half}]" for half in range(2)))

    give(0, 0, "ssub16", 0, 2, 0)
    give(3, 1, "ssub16", 3, 5, 10)
    for tile, low in ((0, 0), (1, 10)):
        give(1, tile, "sadd16", 1 + 2 * tile, 2 + 2 * tile, low)
        give(2, tile, "ssub16", 2 + 2 * tile, 1 + 2 * tile, low)
    give(3, 0, "ssub16", 1, 3, 0)
    give(0, 1, "ssub16", 2, 4, 10)


def multiply(channels: int, outputs: int, shift: int, turns: int) -> Kernel:
    """Two tiles times the weights of two output channels; shift 0: two roundings.

    turns: of the inner loop over channels, one of `possible_turns`.
    """
    f = Function(f"k_dsp_winograd_multiply_c{channels}t{turns}o{outputs}_s{shift}")
    f.add("push {r4-r11, lr}", f"sub sp, #{_FRAME}", "ldmia r0, {r3-r5}", "mov lr, r3", "add r4, r4, r2")
    f.add(f"strd r2, r4, [sp, #{_Y}]", f"add r6, r2, #{outputs}", f"strd r6, r1, [sp, #{_Y_END}]")
    f.add(f"movw r7, #{block_bytes(channels)}", "add r7, r7, r1", f"strd r7, r5, [sp, #{_X_END}]")
    f.add("mov r12, r1")
    f.label(1)
    _row(f, channels, turns)
    f.add(f"ldr r0, [sp, #{_X_END}]", "cmp r12, r0")
    f.branch_back("bne.w 1b", outer="pairs")
    # Twice: the left outputs, then the right ones. The flags, equal and then not, tell which: nothing
    # up to the branch changes them.
    f.region("pairs")
    f.add(f"ldr r12, [sp, #{_X}]", f"add r12, r12, #{16 * channels + 16}")
    f.region("sides")
    f.label(4)
    _columns(f, row_bytes(channels))
    _round(f, shift)
    f.add(f"ldrd r0, r1, [sp, #{_Y}]")
    for line in range(2):
        for i, offset in enumerate((0, 2 * outputs, 1, 2 * outputs + 1)):
            f.add(f"strb r{4 + 4 * line + i}, [r{line}, #{offset}]")
    f.branch_ahead("bne 5f", taken="pairs")
    f.region("pairs")
    f.add("cmp r0, #0", *(f"add r{i}, r{i}, #{outputs}" for i in range(2)))
    f.add(f"strd r0, r1, [sp, #{_Y}]", f"ldr r12, [sp, #{_X}]", f"add r12, r12, #{12 * channels}", "b.w 4b")
    f.label(5)
    f.add(*(f"sub r{i}, r{i}, #{outputs - 2}" for i in range(2)), f"strd r0, r1, [sp, #{_Y}]")
    f.add(f"add lr, lr, #{16 if shift else 12}", f"ldrd r2, r12, [sp, #{_Y_END}]", "cmp r0, r2")
    f.branch_back("bne.w 1b", outer="call")
    f.region("call")
    f.add(f"add sp, #{_FRAME}", "pop {r4-r11, pc}")
    return f.kernel(MULTIPLY)


def _row(f: Function, channels: int, turns: int) -> None:
    """One row of the tiles: its left sums M0 + M1 + M2 and right sums M1 - M2 - M3 into the free words."""
    f.region("rows")
    f.add("ldrd r8, r10, [lr], #8")
    _column(f, channels, turns, "bias")
    f.add("push {r8-r11}")
    _column(f, channels, turns, "zero")
    f.add("pop {r0-r3}", *(f"add r{4 + i}, r{i}, r{8 + i}" for i in range(4)))
    f.add(*(f"sub r{8 + i}, r{i}, r{8 + i}" for i in range(4)), "push {r4-r7}")
    _column(f, channels, turns, "sums")
    f.add("pop {r4-r7}", "stmia r12!, {r8-r11}")
    _column(f, channels, turns, "sums", sums=4, weights=8)
    f.add("stmia r12!, {r4-r7}")


def _column(f: Function, channels: int, turns: int, start: str, sums: int = 8, weights: int = 4) -> None:
    """One column of two tiles times that of two channels, into four registers from r`sums` on.

    start: what those hold before: "bias" in the first and third, nothing ("zero"), or "sums".
    """
    looped = turns == 2
    if looped:  # the flags count the turns: no instruction inside changes them
        a0, a1, b0, b1 = (f"r{sums + i}" for i in range(4))
        zeros = [f"mov.w r{sums + i}, #0" for i in range(4)]
        f.add(*{"bias": [f"mov {a1}, {a0}", f"mov {b1}, {b0}"], "zero": zeros, "sums": []}[start])
        f.add("cmp r12, #0")
        f.region("turns")
        f.label(2)
    for step in range(channels // turns // 4):
        f.add("ldmia.w r12!, {r0-r3}", f"ldmia.w lr!, {{r{weights}-r{weights + 3}}}")
        _products(f, 0, sums, weights, "sums" if looped or step else start)
        _products(f, 1, sums, weights, "sums")
    if looped:
        f.branch_ahead("beq 3f", taken="again")
        f.region("again")
        f.add("cmp r12, r12", "b.w 2b")
        f.label(3)
        f.region("rows")


def _products(f: Function, half: int, sums: int, weights: int, start: str) -> None:
    """Two inputs of two tiles (r0 and r2, or r1 and r3) times the weights of two channels."""
    for channel in range(2):
        first, w = sums + 2 * channel, f"r{weights + 2 * channel + half}"
        for tile in (1, 0):  # the bias lies in the first tile's register
            before = f"r{first if start == 'bias' else first + tile}"
            factors = f"r{first + tile}, r{2 * tile + half}, {w}"
            f.add(f"smuad {factors}" if start == "zero" else f"smlad {factors}, {before}")


def _columns(f: Function, row: int) -> None:
    """The sums of four rows to upper outputs s0 + s1 + s2 (r4 to r7) and lower ones s1 - s2 + s3."""
    f.add("ldmia.w r12, {r4-r7}", f"add r12, r12, #{row}", "ldmia.w r12, {r8-r11}", f"add r12, r12, #{row}")
    f.add("ldmia.w r12, {r0-r3}", f"add r12, r12, #{row}")
    for i in range(4):
        f.add(f"add r{4 + i}, r{4 + i}, r{8 + i}", f"add r{4 + i}, r{4 + i}, r{i}")
        f.add(f"sub r{8 + i}, r{8 + i}, r{i}")
    f.add("ldmia.w r12, {r0-r3}", *(f"add r{8 + i}, r{8 + i}, r{i}" for i in range(4)))


def _round(f: Function, shift: int) -> None:
    """r4 to r11: the sums of channel A in two tiles, of B in two, the same for the lower row."""
    channels = ((4, 5, 8, 9), (6, 7, 10, 11))
    if shift:
        f.add("ldmia.w lr, {r0-r3}")
        for channel, registers in enumerate(channels):
            for r in registers:
                f.add(f"smmla r{r}, r{r}, r{channel}, r{2 + channel}", f"ssat r{r}, #8, r{r}, asr #{shift}")
        return
    f.add("ldmia.w lr, {r0-r2}")
    for channel, registers in enumerate(channels):
        f.add(*["lsr r2, r2, #8"] * channel, f"ldr r3, [sp, #{_ZERO}]", "lsl r3, r3, r2")
        for r in registers:
            f.add(f"asr r{r}, r{r}, #1", f"add r12, r3, r{r}, asr #31", f"smmlar r{r}, r{r}, r{channel}, r12")
            f.add(f"asr r{r}, r{r}, r2", f"ssat r{r}, #8, r{r}, asr #1")
