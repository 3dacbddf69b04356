"""DEPTHWISE_CONV_2D 3 x 3 on planes of four channels: the leaf in assembly, and its weights.

See k_dsp_depthwise_s8.h. Scratch holds, a channel, two words a column: x01 (rows r, r + 1) and x23 (rows
r + 2, r + 3). From them come the output row at r (kind "even": taps 0, 1 on x01, tap 2 on the low half of
x23) and, with stride 1, the row at r + 1 (kind "odd": tap 0 on the high half of x01, taps 1, 2 on x23). The
next step replaces x01, and the two words change places: so each pass exists for both orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from edgekd.mcu.candidate import Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp.assembly import REPEATED, Function, Kernel
from edgekd.mcu.dsp.linear import linear_range
from edgekd.mcu.dsp.rounding import CARRIED_BITS, LARGEST_TWICE_SHIFT, Folded, Ints, possible_folds
from edgekd.qgraph.reference.values import before

TWIN = "k_dsp_depthwise_leaf_s8"
WEIGHT_BYTES = 56  # of a channel in scratch: seven words for each kind of row
CHANNEL_BYTES = 18  # of a channel in flash

# Stack slots, bytes.
_IMAGE, _ROW, _HEIGHT, _ZEROS, _ROW_BYTES, _CHANNEL, _READ, _COLUMNS, _REGION, _Y, _BACK, _LEFT = range(
    0, 48, 4
)
_FRAME = 52
_ARGUMENT = _FRAME + 36  # the fifth argument, behind the pushed registers

# stride -> outputs in one turn of the loop, columns before it, accumulators.
_OUTPUTS_A_TURN = {1: 3, 2: 2}
_COLUMNS_BEFORE = {1: 2, 2: 1}


def tail(out_w: int, stride: int) -> int:
    """Outputs behind the loop; the loop needs at least one turn, else all is straight code."""
    least = 3 - stride
    rest = least + (out_w - least) % _OUTPUTS_A_TURN[stride] if out_w >= least else out_w
    return rest


def turns(out_w: int, stride: int) -> int:
    """Turns of the loop, less one; 0 for straight code."""
    return max(0, (out_w - tail(out_w, stride)) // _OUTPUTS_A_TURN[stride] - 1)


def is_looped(out_w: int, stride: int) -> bool:
    return out_w - tail(out_w, stride) >= _OUTPUTS_A_TURN[stride]


@cache
def kernel(out_w: int, stride: int, shift: int) -> Kernel:
    looped = is_looped(out_w, stride)
    width = _OUTPUTS_A_TURN[stride] + tail(out_w, stride) if looped else out_w
    form = f"t{tail(out_w, stride)}" if looped else f"w{out_w}"
    f = Function(f"k_dsp_depthwise_x{stride}{form}_s{shift}")
    _begin(f)
    _unpack(f)
    f.add("movs r1, #0", "bl 9f")
    f.label(1)
    for older in range(2):
        f.region(REPEATED if older else "step")
        f.add(f"movs r1, #{4 * (1 - older)}", "bl 9f")
        for kind in ("even", "odd")[: 3 - stride]:
            _pass(f, stride, kind, older, shift, width, looped)
    f.region("both")
    f.add("b.w 1b")
    f.region("call")
    f.label(7)
    f.add(f"add sp, #{_FRAME}", "pop {r4-r11, pc}")
    _spread(f)
    return f.kernel(TWIN, looped=int(looped))


def runs(leaf: Kernel, columns_read: int, out_w: int, out_h: int, stride: int) -> dict[str, float]:
    """How often the regions of `kernel` run in one call; columns_read: of the plane, without padding."""
    steps = -(-out_h // (3 - stride))
    odd = out_h - steps
    counts: dict[str, float] = {
        "unpack": 4,
        "step": steps,
        "both": (steps - 1) // 2,
        "spread": steps + 1,
        "odd columns": columns_read % 2 * (steps + 1),
        "column": columns_read * (steps + 1),
        "columns": -(-columns_read // 2) * (steps + 1),
    }
    for kind, rows in (("even", steps), ("odd", odd)):
        counts |= {f"{kind} row": rows, f"{kind} channel": 4 * rows}
        counts[f"{kind} turn"] = 4 * rows * (turns(out_w, stride) + 1) * leaf.facts["looped"]
    return counts


def _begin(f: Function) -> None:
    f.add("push {r4-r11, lr}", f"sub sp, #{_FRAME}", "ldr r12, [r0, #32]", f"str r12, [sp, #{_READ}]")
    f.add("ldmia r0, {r4-r11}", "rsb r8, r8, #0", f"strd r1, r8, [sp, #{_IMAGE}]")
    f.add(f"strd r5, r2, [sp, #{_HEIGHT}]", "lsl r12, r4, #2", "lsl r10, r10, #3")
    f.add(f"add r10, r10, #{WEIGHT_BYTES}", f"strd r12, r10, [sp, #{_ROW_BYTES}]", "add r2, r2, r12")
    f.add(f"add r12, r2, #{WEIGHT_BYTES}", "add r12, r12, r9, lsl #3", f"strd r12, r2, [sp, #{_COLUMNS}]")
    f.add("lsl r6, r6, #2", "subs r6, r6, #1", f"strd r3, r6, [sp, #{_Y}]", f"str r7, [sp, #{_LEFT}]")


def _unpack(f: Function) -> None:
    """Four channels' weights into scratch. r2: the channel's place; r11: turns."""
    taps = ["r0", "r1", *(f"r{n}" for n in range(4, 11))]
    f.add(f"ldr r12, [sp, #{_ARGUMENT}]", "movs r3, #4")
    f.region("unpack")
    f.label(2)
    f.add(*(f"ldrsb.w {r}, [r12, #{tap}]" for tap, r in enumerate(taps)), "ldrb.w lr, [r12, #9]")
    f.add(*(f"lsl {r}, {r}, lr" for r in taps))
    even = [(0, 3), (1, 4), (2, 5), (6, 7), (8, None)]
    odd = [(3, 6), (4, 7), (5, 8), (0, 1), (2, None)]
    for words in (even, odd):
        for low, high in words:
            top = "r11" if high is None else taps[high]
            f.add(f"pkhbt lr, {taps[low]}, {top}, lsl #16", "str lr, [r2], #4")
        for offset in (10, 14):  # bias and multiplier
            f.add(f"ldr lr, [r12, #{offset}]", "str lr, [r2], #4")
    f.add(f"ldr lr, [sp, #{_CHANNEL}]", f"sub lr, lr, #{WEIGHT_BYTES}", "add r2, r2, lr")
    f.add(f"add r12, r12, #{CHANNEL_BYTES}", "subs r3, r3, #1")
    f.branch_back("bne 2b", outer="call")
    f.region("call")


def _spread(f: Function) -> None:
    """Two more rows of the plane (zero points outside it) into slot r1 of each column; the row moves on."""
    f.region("spread")
    f.label(9)
    f.add(f"ldrd r0, r2, [sp, #{_ROW}]", f"ldrd r3, r5, [sp, #{_ZEROS}]", f"ldr r4, [sp, #{_IMAGE}]")
    for row in ("r6", "r7"):
        f.add("cmp r0, r2", "ite lo", f"mlalo {row}, r0, r5, r4", f"movhs {row}, r3", "add r0, r0, #1")
    f.add(f"str r0, [sp, #{_ROW}]", f"ldrd r8, r0, [sp, #{_CHANNEL}]", f"ldr r12, [sp, #{_COLUMNS}]")
    f.add("add r1, r1, r12", "add r9, r8, r8, lsl #1", "mov.w r12, #0xff00ff00")
    f.add("tst r0, #1", "it ne", "addne r0, r0, #1")
    f.branch_ahead("bne 6f", taken="odd columns")
    f.region("column")
    f.label(8)
    _spread_column(f)
    f.region(REPEATED)
    f.label(6)
    _spread_column(f)
    f.region("columns")
    f.add("subs r0, r0, #2")
    f.branch_back("bne 8b", outer="spread")
    f.region("spread")
    f.add("bx lr")


def _spread_column(f: Function) -> None:
    """Two bytes, one above the other, of four channels into four words."""
    f.add("ldr r2, [r6], #4", "ldr r3, [r7], #4")
    f.add("and r4, r12, r2, lsl #8", "and r2, r12, r2", "and r5, r12, r3, lsl #8", "and r3, r12, r3")
    f.add("pkhbt r10, r4, r5, lsl #16", "pkhtb r11, r5, r4, asr #16")
    f.add("pkhbt r4, r2, r3, lsl #16", "pkhtb r5, r3, r2, asr #16")
    f.add("str r4, [r1, r8]", "str r11, [r1, r8, lsl #1]", "str r5, [r1, r9]", "str r10, [r1], #8")


def _pass(f: Function, stride: int, kind: str, older: int, shift: int, width: int, looped: bool) -> None:
    """One output row of four channels. older: which of a column's two words is x01.

    r0 to r4: taps; r5: bias; r6: multiplier; r7 to r9: sums; r10, r11: a column; r12 walks through
    scratch, lr through the output. The turns are counted in the upper half of r4.
    """
    row, channel, turn = (REPEATED if older else f"{kind} {part}" for part in ("row", "channel", "turn"))
    f.region(row)
    f.add(f"ldr r12, [sp, #{_REGION}]", f"ldr lr, [sp, #{_Y}]")
    f.region(channel)
    f.label(3)
    taps = ["ldmia r12!, {r0-r6}", f"add r12, r12, #{WEIGHT_BYTES // 2}"]
    f.add(*(taps if kind == "even" else taps[::-1]))
    columns = [_column(stride, kind, older, shift, width, i) for i in range((width - 1) * stride + 3)]
    start = _COLUMNS_BEFORE[stride] if looped else 0
    end = start + _OUTPUTS_A_TURN[stride] * stride if looped else 0
    f.add(*(line for column in columns[:start] for line in column))
    if looped:
        f.region(turn)
        f.label(4)
        f.add(*(line for column in columns[start:end] for line in column), "subs r4, r4, #65536")
        f.branch_back("bhs 4b", outer=channel)
        f.region(channel)
    f.add(*(line for column in columns[end:] for line in column))
    f.add(f"ldr r10, [sp, #{_BACK}]", "sub lr, lr, r10", "tst lr, #3")
    f.branch_back("bne.w 3b", outer=row)
    f.region(row)
    f.add(f"ldr r11, [sp, #{_Y}]", "add r11, r11, r10", "add r11, r11, #1", f"str r11, [sp, #{_Y}]")
    f.add(f"ldr r10, [sp, #{_LEFT}]", "subs r10, r10, #1", f"str r10, [sp, #{_LEFT}]", "beq.w 7f")


def _column(stride: int, kind: str, older: int, shift: int, width: int, column: int) -> list[str]:
    """A column's part in the outputs that it touches, the oldest first; an output that it ends is stored."""
    lines = ["ldrd r10, r11, [r12], #8"]
    first, second = ("r10", "r11") if older == 0 else ("r11", "r10")
    for tap in (2, 1, 0):
        output, rest = divmod(column - tap, stride)
        if rest or not 0 <= output < width:
            continue
        total = f"r{7 + output % _OUTPUTS_A_TURN[stride]}"
        start = "r5" if tap == 0 else total
        half = f"{'bt'[tap % 2]} {total}"
        pair, single = (first, f"b{half}, {second}") if kind == "even" else (second, f"t{half}, {first}")
        lines.append(f"smlad {total}, {pair}, r{tap}, {start}")
        lines.append(f"smla{single}, r{3 + tap // 2}, {total}")
        if tap == 2:
            lines.append(f"smmul {total}, {total}, r6")
            lines += [f"ssat {total}, #8, {total}, asr #{shift}", f"strb {total}, [lr], #4"]
    return lines


DRIVER = "k_dsp_depthwise_s8"
PLAIN = "k_dsp_depthwise_plain_s8"
_GROUP = 4
_PLAIN_MARK = -128  # in the tenth byte of the channels of a plane that plain C runs


@dataclass(frozen=True)
class Plan:
    """A depthwise convolution that the family can run where its input and output are planes."""

    case: Case
    weights: npt.NDArray[np.int64]  # [channels, 9]
    bias: Ints
    shifts: Ints
    multipliers: Ints
    folds: dict[int, Folded]  # empty: plain C runs it
    may_be_plain: bool = False

    @property
    def stride(self) -> int:
        return self.case.number("stride_w")

    @property
    def proofs(self) -> Mapping[int, Folded]:
        return self.folds

    def takes(self, layout: Layout) -> bool:
        return layout == Layout(planes_in=True, planes_out=True)

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        yield Candidate("planes" if shift else "planes plain", self.emission(shift))
        if shift and self.may_be_plain:
            yield Candidate("planes plain", self.emission(0))

    def emission(self, shift: int) -> Emission:
        case = self.case
        leaf = kernel(case.y.shape[2], self.stride, shift) if shift else None
        weights = case.array("filter", self._records(shift))
        in_w, columns = case.x.shape[2], (case.y.shape[2] - 1) * self.stride + 3
        fields: dict[str, Value] = {
            "in_w": in_w,
            "in_h": case.x.shape[1],
            "out_w": case.y.shape[2],
            "out_h": case.y.shape[1],
            "pad_top": before(case.op, case.x.shape[1], 3, "h"),
            "pad_left": before(case.op, in_w, 3, "w"),
            "columns": columns,
            "turns": turns(case.y.shape[2], self.stride),
            "read": min(in_w, columns - before(case.op, in_w, 3, "w")),
            "stride": self.stride,
            "channels": case.x.shape[3],
            "in_zero_point": case.x.zero_point,
            "shift": shift,
            "zero": 2 * case.y.zero_point + 1,
            "weights": weights.name,
            "leaf": leaf.name if leaf else "0",
            "plain": PLAIN if self.needs_plain or not shift else "0",
        }
        return Emission(
            calls=(Call(DRIVER, ("&layer", case.source(), SCRATCH, case.target())),),
            struct=(f"{DRIVER}_t", fields),
            weights=(weights,),
            macs=case.y.elements * 9,
            scratch_bytes=4 * in_w + 4 * (WEIGHT_BYTES + 8 * columns),
            assembly=(leaf,) if leaf else (),
            helpers=(PLAIN,) if self.needs_plain or not shift else (),
        )

    def _records(self, shift: int) -> npt.NDArray[np.int8]:
        """18 bytes a channel; planes with an inexact channel in plain C's form."""
        plain = self._plain_records()
        if not shift:
            return plain
        exact = self.folds[shift].exact.reshape(-1, _GROUP).all(axis=1).repeat(_GROUP)
        return np.where(exact[:, None], self._folded_records(self.folds[shift]), plain)

    def _plain_records(self) -> npt.NDArray[np.int8]:
        """Taps, right shift less one with a plain plane's mark, bias without the zero point, multiplier."""
        bias = self.bias + self.case.x.zero_point * self.weights.sum(axis=1)
        less_one = (self.shifts - 1 + _PLAIN_MARK).astype(np.int8)
        return _record(self.weights, less_one, bias, self.multipliers)

    def _folded_records(self, folded: Folded) -> npt.NDArray[np.int8]:
        """Taps, left shift, bias, multiplier."""
        dead = folded.is_constant
        bias = (self.bias << (CARRIED_BITS + folded.left)) + folded.constants
        taps = np.where(dead[:, None], 0, self.weights)
        return _record(taps, folded.left, np.where(dead, folded.constants, bias), folded.multipliers)

    @property
    def needs_plain(self) -> bool:
        """Whether some plane runs in plain C."""
        return not self.folds or not all(folded.exact.all() for folded in self.folds.values())


def _record(
    taps: Ints, byte: npt.NDArray[np.signedinteger], bias: Ints, multipliers: Ints
) -> npt.NDArray[np.int8]:
    words = np.stack([bias, multipliers], axis=1).astype("<i4").view(np.int8)
    return np.concatenate([taps.astype(np.int8), byte.astype(np.int8)[:, None], words], axis=1)


def plan(case: Case) -> Plan | None:
    """None where the family has no depthwise kernel for it."""
    data = case.inputs[1].data
    if data is None or data.shape[1:3] != (3, 3) or case.x.shape[3] % _GROUP:
        return None
    strides = {case.number("stride_h"), case.number("stride_w")}
    odd = {case.number("dilation_h"), case.number("dilation_w"), case.number("depth_multiplier")} != {1}
    if odd or len(strides) != 1 or not strides <= {1, 2}:
        return None
    if max(before(case.op, case.x.shape[1], 3, "h"), before(case.op, case.x.shape[2], 3, "w")) > 1:
        return None
    found = linear_range(case, data.astype(np.int8).reshape(9, -1).T)
    if found is None:
        return None
    folds: dict[int, Folded] = {}
    if case.y.zero_point == -128:
        folds = possible_folds(found.multipliers, found.shifts, found.lowest, found.highest, _GROUP)
    inexact = not folds or not all(folded.exact.all() for folded in folds.values())
    if inexact and found.shifts.max() > LARGEST_TWICE_SHIFT:
        return None
    return Plan(case, found.weights.astype(np.int64), found.bias, found.shifts, found.multipliers, folds)


def sum_of_record(word: int, records: Ints, channel: int, taps: Ints, bias: int) -> int | None:
    """The sum behind a register's value: taken off what the rounding added to the bias, then its factor.

    word: the register before the rounding, int32. records: [channels, CHANNEL_BYTES], signed, as in flash.
    taps: [9], the channel's weights; bias: with the input's zero point folded in. None where the record
    leaves weights out (a channel that never changes), or the word is no such sum.
    """
    record = records[channel]
    if records[channel - channel % _GROUP, 9] < 0:  # a plane in plain C: the factor alone
        left, constant = 0, 0
    elif not np.array_equal(record[:9], taps):
        return None
    else:
        left = int(record[9])
        field = int(record[10:14].astype(np.int8).view("<i4")[0])
        constant = field - (bias << (CARRIED_BITS + left))
    carried, rest = divmod(word - constant, 1 << (CARRIED_BITS + left))
    return None if rest else carried
