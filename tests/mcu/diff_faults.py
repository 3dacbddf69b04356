"""Small faults to plant in kernels, and nets in which each is found: for the tests of `diff`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgekd.mcu.codegen import GeneratedModel
from edgekd.qgraph.ir import QGraph
from tests.graphs import Builder


@dataclass(frozen=True)
class Fault:
    """Of a kernel's text: what it holds (the first such place, or all) and what stands there instead."""

    old: str
    new: str
    every: bool = True

    def in_text(self, text: str) -> str:
        assert self.old in text, f"no {self.old!r} there: plant another fault"
        return text.replace(self.old, self.new, -1 if self.every else 1)


CLAMPED = Fault("k_clamp(", "k_clamp(1 + ")

# Portable kernel -> a wrong sum, clamp, table, row or fill.
PORTABLE = {
    "k_add_s8": CLAMPED,
    "k_average_pool_2d_s8": CLAMPED,
    "k_conv_2d_s8": Fault("layer->in_zero_point", "(layer->in_zero_point + 1)"),
    "k_copy_rows_8": Fault("y_step, row_bytes)", "y_step, row_bytes - 1)"),
    "k_depthwise_conv_2d_s8": CLAMPED,
    "k_gemm_s8": CLAMPED,
    "k_max_pool_2d_s8": CLAMPED,
    "k_mean_s8": CLAMPED,
    "k_mul_s8": CLAMPED,
    "k_pad_8": Fault("layer->value", "(int8_t)(layer->value ^ 1)"),
    "k_softmax_s8": CLAMPED,
    "k_table_8": Fault("table[x[i]]", "table[x[i] ^ 1]"),
}
# The DSP family's kernels in C: drivers, and the twins of assembly leaves.
DSP = {
    "k_dsp_add_s8": Fault(">> layer->shift)", ">> (layer->shift - 1))"),
    "k_dsp_average_leaf_s8": Fault("x[channel]", "x[channel ^ 1]"),
    "k_dsp_average_s8": Fault("sum + count / 2", "sum + count"),
    "k_dsp_conv_s8": Fault(
        "k_fill(band, zero, layer->pitch_bytes)", "k_fill(band, (int8_t)(zero ^ 9), layer->pitch_bytes)"
    ),
    "k_dsp_copy_8": Fault("to, bytes)", "to, bytes - 1)"),
    "k_dsp_dense_s8": Fault(">> layer->shift)", ">> (layer->shift - 1))"),
    "k_dsp_depthwise_leaf_s8": Fault("(256 * value)", "(256 * value + 256)"),
    "k_dsp_depthwise_plain_s8": Fault("- layer->in_zero_point", "- layer->in_zero_point + 1"),
    "k_dsp_depthwise_s8": Fault("weights += 4", "weights += 0"),
    "k_dsp_pairs_s8": Fault("(int32_t)w[3])", "(int32_t)w[2])"),
    "k_dsp_pointwise_s8": Fault("x + in_step;", "x;"),
    "k_dsp_widen_s8": Fault("k_sxtb16(word >> 8)", "k_sxtb16(word)"),
}


_SHIFTED = "out_zero_point = (int16_t)(part{0}.out_zero_point + 1);"

# Kernels of packed weights: the net of tests/mcu/test_packed.py, the family, the fault.
PACKED = {
    "k_conv_2d_packed_s8": (
        "same",
        "portable",
        Fault("(int8_t *)scratch);", f"(int8_t *)scratch); part.gemm.{_SHIFTED.format('.gemm')}"),
    ),
    "k_gemm_packed_s8": (
        "pointwise",
        "portable",
        Fault("at, weights);", f"at, weights); part.{_SHIFTED.format('')}"),
    ),
    "k_unpack_s8": ("same", "portable", Fault("t1[indices[0] >> 4]", "t1[indices[0] & 15]")),
    "k_dsp_packed_s8": ("same", "dsp", Fault("above = 256 * b[j]", "above = 128 * b[j]")),
    "k_dsp_unpack2_s8": ("same-four", "dsp", Fault("*indices++]", "*indices++ ^ 1]")),
    "k_dsp_unpack4_s8": ("same", "dsp", Fault("indices[3]", "indices[2]")),
}
# Kernels of Winograd's convolution.
WINOGRAD = {
    "k_dsp_winograd_multiply_s8": Fault(">> layer->shift)", ">> (layer->shift - 1))"),
    "k_dsp_winograd_s8": Fault("k_pair(2 * ", "k_pair("),
    "k_dsp_winograd_strip_s8": Fault("k_ssub16(d[2], d[1])", "k_sadd16(d[2], d[1])"),
    "k_dsp_winograd_tiles_s8": Fault("k_sadd16(t[2], t[4])", "k_ssub16(t[2], t[4])"),
}
# The convolution with a sum behind each block: tests/mcu/test_residual.py.
RESIDUAL = {"k_dsp_residual_s8": Fault("y += layer->skip_bytes", "y += 0")}
# Layers by rows: tests/mcu/test_stream.py.
STREAM = {
    "k_stream": Fault("move(words, from, to, bytes);", "move(words, from, to, bytes - 4);"),
    "k_stream_add_s8": Fault("run.x, run.other", "run.other, run.x"),
    "k_stream_average_s8": Fault("kept[1] = sums[1];", "kept[1] = sums[0];"),
    "k_stream_conv_s8": Fault("part.pad_top = run.pad_top;", "part.pad_top = 0;"),
    "k_stream_depthwise_s8": Fault("part.pad_top = run.pad_top;", "part.pad_top = 0;"),
}
EVERY = (
    PORTABLE
    | DSP
    | WINOGRAD
    | RESIDUAL
    | STREAM
    | {kernel: fault for kernel, (_, _, fault) in PACKED.items()}
)
CALLED_BY = {"k_gemm_s8": ("k_conv_2d_s8",), "k_unpack_s8": ("k_conv_2d_packed_s8", "k_gemm_packed_s8")}
NO_KERNELS = {"k_weights"}  # the checksum of the weights


@dataclass(frozen=True)
class AssemblyFault:
    """One instruction of a generated leaf.

    net: of tests/mcu/test_dsp.py, or of the test that `of` names; leaf: its name's pattern; old: the
    instruction's, the first in it; at: where a difference may be, from (position, width of the layer's
    output); sums: "same" where only the rounding is wrong, "other" where the sum is, "none" where there is
    no sum.
    """

    net: str
    leaf: str
    old: str
    new: Callable[[re.Match[str]], str]
    layer: str
    at: Callable[[tuple[int, ...], int], bool]
    sums: str
    of: str = "dsp"


def _less(found: re.Match[str]) -> str:
    """A shift by one bit less."""
    return f"{found[1]}{int(found[2]) - 1}"


def _pixel(position: tuple[int, ...], width: int) -> int:
    return position[0] * width + position[1]


ASSEMBLY = {
    "pairs": AssemblyFault(
        net="same",
        leaf=r"k_dsp_pairs_u\d+_s[1-9]\d*",
        old=r"(ssat r10, #8, r10, asr #)(\d+)",
        new=_less,
        layer="CONV_2D",
        at=lambda p, w: _pixel(p, w) % 3 == 1 and p[2] % 2 == 1,
        sums="same",
    ),
    "pairs, two roundings": AssemblyFault(
        net="many-columns",
        leaf=r"k_dsp_pairs_u\d+_s0",
        old=r"smlad r9, r0, r3, r9",
        new=lambda found: "smlad r9, r0, r4, r9",
        layer="CONV_2D",
        at=lambda p, w: p[2] % 2 == 1,  # of pixel 0, and of one in the last block, which begins earlier
        sums="other",
    ),
    "pairs to planes": AssemblyFault(
        net="separable",
        leaf=r"k_dsp_pairs_planes_u\d+_s[1-9]\d*",
        old=r"(ssat r8, #8, r8, asr #)(\d+)",
        new=_less,
        layer="CONV_2D",
        at=lambda p, w: _pixel(p, w) % 3 == 2 and p[2] % 2 == 0,
        sums="same",
    ),
    "widen": AssemblyFault(
        net="same",
        leaf=r"k_dsp_widen_\w+",
        old=r"sxtb16 r7, r7, ror #8",
        new=lambda found: "sxtb16 r7, r7",
        layer="CONV_2D",
        at=lambda p, w: _pixel(p, w) % 3 == 1,
        sums="other",
    ),
    "dense": AssemblyFault(
        net="dense",
        leaf=r"k_dsp_dense_u\d+_s[1-9]\d*",
        old=r"(ssat r9, #8, r9, asr #)(\d+)",
        new=_less,
        layer="FULLY_CONNECTED",
        at=lambda p, w: p[0] % 4 == 1,
        sums="same",
    ),
    "depthwise": AssemblyFault(
        net="separable",
        leaf=r"k_dsp_depthwise_\w+",
        old=r"(ssat r8, #8, r8, asr #)(\d+)",
        new=_less,
        layer="DEPTHWISE_CONV_2D",
        at=lambda p, w: p[0] % 4 == 0 and p[1] % 3 == 1,
        sums="same",
    ),
    "average": AssemblyFault(
        net="pooled-signed",
        leaf=r"k_dsp_average_4",
        old=r"sxtb16 r7, r7, ror #8",
        new=lambda found: "sxtb16 r7, r7",
        layer="AVERAGE_POOL_2D",
        at=lambda p, w: p[2] % 2 == 1,
        sums="none",
    ),
    "copy": AssemblyFault(
        net="same",
        leaf=r"k_dsp_copy_fast",
        old=r"add r2, r2, #32",
        new=lambda found: "add r2, r2, #31",
        layer="CONV_2D",
        at=lambda p, w: p[1] >= w - 2,  # the last byte of a row
        sums="other",
    ),
    "unpack, four bits": AssemblyFault(
        net="same",
        leaf="k_dsp_unpack4",
        old=r"orr r7, r9, r11, lsl #16",
        new=lambda found: "orr r7, r9, r10, lsl #16",
        layer="CONV_2D",
        at=lambda p, w: True,
        sums="other",
        of="packed",
    ),
    "unpack, two bits": AssemblyFault(
        net="same-four",
        leaf="k_dsp_unpack2",
        old=r"ldrb\.w r7, \[r0, #3\]",
        new=lambda found: "ldrb.w r7, [r0, #2]",
        layer="CONV_2D",
        at=lambda p, w: True,
        sums="other",
        of="packed",
    ),
    "winograd, multiply": AssemblyFault(
        net="square",
        leaf=r"k_dsp_winograd_multiply_\w+",
        old=r"smlad r9, r2, r4, r8",
        new=lambda found: "smlad r9, r0, r4, r8",
        layer="CONV_2D",
        at=lambda p, w: True,
        sums="none",
        of="winograd",
    ),
    "winograd, strip": AssemblyFault(
        net="square",
        leaf=r"k_dsp_winograd_strip_\w+",
        old=r"ssub16 r10, r10, r9",
        new=lambda found: "sadd16 r10, r10, r9",
        layer="CONV_2D",
        at=lambda p, w: True,
        sums="none",
        of="winograd",
    ),
    "winograd, tiles": AssemblyFault(
        net="square",
        leaf=r"k_dsp_winograd_tiles_\w+",
        old=r"ssub16 r11, r9, r7",
        new=lambda found: "sadd16 r11, r9, r7",
        layer="CONV_2D",
        at=lambda p, w: True,
        sums="none",
        of="winograd",
    ),
    "add": AssemblyFault(
        net="sum",
        leaf=r"k_dsp_add_s\d+",
        old=r"smlawt r11, r4",
        new=lambda found: "smlawb r11, r4",
        layer="ADD",
        at=lambda p, w: p[2] % 4 == 2,
        sums="none",
    ),
}


def plant(model: GeneratedModel, fault: AssemblyFault) -> GeneratedModel:
    """The model with the fault in every leaf of that name."""
    parts = re.split(r"(?=\n    \.section )", model.files["model_dsp.S"])
    hit = [i for i, part in enumerate(parts) if re.search(rf"\n{fault.leaf}:", part)]
    assert hit, f"no leaf {fault.leaf} in this model"
    for i in hit:
        parts[i], count = re.subn(fault.old, fault.new, parts[i], count=1)
        assert count == 1, f"no {fault.old} in {fault.leaf}: plant another fault"
    return replaced(model, "model_dsp.S", "".join(parts))


def every_kernel() -> QGraph:
    """One graph that uses every portable kernel, CONV_2D late enough to tell it from 1x1."""
    b = Builder(np.random.default_rng(2), "every")
    x = b.input((1, 8, 8, 3))
    y = b.depthwise(x, activation="RELU")
    y = b.conv(b.conv(y, 8, stride=(2, 2)), 8, (1, 1))
    y = b.binary("MUL", b.binary("SUB", y, b.conv(y, 8, (1, 1))), b.unary("LOGISTIC", y))
    y = b.concatenate([y, b.pool(y, "MAX_POOL_2D", (3, 3), stride=(1, 1), padding="SAME")])
    y = b.pool(b.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    return b.graph(b.softmax(b.dense(b.mean(y), 5)))


def every_dsp_kernel() -> QGraph:
    """One graph that uses every kernel of the DSP family in C; its second depthwise layer is plain C."""
    b = Builder(np.random.default_rng(2), "every-dsp")

    def low(x: int) -> int:
        """With the zero point that allows the short rounding."""
        b.tensors[x] = replace(b.tensors[x], zero_point=-128)
        return x

    y = low(b.conv(b.input((1, 8, 8, 8)), 16))
    y = low(b.conv(low(b.depthwise(y)), 16, (1, 1)))
    y = low(b.conv(b.depthwise(y, stride=(2, 2)), 16, (1, 1)))
    y = b.binary("ADD", y, low(b.conv(y, 16, (1, 1))))
    return b.graph(low(b.dense(b.pool(y, kernel=(4, 4)), 8)))


def replaced(model: GeneratedModel, file: str, text: str) -> GeneratedModel:
    """The model with another text of one of its files."""
    return replace(model, files=model.files | {file: text})


def faulty(model: GeneratedModel, kernel: str) -> GeneratedModel:
    """The model with the fault of a kernel in C."""
    file = f"{kernel}.c"
    return replaced(model, file, EVERY[kernel].in_text(model.files[file]))


def first_user(model: GeneratedModel, kernel: str) -> str:
    """The first layer whose function names the kernel, a leaf whose twin it is, or a kernel that calls it."""
    twins = re.findall(rf"#define (\w+) {kernel}$", model.files.get("model_dsp.h", ""), re.MULTILINE)
    names = [kernel, *twins, *CALLED_BY.get(kernel, ())]
    bodies = model.files["model.c"].split("\nvoid model_layer_")[1:]
    found = next(body for body in bodies if re.search(rf"\b({'|'.join(names)})\b", body))
    return f"model_layer_{found.split('(')[0]}"
