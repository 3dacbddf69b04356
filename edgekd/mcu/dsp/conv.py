"""CONV_2D for the DSP family: which windows, which band, which leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.mcu.candidate import Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import copy, pairs, widen
from edgekd.mcu.dsp.assembly import Kernel
from edgekd.mcu.dsp.linear import Linear, linear_range
from edgekd.mcu.dsp.rounding import LARGEST_TWICE_SHIFT, Proved, possible_shifts
from edgekd.mcu.dsp.widen import Window
from edgekd.qgraph.reference.values import before

DRIVER = "k_dsp_conv_s8"
POINTWISE = "k_dsp_pointwise_s8"
BLOCK_PIXELS = 3
BAND_ROWS = 4  # output rows that a band serves: more rows, fewer copies, more scratch
DRIVER_INSTRUCTIONS = 60  # of the driver a block, about


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
        where = plane_shape(self.case) if layout.planes_in else shape(self.case, *self.filter_shape)
        words = self._words(where.window, shift, layout.planes_out)
        for unrolled in pairs.UNROLLED_INPUTS:
            yield Candidate(f"pairs u{unrolled}", self._emission(shift, unrolled, layout, where, words))

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
            "plane_bytes": 4 * where.pixels if planes_out else 0,
            "shift": shift,
        }
        leaves: dict[str, Value] = {
            "multiply": multiply.name,
            "gather": gather.name,
            "gather_row": row.name,
        }
        fields = {"pairs": matrix, **leaves, **self._fields(where)}
        return Emission(
            calls=(
                Call(
                    POINTWISE if self.pointwise else DRIVER,
                    ("&layer", self.case.source(), SCRATCH, self.case.target()),
                ),
            ),
            struct=(f"{DRIVER}_t", fields),
            weights=(weights,),
            macs=where.pixels * self.linear.weights.size,
            scratch_bytes=2 * depth * BLOCK_PIXELS + where.band_bytes,
            assembly=(multiply, gather, row, *([copy.kernel()] if where.band_rows else [])),
        )

    def _row_gather(self, where: Shape) -> Kernel | None:
        """The leaf for blocks that lie in one row, where there is a better one."""
        channels = self.case.x.shape[3]
        neighbours = where.step_bytes == channels and self.case.y.shape[2] >= BLOCK_PIXELS
        return widen.shared(where.window, channels) if neighbours and self.filter_shape[1] == 3 else None

    def _words(self, window: Window, shift: int, planes: bool) -> npt.NDArray[np.int32]:
        inputs = np.array(window.order())
        order = pairs.channel_order(self.outputs, planes)
        linear = self.linear
        weights = np.where(inputs >= 0, linear.weights[:, np.maximum(inputs, 0)], 0).astype(np.int8)
        proved = self.proofs[shift].ordered(order) if shift else None
        return pairs.packed(
            weights[order], linear.bias[order], proved, linear.multipliers[order], linear.shifts[order]
        )

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
