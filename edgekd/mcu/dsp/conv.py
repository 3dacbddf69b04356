"""CONV_2D for the DSP family: which windows, which band, which leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekd.mcu.candidate import Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import copy, packed, pairs, widen
from edgekd.mcu.dsp.assembly import Kernel
from edgekd.mcu.dsp.linear import Linear, linear_range
from edgekd.mcu.dsp.rounding import LARGEST_TWICE_SHIFT, Proved, possible_shifts
from edgekd.mcu.dsp.widen import Window
from edgekd.mcu.plan import room_bytes
from edgekd.qgraph.reference.values import before

DRIVER = "k_dsp_conv_s8"
POINTWISE = "k_dsp_pointwise_s8"
BLOCK_PIXELS = 3
DRIVER_INSTRUCTIONS = 60  # of the driver a block, about
BAND_ROWS = 4  # output rows that a band serves: more rows, fewer copies, more scratch


@dataclass(frozen=True)
class Shape:
    """Windows and band of one convolution, in bytes and rows."""

    window: Window
    pixels: int
    step_bytes: int
    row_step_bytes: int
    band_rows: int  # output rows; 0: none
    pitch_bytes: int
    band_bytes: int


def shape(case: Case, rows: int, columns: int) -> Shape:
    """Geometry of a filter of rows x columns."""
    _, in_h, in_w, channels = case.x.shape
    _, out_h, out_w, _ = case.y.shape
    stride_h, stride_w = case.number("stride_h"), case.number("stride_w")
    top, left = before(case.op, in_h, rows, "h"), before(case.op, in_w, columns, "w")
    padded_w = (out_w - 1) * stride_w + columns
    padded_h = (out_h - 1) * stride_h + rows
    inside = top == left == 0 and padded_w <= in_w and padded_h <= in_h
    pitch = (in_w if inside else max(padded_w, left + in_w)) * channels
    band = 0 if inside else min(out_h, BAND_ROWS)
    return Shape(
        window=_window(rows, columns * channels, pitch),
        pixels=out_h * out_w,
        step_bytes=stride_w * channels,
        row_step_bytes=stride_h * pitch,
        band_rows=band,
        pitch_bytes=pitch,
        band_bytes=((band - 1) * stride_h + rows) * pitch if band else 0,
    )


def _window(rows: int, row_bytes: int, pitch: int) -> Window:
    """One long row where the rows of a window follow each other without a gap."""
    return (
        Window(1, rows * row_bytes, rows * row_bytes)
        if rows == 1 or row_bytes == pitch
        else Window(rows, row_bytes, pitch)
    )


def plane_shape(case: Case) -> Shape:
    """A 1x1 filter over planes of four channels: a word of each plane is a row of the window."""
    _, height, width, channels = case.x.shape
    window = Window(channels // 4, 4, 4 * height * width)
    return Shape(window, height * width, 4, 4 * width, 0, 0, 0)


@dataclass(frozen=True)
class Plan:
    """A convolution that the family can run; `emission` writes it for one rounding and one unrolling."""

    case: Case
    linear: Linear
    proofs: dict[int, Proved]
    filter_shape: tuple[int, int]

    @property
    def pointwise(self) -> bool:
        """A 1x1 filter with stride 1: pixels follow each other."""
        strides = self.case.number("stride_h"), self.case.number("stride_w")
        return (*self.filter_shape, *strides) == (1, 1, 1, 1)

    @property
    def reads_planes(self) -> bool:
        """Whether the input may be in planes of four channels."""
        return self.pointwise and self.case.x.shape[3] % 4 == 0

    @property
    def outputs(self) -> int:
        return len(self.linear.weights)

    def instructions(self, unrolled: int, proved: bool) -> int:
        where = shape(self.case, *self.filter_shape)
        blocks = -(-where.pixels // BLOCK_PIXELS)
        once = pairs.instructions(where.window.depth, self.outputs, unrolled, proved)
        return blocks * (once + widen.instructions(where.window) + DRIVER_INSTRUCTIONS)

    def takes(self, layout: Layout) -> bool:
        return self.reads_planes or not layout.planes_in

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        """Of weights stored as indices only the packed forms: whoever stored them so wants the flash."""
        where = plane_shape(self.case) if layout.planes_in else shape(self.case, *self.filter_shape)
        words = self._words(where.window, shift, layout.planes_out)
        for unrolled in pairs.UNROLLED_INPUTS:
            plain = self._emission(shift, unrolled, layout, where, words)
            chunk = self._chunk(where, shift, unrolled, layout.planes_out)
            if chunk:
                name = f"packed pairs u{unrolled}, {chunk} channels"
                yield Candidate(name, self._packed(plain, where, shift, layout.planes_out, chunk))
            else:
                yield Candidate(f"pairs u{unrolled}", plain)

    def _emission(
        self, shift: int, unrolled: int, layout: Layout, where: Shape, words: npt.NDArray[np.int32]
    ) -> Emission:
        planes_out = layout.planes_out
        multiply = pairs.kernel(shift, unrolled, planes_out)
        gather = widen.kernel(where.window, layout.planes_in)
        row = self._row_gather(where) or gather
        depth = where.window.depth
        weights = self.case.array("filter", words)
        matrix: dict[str, Value] = {
            "weights": f"(const uint32_t *){weights.name}",
            "depth": depth,
            "outputs": self.outputs,
            "skip_bytes": pairs.skip_bytes(depth, unrolled),
            "zero": 2 * self.case.y.zero_point + 1,
            "step_bytes": 4 * where.pixels if planes_out else self.outputs,
            "shift": shift,
            "planes": int(planes_out),
        }
        leaves: dict[str, Value] = {
            "multiply": multiply.name,
            "gather": gather.name,
            "gather_row": row.name,
        }
        fields = {"pairs": matrix, **leaves, **self._fields(where)}
        return Emission(
            calls=(Call(self.driver, ("&layer", self.case.source(), SCRATCH, self.case.target())),),
            struct=(f"{DRIVER}_t", fields),
            weights=(weights,),
            macs=where.pixels * self.linear.weights.size,
            scratch_bytes=2 * depth * BLOCK_PIXELS + where.band_bytes,
            assembly=(multiply, gather, row, *([copy.kernel()] if where.band_rows else [])),
        )

    @property
    def driver(self) -> str:
        return POINTWISE if self.pointwise else DRIVER

    def _chunk(self, where: Shape, shift: int, unrolled: int, planes: bool) -> int:
        """Channels to unpack together; 0 where weights are not stored as indices, or that saves nothing."""
        encoding, depth = self.case.inputs[1].encoding, where.window.depth
        if encoding is None or encoding.stored_bytes(self.outputs * depth) >= self.outputs * depth:
            return 0
        if (encoding.indices(self._rows(where.window)) < 0).any():
            return 0  # inputs that are missing in the last four need a zero
        channels, blocks = self.case.x.shape[3], -(-where.pixels // BLOCK_PIXELS)
        shares = self._row_gather(where) is not None
        gather = (
            widen.shared_instructions(where.window, channels) if shares else widen.instructions(where.window)
        )
        again = blocks * (gather + DRIVER_INSTRUCTIONS) / self.instructions(unrolled, shift > 0)
        most = packed.most_chunks(again)
        room = room_bytes(self.case.graph)[self.case.index] - 4 * self._free_words(where)
        return packed.chunk_of(
            self.outputs, 4 if planes else 2, pairs.pair_bytes(depth, shift > 0), room, most
        )

    def _free_words(self, where: Shape) -> int:
        """Words of scratch that the plain driver, and before it the table of what a byte stands for, need."""
        return max(packed.TABLE_WORDS, -(-(2 * where.window.depth * BLOCK_PIXELS + where.band_bytes) // 4))

    def _packed(self, plain: Emission, where: Shape, shift: int, planes: bool, chunk: int) -> Emission:
        """The same layer with its weights as indices, `chunk` channels unpacked at a time."""
        case, linear, encoding = self.case, self.linear, self.case.inputs[1].encoding
        assert encoding is not None and plain.struct is not None
        fields = plain.struct[1]
        parts = [
            at + pairs.channel_order(min(chunk, self.outputs - at), planes)
            for at in range(0, self.outputs, chunk)
        ]
        order = np.concatenate(parts)
        stream = packed.index_bytes(encoding.indices(self._rows(where.window))[order], encoding.stored_bits)
        proved = self.proofs[shift].ordered(order) if shift else None
        sides = pairs.sides(linear.bias[order], proved, linear.multipliers[order], linear.shifts[order])
        arrays = [
            case.array("filter", stream),
            case.array("sides", pairs.as_words(np.concatenate(sides, axis=1))),
            case.array("table", encoding.whole_tables),
        ]
        if len(encoding.tables) > 1:
            arrays.append(case.array("group", encoding.channel_tables[order]))
        unpack = packed.kernel(encoding.stored_bits)
        matrix = {**_mapping(fields["pairs"]), "weights": "0", "outputs": chunk}
        return replace(
            plain,
            calls=(replace(plain.calls[0], kernel=packed.DRIVER),),
            struct=(
                f"{packed.DRIVER}_t",
                {
                    "conv": {**fields, "pairs": matrix},
                    "run": self.driver,
                    "unpack": unpack.name,
                    "indices": arrays[0].name,
                    "sides": f"(const uint32_t *){arrays[1].name}",
                    "tables": arrays[2].name,
                    "channel_tables": arrays[3].name if len(arrays) > 3 else "0",
                    "outputs": self.outputs,
                    "chunk": chunk,
                    "bits": encoding.stored_bits,
                    "free_words": self._free_words(where),
                },
            ),
            weights=tuple(arrays),
            scratch_bytes=4 * self._free_words(where)
            + -(-chunk // 2) * pairs.pair_bytes(where.window.depth, shift > 0),
            assembly=(*plain.assembly, unpack),
            helpers=(self.driver,),
        )

    def _row_gather(self, where: Shape) -> Kernel | None:
        """The leaf for blocks that lie in one row, where there is a better one."""
        channels = self.case.x.shape[3]
        neighbours = where.step_bytes == channels and self.case.y.shape[2] >= BLOCK_PIXELS
        return widen.shared(where.window, channels) if neighbours and self.filter_shape[1] == 3 else None

    def _words(self, window: Window, shift: int, planes: bool) -> npt.NDArray[np.int32]:
        order = pairs.channel_order(self.outputs, planes)
        linear, weights = self.linear, self._rows(window)
        proved = self.proofs[shift].ordered(order) if shift else None
        return pairs.packed(
            weights[order], linear.bias[order], proved, linear.multipliers[order], linear.shifts[order]
        )

    def _rows(self, window: Window) -> npt.NDArray[np.int8]:
        """[outputs, depth] in the order of the block's inputs, 0 for those that are missing."""
        inputs = np.array(window.order())
        return np.where(inputs >= 0, self.linear.weights[:, np.maximum(inputs, 0)], 0).astype(np.int8)

    def _fields(self, where: Shape) -> dict[str, Value]:
        case, window = self.case, where.window
        widened: dict[str, Value] = {
            "words": window.words,
            "rows": window.rows,
            "step_bytes": window.step_bytes,
            "leftover": window.leftover,
        }
        return {
            "widen": widened,
            "block_words": window.depth * BLOCK_PIXELS // 2,
            "pixels": where.pixels,
            "out_h": case.y.shape[1],
            "out_w": case.y.shape[2],
            "step_bytes": where.step_bytes,
            "row_step_bytes": where.row_step_bytes,
            "band_rows": where.band_rows,
            **(self._band(where) if where.band_rows else {}),
        }

    def _band(self, where: Shape) -> dict[str, Value]:
        case, (rows, columns) = self.case, self.filter_shape
        _, in_h, in_w, channels = case.x.shape
        return {
            "copy": copy.kernel().name,
            "in_h": in_h,
            "in_row_bytes": in_w * channels,
            "pitch_bytes": where.pitch_bytes,
            "pad_top": before(case.op, in_h, rows, "h"),
            "pad_left_bytes": before(case.op, in_w, columns, "w") * channels,
            "filter_h": rows,
            "stride_h": case.number("stride_h"),
            "in_zero_point": case.x.zero_point,
        }


def _mapping(value: Value) -> Mapping[str, Value]:
    assert isinstance(value, Mapping)
    return value


def plan(case: Case) -> Plan | None:
    """None where another kernel must run."""
    data = case.inputs[1].data
    if data is None or {case.number("dilation_h"), case.number("dilation_w")} != {1}:
        return None
    weights = data.astype(np.int8)
    outputs, rows, columns, _ = weights.shape
    where = shape(case, rows, columns)
    if outputs % 2 or where.pixels < BLOCK_PIXELS or not where.window.fits:
        return None
    linear = linear_range(case, weights)
    if linear is None:
        return None
    proofs: dict[int, Proved] = {}
    if case.y.zero_point == -128:
        proofs = possible_shifts(linear.multipliers, linear.shifts, linear.lowest, linear.highest)
    if not proofs and linear.shifts.max() > LARGEST_TWICE_SHIFT:
        return None
    return Plan(case, linear, proofs, (rows, columns))
