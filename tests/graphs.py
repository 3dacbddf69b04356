"""Small QGraphs and inputs for tests: one op at a time, or a random chain of them.

`Builder` adds tensors and ops; the functions below it make whole graphs, all of which validate.
Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.qgraph.ir import Op, QGraph, Tensor
from edgekd.qgraph.ops import same_padding
from edgekd.qgraph.validate import validate

Rng = np.random.Generator
Array = npt.NDArray[Any]


class Builder:
    """A QGraph in the making: each method adds an op and returns its output's index."""

    def __init__(self, rng: Rng, name: str = "test") -> None:
        self.rng = rng
        self.name = name
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.inputs: list[int] = []

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def scale(self, low: float = 0.005, high: float = 0.1) -> float:
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def activation(
        self,
        shape: tuple[int, ...],
        scale: float | None = None,
        zero_point: int | None = None,
        dtype: str = "int8",
    ) -> int:
        """A tensor that an op will write; scale and zero point are random where not given."""
        scale = self.scale() if scale is None else scale
        zero_point = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        scales = np.zeros(0, np.float32) if dtype == "float32" else np.array([scale], np.float32)
        name = f"t{len(self.tensors)}"
        return self.add(Tensor(name, shape, dtype, scales, 0 if dtype == "float32" else zero_point))

    def input(self, shape: tuple[int, ...], **options: Any) -> int:
        index = self.activation(shape, **options)
        self.inputs.append(index)
        return index

    def constant(self, data: Array, scale: Array | None = None, zero_point: int = 0, axis: int = 0) -> int:
        scales = np.zeros(0, np.float32) if scale is None else np.asarray(scale, np.float32)
        name = f"c{len(self.tensors)}"
        return self.add(Tensor(name, data.shape, str(data.dtype), scales, zero_point, axis, data))

    def like(self, index: int, shape: tuple[int, ...]) -> int:
        """An activation with the same scale and zero point."""
        tensor = self.tensors[index]
        return self.activation(shape, float(tensor.scale[0]), tensor.zero_point)

    def op(self, kind: str, inputs: tuple[int, ...], output: int, **attrs: Any) -> int:
        self.ops.append(Op(kind, inputs, (output,), attrs))
        return output

    def shape(self, index: int) -> tuple[int, ...]:
        return self.tensors[index].shape

    def graph(self, *outputs: int) -> QGraph:
        graph = QGraph(self.name, tuple(self.tensors), tuple(self.ops), tuple(self.inputs), outputs)
        validate(graph)
        return graph

    # ---- ops ----

    def _weights(self, shape: tuple[int, ...], axis: int, per_channel: bool) -> int:
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        count = shape[axis] if per_channel else 1
        scale = np.exp(self.rng.uniform(np.log(0.001), np.log(0.02), count)).astype(np.float32)
        return self.constant(data, scale, axis=axis if count > 1 else 0)

    def _bias(self, x: int, weights: int, channels: int) -> int:
        scale = self.tensors[x].scale[0] * self.tensors[weights].scale
        return self.constant(self.rng.integers(-4000, 4001, channels).astype(np.int32), scale)

    def _linear_output(self, shape: tuple[int, ...], x: int, weights: int, depth: int) -> int:
        """An output whose scale makes about a third of random results saturate or clamp."""
        step = float(self.tensors[x].scale[0]) * float(np.median(self.tensors[weights].scale))
        return self.activation(shape, step * 70 * 70 * depth**0.5 / 100)

    def conv(
        self,
        x: int,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "SAME",
        activation: str = "NONE",
        per_channel: bool = True,
        bias: bool = True,
    ) -> int:
        depth = self.shape(x)[3]
        weights = self._weights((channels, *kernel, depth), 0, per_channel)
        offset = self._bias(x, weights, channels) if bias else -1
        shape = (1, *self._window(x, kernel, stride, dilation, padding), channels)
        output = self._linear_output(shape, x, weights, kernel[0] * kernel[1] * depth)
        attrs = _window_attrs(stride, padding, activation) | _dilation_attrs(dilation)
        return self.op("CONV_2D", (x, weights, offset), output, **attrs)

    def depthwise(
        self,
        x: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        multiplier: int = 1,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "SAME",
        activation: str = "NONE",
        per_channel: bool = True,
        bias: bool = True,
    ) -> int:
        channels = self.shape(x)[3] * multiplier
        weights = self._weights((1, *kernel, channels), 3, per_channel)
        offset = self._bias(x, weights, channels) if bias else -1
        shape = (1, *self._window(x, kernel, stride, dilation, padding), channels)
        output = self._linear_output(shape, x, weights, kernel[0] * kernel[1])
        attrs = _window_attrs(stride, padding, activation) | _dilation_attrs(dilation)
        return self.op(
            "DEPTHWISE_CONV_2D", (x, weights, offset), output, depth_multiplier=multiplier, **attrs
        )

    def dense(
        self,
        x: int,
        channels: int,
        *,
        activation: str = "NONE",
        per_channel: bool = False,
        bias: bool = True,
        depth: int | None = None,
    ) -> int:
        depth = self.tensors[x].elements if depth is None else depth
        weights = self._weights((channels, depth), 0, per_channel)
        offset = self._bias(x, weights, channels) if bias else -1
        rows = self.tensors[x].elements // depth
        shape = (1, channels) if rows == 1 else (*self.shape(x)[:-1], channels)
        output = self._linear_output(shape, x, weights, depth)
        return self.op("FULLY_CONNECTED", (x, weights, offset), output, activation=activation)

    def pool(
        self,
        x: int,
        kind: str = "AVERAGE_POOL_2D",
        kernel: tuple[int, int] = (2, 2),
        *,
        stride: tuple[int, int] = (2, 2),
        padding: str = "VALID",
        activation: str = "NONE",
    ) -> int:
        size = self._window(x, kernel, stride, (1, 1), padding)
        attrs = _window_attrs(stride, padding, activation)
        output = self.like(x, (1, *size, self.shape(x)[3]))
        return self.op(kind, (x,), output, filter_h=kernel[0], filter_w=kernel[1], **attrs)

    def mean(self, x: int, *, keep_dims: bool = False) -> int:
        axes = self.constant(np.array([1, 2], np.int32))
        channels = self.shape(x)[3]
        output = self.activation((1, 1, 1, channels) if keep_dims else (1, channels))
        return self.op("MEAN", (x, axes), output, keep_dims=keep_dims)

    def binary(self, kind: str, a: int, b: int, *, activation: str = "NONE") -> int:
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        scales = [float(self.tensors[i].scale[0]) for i in (a, b)]
        widest = scales[0] * scales[1] * 128 if kind == "MUL" else max(scales)
        output = self.activation(shape, widest * float(self.rng.uniform(0.7, 2)))
        return self.op(kind, (a, b), output, activation=activation)

    def pad(self, x: int, widths: list[list[int]]) -> int:
        shape = tuple(n + sum(w) for n, w in zip(self.shape(x), widths, strict=True))
        return self.op("PAD", (x, self.constant(np.array(widths, np.int32))), self.like(x, shape))

    def concatenate(self, xs: list[int], axis: int = 3) -> int:
        shape = list(self.shape(xs[0]))
        shape[axis] = sum(self.shape(x)[axis] for x in xs)
        output = self.like(xs[0], tuple(shape))
        return self.op("CONCATENATION", tuple(xs), output, axis=axis, activation="NONE")

    def reshape(self, x: int, shape: tuple[int, ...]) -> int:
        return self.op("RESHAPE", (x,), self.like(x, shape))

    def softmax(self, x: int, beta: float = 1.0) -> int:
        return self.op("SOFTMAX", (x,), self.activation(self.shape(x), 1 / 256, -128), beta=beta)

    def unary(self, kind: str, x: int) -> int:
        """LOGISTIC, TANH, RELU (rescaling), RELU6 (not rescaling)."""
        if kind == "RELU6":
            return self.op(kind, (x,), self.like(x, self.shape(x)))
        fixed = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
        return self.op(kind, (x,), self.activation(self.shape(x), *fixed.get(kind, (None, None))))

    def quantize(self, x: int, dtype: str = "int8", **options: Any) -> int:
        if dtype == "uint8" and "zero_point" not in options:
            options["zero_point"] = int(self.rng.integers(0, 256))
        return self.op("QUANTIZE", (x,), self.activation(self.shape(x), dtype=dtype, **options))

    def dequantize(self, x: int) -> int:
        return self.op("DEQUANTIZE", (x,), self.activation(self.shape(x), dtype="float32"))

    def _window(
        self,
        x: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: str,
    ) -> tuple[int, int]:
        sizes = []
        for extent, taps, step, gap in zip(self.shape(x)[1:3], kernel, stride, dilation, strict=True):
            around = sum(same_padding(extent, taps, step, gap)) if padding == "SAME" else 0
            sizes.append((extent + around - ((taps - 1) * gap + 1)) // step + 1)
        return sizes[0], sizes[1]


def _window_attrs(stride: tuple[int, int], padding: str, activation: str) -> dict[str, Any]:
    return {"padding": padding, "stride_h": stride[0], "stride_w": stride[1], "activation": activation}


def _dilation_attrs(dilation: tuple[int, int]) -> dict[str, Any]:
    return {"dilation_h": dilation[0], "dilation_w": dilation[1]}


# ---- whole graphs ----


def conv_graph(rng: Rng, shape: tuple[int, ...] = (1, 7, 6, 3), channels: int = 5, **options: Any) -> QGraph:
    """One CONV_2D."""
    b = Builder(rng)
    return b.graph(b.conv(b.input(shape), channels, **options))


def depthwise_graph(rng: Rng, shape: tuple[int, ...] = (1, 7, 6, 3), **options: Any) -> QGraph:
    """One DEPTHWISE_CONV_2D."""
    b = Builder(rng)
    return b.graph(b.depthwise(b.input(shape), **options))


def dense_graph(rng: Rng, shape: tuple[int, ...] = (1, 19), channels: int = 7, **options: Any) -> QGraph:
    """One FULLY_CONNECTED."""
    b = Builder(rng)
    return b.graph(b.dense(b.input(shape), channels, **options))


def small_net(rng: Rng) -> QGraph:
    """A little of everything a classifier has: stem, depthwise, residual, pool, dense, softmax."""
    b = Builder(rng, "small_net")
    x = b.input((1, 8, 8, 1), scale=1 / 16, zero_point=-128)
    x = b.conv(x, 8, stride=(2, 2), activation="RELU")
    y = b.conv(b.depthwise(x, activation="RELU"), 8, (1, 1), activation="RELU")
    y = b.binary("ADD", x, y, activation="RELU")
    y = b.pool(y, kernel=(4, 4), stride=(4, 4))
    y = b.dense(b.reshape(y, (1, 8)), 10)
    return b.graph(b.softmax(y))


def float_edged(rng: Rng) -> QGraph:
    """A classifier with float32 input and output, as converters write it by default."""
    b = Builder(rng, "float_edged")
    x = b.quantize(b.input((1, 6, 5, 2), dtype="float32"), scale=0.02, zero_point=-3)
    y = b.dense(b.mean(b.conv(x, 4, activation="RELU")), 3)
    return b.graph(b.dequantize(b.softmax(y)))


def random_graph(rng: Rng, ops: int = 6) -> QGraph:
    """A random chain of `ops` steps on a small image, then perhaps a classifier's head."""
    b = Builder(rng, "random")
    size = rng.integers(4, 10, 2)
    x = b.input((1, int(size[0]), int(size[1]), int(rng.integers(1, 6))))
    for _ in range(ops):
        x = _random_step(b, x)
    if rng.random() < 0.5:
        x = b.dense(x, int(rng.integers(2, 12)), per_channel=bool(rng.random() < 0.5))
        x = b.softmax(x) if rng.random() < 0.5 else x
    return b.graph(x)


def _random_step(b: Builder, x: int) -> int:
    rng = b.rng
    activation = str(rng.choice(["NONE", "RELU", "RELU6"]))
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    options = {
        "padding": "SAME",
        "stride": (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        "activation": activation,
    }
    choice = int(rng.integers(0, 10))
    if choice == 0:
        return b.conv(x, int(rng.integers(1, 8)), kernel, bias=bool(rng.random() < 0.8), **options)
    if choice == 1:
        return b.conv(x, int(rng.integers(1, 8)), (1, 1), per_channel=False, activation=activation)
    if choice == 2:
        return b.depthwise(x, kernel, multiplier=int(rng.integers(1, 3)), **options)
    if choice == 3:
        return b.pool(x, str(rng.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"])), kernel, **options)
    if choice == 4:
        return b.binary(str(rng.choice(["ADD", "SUB", "MUL"])), x, b.conv(x, b.shape(x)[3]))
    if choice == 5:
        return b.pad(x, [[0, 0], *rng.integers(0, 3, (2, 2)).tolist(), [0, 0]])
    if choice == 6:
        return b.concatenate([x, b.pool(x, "MAX_POOL_2D", (2, 2), stride=(1, 1), padding="SAME"), x])
    if choice == 7:
        return b.unary(str(rng.choice(["LOGISTIC", "TANH", "RELU", "RELU6"])), x)
    if choice == 8:
        h, w, c = b.shape(x)[1:]
        return b.reshape(x, (1, w, h, c))
    return b.quantize(x)


# ---- inputs ----


def inputs_for(graph: QGraph, rng: Rng, samples: int = 16, real: Array | None = None) -> list[Array]:
    """Inputs [samples, ...] a quarter each: uniform, near the zero point, extremes, like real data.

    `real`: samples to draw the last quarter from; else smooth noise. Float inputs get normal noise.
    """
    return [_input(graph.tensors[index], rng, samples, real) for index in graph.inputs]


def _input(tensor: Tensor, rng: Rng, samples: int, real: Array | None) -> Array:
    shape = (samples, *tensor.shape[1:])
    if tensor.dtype == "float32":
        return rng.normal(0, 2, shape).astype(np.float32)
    info = np.iinfo(tensor.dtype)
    low, high = int(info.min), int(info.max)
    smooth = np.cumsum(rng.normal(0, 12, shape), axis=-2 if len(shape) > 2 else -1) + tensor.zero_point
    values = rng.integers(low, high + 1, shape)
    quarter = max(1, samples // 4)
    values[quarter : 2 * quarter] = tensor.zero_point + rng.integers(-3, 4, shape)[quarter : 2 * quarter]
    extreme = rng.choice([low, high], shape)
    extreme[: 1 + quarter // 4] = low
    extreme[1 + quarter // 4 : 2 + quarter // 2] = high
    values[2 * quarter : 3 * quarter] = extreme[:quarter]
    values[3 * quarter :] = smooth[3 * quarter :]
    if real is not None:
        values[3 * quarter :] = real[rng.integers(0, len(real), samples - 3 * quarter)]
    return np.clip(values, low, high).astype(tensor.dtype)
