"""Random graphs with the blocks that classifiers are made of, and which kernels the C of a graph runs.

`mixed_graph` is random_graphs.py's net with steps that a kernel family takes: whole multiples of four
channels, the zero point that a ReLU leaves, residual sums, a mean and a dense layer. `kernels_of` counts
kernels by their names in the generated C, so that new ones count by themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from edgekd.mcu.codegen import GeneratedModel
from edgekd.qgraph.codebook import share_weights
from edgekd.qgraph.ir import QGraph
from tests.graphs import Builder, Rng
from tests.random_graphs import STEPS, Step, head, some_net

PACKED = 0.25  # of the graphs have their weights as indices into tables


def mixed_graph(rng: Rng) -> QGraph:
    """A net of 3 to 15 ops of all steps."""
    graph = some_net(rng, "mixed", (*STEPS, *BLOCKS, *BLOCKS), _head_or_classifier)
    if rng.random() >= PACKED:
        return graph
    return share_weights(graph, int(rng.choice([3, 4, 11, 16])), int(rng.integers(1, 4)))


def _low(b: Builder, x: int, share: float = 0.75) -> int:
    """Mostly with the zero point that a ReLU leaves: what a proved, short rounding needs."""
    if b.rng.random() < share:
        b.tensors[x] = replace(b.tensors[x], zero_point=-128)
    return x


def _whole(b: Builder, most: int = 4) -> int:
    """A number of channels that is a whole multiple of four."""
    return 4 * int(b.rng.integers(1, most + 1))


def _separable(b: Builder, x: int) -> int:
    """1x1, by channel 3x3 (now and then of another kind), 1x1: of whole multiples of four channels."""
    channels, stride = _whole(b), int(b.rng.integers(1, 3))
    padding = "SAME" if min(b.shape(x)[1:3]) < 3 or (b.rng.random() < 0.7) else "VALID"
    y = _low(b, b.conv(x, channels, (1, 1)))
    y = _low(b, b.depthwise(y, (3, 3), stride=(stride, stride), padding=padding), 0.85)
    return _low(b, b.conv(y, _whole(b), (1, 1)))


def _block(b: Builder, x: int) -> int:
    """A convolution of 3x3 or of a long filter, outputs even, as stems and residual nets have it."""
    kernel = ((3, 3), (3, 3), (5, 3), (3, 1))[int(b.rng.integers(0, 4))]
    stride = int(b.rng.integers(1, 3))
    if (b.rng.random() < 0.4) and b.shape(x)[3] != 16:
        x = _low(b, b.conv(x, 16, (1, 1)))
    return _low(b, b.conv(x, 2 * int(b.rng.integers(1, 7)), kernel, stride=(stride, stride)))


def _square(b: Builder, x: int) -> int:
    """3x3 with stride 1 over a whole multiple of four channels, outputs even: what Winograd's form takes."""
    x = _low(b, b.conv(x, _whole(b), (1, 1)))
    padding = "VALID" if min(b.shape(x)[1:3]) > 5 and (b.rng.random() < 0.3) else "SAME"
    return _low(b, b.conv(x, 2 * int(b.rng.integers(1, 9)), (3, 3), padding=padding))


def _residual(b: Builder, x: int) -> int:
    kind = "ADD" if (b.rng.random() < 0.7) else "SUB"
    x = y = _low(b, b.conv(x, _whole(b), (1, 1)))
    if b.rng.random() < 0.6:  # two convolutions behind each other: the sum may join the second one
        y = _low(b, b.conv(y, _whole(b), ((3, 3), (1, 1))[int(b.rng.integers(0, 2))]))
    return _low(b, b.binary(kind, x, _low(b, b.conv(y, b.shape(x)[3], (1, 1)))))


def _deep(b: Builder, x: int) -> int:
    """A sum over so many products that two rows may not share a multiply."""
    x = b.conv(x, 24, (1, 1))
    return b.conv(x, int(b.rng.integers(1, 8)), (5, 5), stride=(2, 2))


def _classifier(b: Builder, x: int) -> int:
    """A mean over the whole image and a dense layer of eight inputs or more."""
    x = _low(b, b.conv(x, 8 * int(b.rng.integers(1, 4)), (1, 1)))
    x = b.pool(x, "AVERAGE_POOL_2D", b.shape(x)[1:3], padding="VALID")
    return _low(b, b.dense(x, int(b.rng.integers(2, 13)), per_channel=bool(b.rng.random() < 0.5)), 0.5)


def _head_or_classifier(b: Builder, x: int) -> int:
    return _classifier(b, x) if b.rng.random() < 0.4 else head(b, x)


BLOCKS: tuple[Step, ...] = (
    *(_separable,) * 4,
    *(_block,) * 2,
    *(_square,) * 3,
    *(_residual,) * 2,
    _deep,
)


def kernels_of(model: GeneratedModel) -> Counter[str]:
    """How many layers run each kernel: those in C, each form of generated assembly, and its twin.

    A form is a leaf's name without what only counts (unrolled inputs, widths); one or two roundings differ.
    """
    source = model.files["model.c"]
    twins = dict(re.findall(r"^#define (k_\w+) (k_\w+)$", model.files.get("model_dsp.h", ""), re.MULTILINE))
    found = Counter(f"kernel k_gemm_s8 paired {flag}" for flag in re.findall(r"\.paired = (\d)", source))
    for body in source.split("\nvoid model_layer_")[1:]:
        names = set(re.findall(r"\b(k_\w+)\b", body.split("\n}\n")[0]))
        forms = {f"assembly {_form(name)}" for name in names if name in twins}
        used = {twins.get(name, name) for name in names}
        used |= {other for name in used for other in _included(model, name)}
        found.update(forms | {f"kernel {name}" for name in used if not name.endswith("_t")})
    return found


def _included(model: GeneratedModel, kernel: str) -> set[str]:
    """The other kernels that a kernel in C is made with."""
    text = "".join(model.files.get(f"{kernel}{end}", "") for end in (".c", ".h"))
    return {name for name in re.findall(r'#include "(k_\w+)\.h"', text) if f"{name}.c" in model.files}


def _form(leaf: str) -> str:
    """k_dsp_pairs_u48_s13 -> k_dsp_pairs, one rounding."""
    rounding = re.search(r"_s(\d+)$", leaf)
    name = re.sub(r"_c\d+[a-z0-9]*$", "", re.sub(r"_u\d+|_s\d+$", "", leaf))
    name = re.sub(r"_\d+x\d+s\d+$", "_straight", name)
    name = re.sub(r"(?<=[tw])\d+$", "", name)
    return name + (f", {'one rounding' if int(rounding[1]) else 'two roundings'}" if rounding else "")
