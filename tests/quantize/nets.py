"""Small float ONNX models, built by hand, for the quantizer and the reader of what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Random = np.random.Generator


class Net:
    """A chain of nodes on an input NCHW; `add` returns the output's name, constants are seeded normals."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.shape = shape
        self.random = np.random.Generator(np.random.Philox(seed))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def weights(self, *shape: int, size: float = 0.5) -> str:
        return self.constant((self.random.normal(size=shape) * size).astype(np.float32))

    def constant(self, array: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, **attrs: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attrs))
        return output

    def conv(self, x: str, channels: int, outputs: int, kernel: int = 3, **attrs: Any) -> str:
        groups = attrs.get("group", 1)
        weights = self.weights(outputs, channels // groups, kernel, kernel)
        return self.add("Conv", x, weights, self.weights(outputs), kernel_shape=[kernel, kernel], **attrs)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        return self.add("Gemm", x, self.weights(outputs, inputs), self.weights(outputs), transB=1)

    def model(self, output: str, batch: int | str = 1, opset: int = 18) -> bytes:
        entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *self.shape[1:]])
        leave = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [entry], [leave], self.constants)
        built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        return onnx.shape_inference.infer_shapes(built).SerializeToString()

    def samples(self, count: int = 24) -> Any:
        return self.random.normal(size=(count, *self.shape[1:])).astype(np.float32)


def _same_conv(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 5, pads=[1, 1, 1, 1]))
    return net.conv(x, 5, 3, 1)


def _stride_same(net: Net) -> str:
    return net.add("Relu", net.conv("input", 2, 4, strides=[2, 2], auto_pad="SAME_UPPER"))


def _stride_explicit_pad(net: Net) -> str:
    return net.add("Relu", net.conv("input", 2, 4, strides=[2, 2], pads=[1, 1, 1, 1]))


def _uneven_pads(net: Net) -> str:
    return net.conv("input", 2, 4, pads=[2, 0, 1, 3])


def _dilated(net: Net) -> str:
    return net.conv("input", 2, 4, dilations=[2, 2], pads=[2, 2, 2, 2])


def _depthwise(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 2, group=2, pads=[1, 1, 1, 1]))
    return net.conv(x, 2, 6, group=2)


def _flatten_dense(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 3, 3))
    return net.dense(net.add("Flatten", x), 3 * 4 * 7, 5)


def _reshape_dense_twice(net: Net) -> str:
    x = net.add("Reshape", net.conv("input", 2, 3, 3), net.constant(np.array([1, -1])))
    x = net.add("Relu", net.dense(x, 3 * 4 * 7, 6))
    return net.dense(x, 6, 4)


def _matmul(net: Net) -> str:
    return net.add("MatMul", net.add("Flatten", "input"), net.weights(2 * 6 * 9, 4))


def _global_pool(net: Net) -> str:
    x = net.add("GlobalAveragePool", net.conv("input", 2, 4))
    return net.dense(net.add("Flatten", x), 4, 3)


def _squeeze(net: Net) -> str:
    x = net.add("GlobalAveragePool", net.conv("input", 2, 4))
    return net.dense(net.add("Squeeze", x, net.constant(np.array([2, 3]))), 4, 3)


def _reduce_mean(net: Net) -> str:
    x = net.add("ReduceMean", net.conv("input", 2, 4), net.constant(np.array([-1, -2])), keepdims=0)
    return net.dense(x, 4, 3)


def _residual(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 4, pads=[1, 1, 1, 1]))
    return net.add("Relu", net.add("Add", x, net.conv(x, 4, 4, pads=[1, 1, 1, 1])))


def _scaled_and_shifted(net: Net) -> str:
    x = net.add("Mul", net.add("Relu", net.conv("input", 2, 4)), net.weights(1, 4, 1, 1))
    return net.add("Sub", x, net.weights(4, 1, 1))


def _relu6(net: Net) -> str:
    limits = net.constant(np.float32(0)), net.constant(np.float32(6))
    return net.conv(net.add("Clip", net.conv("input", 2, 4), *limits), 4, 3, 1)


def _pools(net: Net) -> str:
    x = net.add("MaxPool", net.conv("input", 2, 4, pads=[1, 1, 1, 1]), kernel_shape=[2, 2], strides=[2, 2])
    return net.add("AveragePool", x, kernel_shape=[2, 3], strides=[1, 1])


def _padded_pools(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 4))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return net.add("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)


def _average_same(net: Net) -> str:
    return net.add("AveragePool", net.conv("input", 2, 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def _concat(net: Net) -> str:
    x = net.add("Relu", net.conv("input", 2, 3, pads=[1, 1, 1, 1]))
    pooled = net.add("MaxPool", net.conv("input", 2, 2, pads=[1, 1, 1, 1]), kernel_shape=[1, 1])
    return net.conv(net.add("Concat", x, pooled, axis=1), 5, 4, 1)


def _pad(net: Net) -> str:
    x = net.add("Pad", net.conv("input", 2, 3), net.constant(np.array([0, 0, 1, 2, 0, 0, 0, 3])))
    return net.conv(x, 3, 4)


def _softmax(net: Net) -> str:
    return net.add("Softmax", net.dense(net.add("Flatten", "input"), 108, 5), axis=-1)


def _sigmoid_tanh(net: Net) -> str:
    return net.add("Tanh", net.add("Sigmoid", net.conv("input", 2, 4)))


# name -> (builder, most steps by which ONNX Runtime and the integer reference may differ, op kinds expected)
NETS: dict[str, tuple[Callable[[Net], str], int, tuple[str, ...]]] = {
    "same": (_same_conv, 1, ("CONV_2D", "CONV_2D")),
    "stride same": (_stride_same, 1, ("CONV_2D",)),
    "stride explicit pad": (_stride_explicit_pad, 1, ("PAD", "CONV_2D")),
    "uneven pads": (_uneven_pads, 1, ("PAD", "CONV_2D")),
    "dilated": (_dilated, 1, ("CONV_2D",)),
    "depthwise": (_depthwise, 1, ("DEPTHWISE_CONV_2D", "DEPTHWISE_CONV_2D")),
    "flatten dense": (_flatten_dense, 2, ("CONV_2D", "RESHAPE", "FULLY_CONNECTED")),
    "reshape dense": (_reshape_dense_twice, 2, ("CONV_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED")),
    "matmul": (_matmul, 1, ("RESHAPE", "FULLY_CONNECTED")),
    "global pool": (_global_pool, 2, ("CONV_2D", "MEAN", "RESHAPE", "FULLY_CONNECTED")),
    "squeeze": (_squeeze, 2, ("CONV_2D", "MEAN", "RESHAPE", "FULLY_CONNECTED")),
    "reduce mean": (_reduce_mean, 2, ("CONV_2D", "MEAN", "FULLY_CONNECTED")),
    "residual": (_residual, 2, ("CONV_2D", "CONV_2D", "ADD")),
    "scaled": (_scaled_and_shifted, 2, ("CONV_2D", "MUL", "SUB")),
    "relu6": (_relu6, 1, ("CONV_2D", "CONV_2D")),
    "pools": (_pools, 1, ("CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D")),
    "padded pools": (_padded_pools, 2, ("CONV_2D", "PAD", "MAX_POOL_2D", "PAD", "AVERAGE_POOL_2D")),
    "average same": (_average_same, 1, ("CONV_2D", "AVERAGE_POOL_2D")),
    "concat": (_concat, 2, ("CONV_2D", "CONV_2D", "RELU", "MAX_POOL_2D", "CONCATENATION", "CONV_2D")),
    "pad": (_pad, 1, ("CONV_2D", "PAD", "CONV_2D")),
    "softmax": (_softmax, 2, ("RESHAPE", "FULLY_CONNECTED", "SOFTMAX")),
    "sigmoid tanh": (_sigmoid_tanh, 2, ("CONV_2D", "LOGISTIC", "TANH")),
}


def build(name: str) -> tuple[bytes, Any]:
    """(float ONNX, calibration samples) of one of NETS; input 1 x 2 x 6 x 9: C, H and W all differ."""
    net = Net(1, 2, 6, 9, seed=len(name))
    return net.model(NETS[name][0](net)), net.samples()
