"""Random graphs that reach every operator, attribute and kernel variant, and what each graph reached.

`wide_graph` is a random net of 3 to 15 ops with odd channels, uneven strides and filters, both paddings,
dilations, shared tensors, broadcasts, constant operands, and what each pass over the graph looks for;
`reached` names its features, so that a soak can count how often each was hit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgekd.mcu.codegen import GeneratedModel
from edgekd.qgraph.ir import Op, QGraph
from tests.graphs import Builder, Rng

ACTIVATIONS = ("NONE", "RELU", "RELU6")
FEWEST, MOST = 3, 15  # ops of a graph
MOST_ELEMENTS = 4000  # of one tensor: larger ones are pooled before anything else


Step = Callable[[Builder, int], int]


def wide_graph(rng: Rng) -> QGraph:
    """A net of FEWEST to MOST ops; two inputs, two outputs and a classifier's head, each now and then."""
    return some_net(rng, "wide", STEPS, head)


def some_net(rng: Rng, name: str, steps: Sequence[Step], last: Step) -> QGraph:
    """A net of any of `steps`, mostly one behind the other, and mostly `last` at the end."""
    while True:
        graph = _net(Builder(rng, name), int(rng.integers(FEWEST, MOST)), steps, last)
        if FEWEST <= len(graph.ops) <= MOST:
            return graph


def _net(b: Builder, ops: int, steps: Sequence[Step], last: Step) -> QGraph:
    rng = b.rng
    size = rng.integers(3, 16, 2)
    images = [b.input((1, int(size[0]), int(size[1]), int(rng.integers(1, 8))))]
    if rng.random() < 0.2:
        images.append(b.input(b.shape(images[0])))
    while len(b.ops) < ops:
        source = images[-1] if rng.random() < 0.75 else images[int(rng.integers(0, len(images)))]
        images.append(shrunk(b, steps[int(rng.integers(0, len(steps)))](b, source)))
    outputs = [last(b, images[-1]) if rng.random() < 0.75 else images[-1]]
    spare = images[int(rng.integers(0, len(images)))]
    if rng.random() < 0.2 and spare != outputs[0] and spare not in b.inputs:
        outputs.append(spare)
    return b.graph(*outputs)


def shrunk(b: Builder, x: int) -> int:
    h, w, c = b.shape(x)[1:]
    if h * w * c <= MOST_ELEMENTS:
        return x
    if c > 48:
        return b.conv(x, 5, (1, 1))
    return b.pool(x, "MAX_POOL_2D", (min(2, h), min(2, w)), stride=(2, 2), padding="SAME")


def _flip(b: Builder, share: float = 0.5) -> bool:
    return bool(b.rng.random() < share)


def _pair(b: Builder) -> tuple[int, int]:
    """Steps along height and width: 1, equal, or any."""
    a, c = (int(n) for n in b.rng.integers(1, 4, 2))
    return ((1, 1), (a, a), (a, c))[int(b.rng.integers(0, 3))]


def _window(b: Builder, x: int, taps: int) -> dict:
    """A filter, stride and padding that fit the image: uneven ones included."""
    h, w = b.shape(x)[1:3]
    padding = "SAME" if _flip(b) else "VALID"
    most = (taps, taps) if padding == "SAME" else (min(taps, h), min(taps, w))
    kernel = (int(b.rng.integers(1, most[0] + 1)), int(b.rng.integers(1, most[1] + 1)))
    stride = _pair(b)
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "activation": str(b.rng.choice(ACTIVATIONS)),
    }


def _dilated(b: Builder, x: int, window: dict) -> dict:
    """The window with dilations now and then, where the image is large enough."""
    if _flip(b, 0.5):
        return window
    dilation = list(_pair(b))
    if window["padding"] == "VALID":
        room = [(n - 1) // max(k - 1, 1) for n, k in zip(b.shape(x)[1:3], window["kernel"], strict=True)]
        dilation = [max(1, min(d, r)) for d, r in zip(dilation, room, strict=True)]
    return window | {"dilation": tuple(dilation)}


def _conv(b: Builder, x: int) -> int:
    window = _dilated(b, x, _window(b, x, 4))
    return b.conv(x, int(b.rng.integers(1, 12)), bias=_flip(b, 0.8), per_channel=_flip(b, 0.7), **window)


def _pointwise(b: Builder, x: int) -> int:
    activation = str(b.rng.choice(ACTIVATIONS))
    return b.conv(x, int(b.rng.integers(1, 12)), (1, 1), per_channel=_flip(b), activation=activation)


def _depthwise(b: Builder, x: int) -> int:
    if _flip(b, 0.15):
        x = b.conv(x, 1, (1, 1))  # over one channel it is an ordinary convolution
    window = _dilated(b, x, _window(b, x, 4))
    multiplier = int(b.rng.integers(2, 4)) if _flip(b, 0.4) else 1
    options = {"bias": _flip(b, 0.8), "per_channel": _flip(b, 0.7), **window}
    return b.depthwise(x, multiplier=multiplier, **options)


def _pool(b: Builder, x: int) -> int:
    kind = str(b.rng.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    return b.pool(x, kind, **_window(b, x, 4))


def _binary(b: Builder, x: int) -> int:
    kind, activation = str(b.rng.choice(["ADD", "SUB", "MUL"])), str(b.rng.choice(ACTIVATIONS))
    form = int(b.rng.integers(0, 4))
    shape = b.shape(x)
    if form == 0:
        other = b.conv(x, shape[3], (1, 1))
    elif form == 1:
        other = b.op("MEAN", (x, _axes(b)), b.activation((1, 1, 1, shape[3])), keep_dims=True)
    elif form == 2:
        other = _operand(b, (shape[3],))
    else:
        other = _operand(b, (1, shape[1], 1, 1))
    pair = (other, x) if _flip(b, 0.3) else (x, other)
    return b.binary(kind, *pair, activation=activation)


def _operand(b: Builder, shape: tuple[int, ...]) -> int:
    data = b.rng.integers(-128, 128, shape).astype(np.int8)
    return b.constant(data, np.array([b.scale()], np.float32), int(b.rng.integers(-128, 128)))


def _axes(b: Builder) -> int:
    axes = [[1, 2], [2, 1], [-3, -2]][int(b.rng.integers(0, 3))]
    return b.constant(np.array(axes, np.int32))


def _pad(b: Builder, x: int) -> int:
    return b.pad(x, [[0, 0], *b.rng.integers(0, 3, (3, 2)).tolist()])


def _concatenate(b: Builder, x: int) -> int:
    axis = int(b.rng.choice([1, 2, 3, -1]))
    others = [b.pool(x, "MAX_POOL_2D", (2, 2), stride=(1, 1), padding="SAME"), x, b.unary("RELU6", x)]
    return b.concatenate([x, *others[: int(b.rng.integers(1, 4))]], axis)


def _unary(b: Builder, x: int) -> int:
    return b.unary(str(b.rng.choice(["LOGISTIC", "TANH", "RELU", "RELU6"])), x)


def _reshape(b: Builder, x: int) -> int:
    h, w, c = b.shape(x)[1:]
    return b.reshape(x, (1, w, h, c) if _flip(b) else (1, 1, h * w, c))


def _quantize(b: Builder, x: int) -> int:
    return b.quantize(b.quantize(x, "uint8")) if _flip(b) else b.quantize(x)


def _softmax(b: Builder, x: int) -> int:
    return b.softmax(x, float(b.rng.choice([1.0, 0.5, 2.0])))


# ---- what the passes look for (each also where it must not be changed) ----


def _padded(b: Builder, x: int) -> int:
    """PAD in front of a window that could pad for itself; of a pool too."""
    x = b.pad(x, [[0, 0], *b.rng.choice([0, 1, 1, 2], (2, 2)).tolist(), [0, 0]])
    h, w = b.shape(x)[1:3]
    window = _window(b, x, 3) | {"kernel": (min(3, h), min(3, w))}
    form = int(b.rng.integers(0, 3))
    if form == 0:
        return b.conv(x, 2 * int(b.rng.integers(1, 5)), **_dilated(b, x, window))
    if form == 1:
        return b.depthwise(x, **_dilated(b, x, window))
    return b.pool(x, "MAX_POOL_2D", **window)


def _chain(b: Builder, x: int) -> int:
    """Functions of one byte in a row."""
    for _ in range(int(b.rng.integers(2, 4))):
        form = int(b.rng.integers(0, 4))
        x = _unary(b, x) if form < 2 else _quantize(b, x) if form == 2 else _scalar(b, x)
    return x


def _scalar(b: Builder, x: int) -> int:
    """A sum or product with one number, or with itself."""
    kind, activation = str(b.rng.choice(["ADD", "SUB", "MUL"])), str(b.rng.choice(ACTIVATIONS))
    other = x if _flip(b, 0.3) else _operand(b, (1,) * int(b.rng.integers(0, 3)))
    return b.binary(kind, *((other, x) if _flip(b, 0.3) else (x, other)), activation=activation)


def _twice(b: Builder, x: int) -> int:
    """One op twice, with weights of its own each time, then both together."""
    y = _pointwise(b, x) if _flip(b) else _pool(b, x)
    op = b.ops[-1]
    copies = tuple(b.add(b.tensors[i]) if i != -1 and b.tensors[i].is_constant else i for i in op.inputs)
    z = b.op(op.kind, copies, b.add(b.tensors[y]), **op.attrs)
    if _flip(b, 0.4):
        return b.concatenate([y, z], int(b.rng.choice([3, -1])))
    return b.binary(str(b.rng.choice(["ADD", "SUB", "MUL"])), y, z, activation=str(b.rng.choice(ACTIVATIONS)))


def _stacked(b: Builder, x: int) -> int:
    """Blocks one after the other in memory: convolutions of four channels, joined by rows."""
    parts = [b.conv(x, 4, (1, 1))]
    shape, like = b.shape(parts[0]), b.tensors[parts[0]]
    for _ in range(int(b.rng.integers(1, 3))):
        weights = b.ops[-1].inputs[1:] if _flip(b, 0.3) else None
        part = b.conv(x, 4, (1, 1), activation=str(b.rng.choice(ACTIVATIONS)))
        b.tensors[part] = replace(like, name=b.tensors[part].name, shape=shape)
        if weights is not None:
            b.ops[-1] = replace(b.ops[-1], inputs=(x, *weights))
        parts.append(part)
    return b.concatenate(parts, int(b.rng.choice([1, 1, 1, 2])))


def _shifted(b: Builder, x: int) -> int:
    """QUANTIZE that moves the zero point alone, then perhaps a reader that subtracts it."""
    tensor = b.tensors[x]
    zero_point = int(np.clip(tensor.zero_point + b.rng.integers(-40, 41) * _flip(b, 0.7), -128, 127))
    x = b.quantize(x, scale=float(tensor.scale[0]), zero_point=zero_point)
    return b.conv(x, 4, (1, 1)) if _flip(b) else x


def _activated(b: Builder, x: int) -> int:
    """A clamp of its own behind an op that could clamp."""
    x = _conv(b, x) if _flip(b) else _binary(b, x)
    scale = float(b.tensors[x].scale[0])
    if _flip(b, 0.4):
        return b.unary("RELU6", x)
    return b.op("RELU", (x,), b.activation(b.shape(x), scale, b.tensors[x].zero_point))


def _still(b: Builder, x: int) -> int:
    """Channels that no input can change, then a reader."""
    x = b.conv(x, 8, (1, 1), activation=str(b.rng.choice(ACTIVATIONS)))
    bias = b.tensors[b.ops[-1].inputs[2]]
    far = b.rng.choice([0, -40_000_000, 40_000_000], bias.shape)
    b.tensors[b.ops[-1].inputs[2]] = replace(bias, data=(np.asarray(bias.data) + far).astype(np.int32))
    return b.conv(x, 6, (1, 1)) if _flip(b) else b.depthwise(x)


def _summed(b: Builder, x: int) -> int:
    """Sums of whole words, and now and then the mean of all pixels: what the DSP family runs."""
    shape = (1, *b.shape(x)[1:3], 4)
    parts = [b.conv(x, 4, (1, 1)) for _ in range(2)]
    scale = max(float(b.tensors[part].scale[0]) for part in parts)
    x = b.op(str(b.rng.choice(["ADD", "SUB"])), tuple(parts), b.activation(shape, scale), activation="NONE")
    return b.pool(x, "AVERAGE_POOL_2D", shape[1:3]) if _flip(b, 0.45) else x


def _constants(b: Builder, x: int) -> int:
    """An operand that ops make of constants."""
    other = _unary(b, _operand(b, (1, 1, 1, b.shape(x)[3])))
    return b.binary(str(b.rng.choice(["ADD", "SUB", "MUL"])), x, b.quantize(other) if _flip(b) else other)


def head(b: Builder, x: int) -> int:
    if _flip(b, 0.3):
        x = b.mean(x, keep_dims=_flip(b, 0.3))
    depth = b.shape(x)[-1] if _flip(b, 0.3) else None  # a FULLY_CONNECTED over several rows
    activation = str(b.rng.choice(ACTIVATIONS)) if _flip(b, 0.7) else "NONE"
    options = {"per_channel": _flip(b), "bias": _flip(b, 0.8), "activation": activation}
    y = b.dense(x, int(b.rng.integers(2, 12)), depth=depth, **options)
    return b.softmax(y) if _flip(b) else y


BASIC: tuple[Callable[[Builder, int], int], ...] = (
    _conv,
    _conv,
    _pointwise,
    _depthwise,
    _depthwise,
    _pool,
    _pool,
    _binary,
    _binary,
    _pad,
    _concatenate,
    _unary,
    _reshape,
    _quantize,
    _softmax,
)
FOR_PASSES: tuple[Callable[[Builder, int], int], ...] = (
    _padded,
    _padded,
    _chain,
    _twice,
    _twice,
    _stacked,
    _shifted,
    _activated,
    _constants,
    _still,
    _summed,
    _summed,
)
STEPS = (*BASIC, *BASIC, *FOR_PASSES)


# ---- what a graph reached ----

PASSES = {
    "dead ops": "unused op",
    "constant ops": "of constants alone",
    "repeated ops": "that repeat another: merged",
    "equal constants": "stored once",
    "padding": "folded into the windows",
    "activations": "part of the op in front",
    "requantizations": " removed: ",
    "tables": "of one byte: ",
    "channels": "channels are constant",
}


def reached(graph: QGraph, model_c: str) -> Counter[str]:
    """How often `graph` and its generated `model_c` use each op, attribute, form and kernel."""
    found = Counter(f"kernel {name}" for name in re.findall(r"^    (k_\w+)\(", model_c, re.MULTILINE))
    found.update(f"kernel k_gemm_s8 paired {flag}" for flag in re.findall(r"\.paired = (\d)", model_c))
    readers = [i for op in graph.ops for i in set(op.inputs) if i != -1 and not graph.tensors[i].is_constant]
    found["graph shared tensor"] += len(readers) - len(set(readers))
    found["graph two inputs"] += len(graph.inputs) > 1
    found["graph two outputs"] += len(graph.outputs) > 1
    for op in graph.ops:
        found.update(f"{op.kind}{feature}" for feature in _features(graph, op))
    return found


def dsp_kernels(model_c: str) -> Counter[str]:
    """How often the C of the DSP family calls each of its own kernels."""
    return Counter(
        f"kernel {name}" for name in re.findall(r"^    (k_dsp_\w+?)(?:_s\d+)?\(", model_c, re.MULTILINE)
    )


def passed(model: GeneratedModel) -> Counter[str]:
    """Which passes changed the graph, by what their reports say, and whether a join cost no copy."""
    found = Counter(f"pass {kind}" for kind, text in PASSES.items() if any(text in x for x in model.passes))
    joins = {i for i, op in enumerate(model.graph.ops) if op.kind == "CONCATENATION"}
    copies = model.files["model.c"].count("    k_copy_rows_8(")
    found["pass concatenation in place"] += copies < sum(len(model.graph.ops[i].inputs) for i in joins)
    return found


def _features(graph: QGraph, op: Op) -> set[str]:
    attrs, inputs = op.attrs, [graph.tensors[i] for i in op.inputs if i != -1]
    found = {"", *(f" {name} {attrs[name]}" for name in ("activation", "padding", "axis") if name in attrs)}
    found |= {f" keep_dims {attrs['keep_dims']}"} if "keep_dims" in attrs else set()
    if "stride_h" in attrs:
        found.add(f" stride {_pace(attrs['stride_h'], attrs['stride_w'])}")
    if "dilation_h" in attrs:
        found.add(f" dilation {_pace(attrs['dilation_h'], attrs['dilation_w'])}")
    if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        found.add(f" bias {len(inputs) > 2}")
        found.add(f" per channel {len(inputs[1].scale) > 1}")
    if op.kind == "DEPTHWISE_CONV_2D":
        found.add(" multiplier above 1" if int(attrs["depth_multiplier"]) > 1 else " multiplier 1")
    if op.kind in ("ADD", "SUB", "MUL"):
        found.add(" broadcast" if inputs[0].shape != inputs[1].shape else " same shapes")
        found |= {" constant operand"} if any(t.is_constant for t in inputs) else set()
    if op.kind == "QUANTIZE":
        found.add(f" {inputs[0].dtype} to {graph.tensors[op.outputs[0]].dtype}")
    return found


def _pace(a: object, b: object) -> str:
    return "1" if a == b == 1 else "equal" if a == b else "uneven"
