"""What the .tflite reader and writer share of TensorFlow Lite's schema: slots, types, options of each op.

Slots are positions in the schema's tables and never change; the numbers of enumerations come from
the schema's own module, which is imported when needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

# dtype -> TensorType's member
TYPES = {
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "uint8": "UINT8",
    "float32": "FLOAT32",
    "int64": "INT64",
    "bool": "BOOL",
}

# A constant of this type is int8 to every reader of a QGraph, in the encoding of plain int4.
INT4 = "INT4"

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
PADDINGS = ("SAME", "VALID")


@dataclass(frozen=True)
class Field:
    """One attribute in an options table: its slot, struct code, default, and its name in the object API."""

    slot: int
    code: str
    default: int | float
    member: str


@dataclass(frozen=True)
class Kind:
    """An op's options table (None: it has none), its attributes, and the version its int8 form needs."""

    options: str | None
    fields: dict[str, Field]
    version: int


def _activation(slot: int) -> Field:
    return Field(slot, "b", 0, "fusedActivationFunction")


_STRIDES = {
    "padding": Field(0, "b", 0, "padding"),
    "stride_w": Field(1, "i", 0, "strideW"),
    "stride_h": Field(2, "i", 0, "strideH"),
}
_POOL = {
    **_STRIDES,
    "filter_w": Field(3, "i", 0, "filterWidth"),
    "filter_h": Field(4, "i", 0, "filterHeight"),
    "activation": _activation(5),
}


def _dilation(slot: int) -> dict[str, Field]:
    return {
        "dilation_w": Field(slot, "i", 1, "dilationWFactor"),
        "dilation_h": Field(slot + 1, "i", 1, "dilationHFactor"),
    }


KINDS: dict[str, Kind] = {
    "ADD": Kind("AddOptions", {"activation": _activation(0)}, 2),
    "AVERAGE_POOL_2D": Kind("Pool2DOptions", _POOL, 2),
    "CONCATENATION": Kind(
        "ConcatenationOptions", {"axis": Field(0, "i", 0, "axis"), "activation": _activation(1)}, 2
    ),
    "CONV_2D": Kind("Conv2DOptions", {**_STRIDES, "activation": _activation(3), **_dilation(4)}, 3),
    "DEPTHWISE_CONV_2D": Kind(
        "DepthwiseConv2DOptions",
        {
            **_STRIDES,
            "depth_multiplier": Field(3, "i", 0, "depthMultiplier"),
            "activation": _activation(4),
            **_dilation(5),
        },
        3,
    ),
    "DEQUANTIZE": Kind(None, {}, 2),
    "FULLY_CONNECTED": Kind("FullyConnectedOptions", {"activation": _activation(0)}, 4),
    "LOGISTIC": Kind(None, {}, 2),
    "MAX_POOL_2D": Kind("Pool2DOptions", _POOL, 2),
    "MEAN": Kind("ReducerOptions", {"keep_dims": Field(0, "?", 0, "keepDims")}, 2),
    "MUL": Kind("MulOptions", {"activation": _activation(0)}, 2),
    "PAD": Kind(None, {}, 2),
    "QUANTIZE": Kind(None, {}, 1),
    "RELU": Kind(None, {}, 2),
    "RELU6": Kind(None, {}, 2),
    "RESHAPE": Kind("ReshapeOptions", {}, 1),
    "SOFTMAX": Kind("SoftmaxOptions", {"beta": Field(0, "f", 0.0, "beta")}, 2),
    "SUB": Kind("SubOptions", {"activation": _activation(0)}, 2),
    "TANH": Kind(None, {}, 2),
}

# The version of an op whose weights are int4. TensorFlow gives DEPTHWISE_CONV_2D version 7, which LiteRT's
# reference kernels are not registered for though they run it: it keeps the version of int8.
INT4_VERSIONS = {"CONV_2D": 7, "FULLY_CONNECTED": 10}

FULLY_CONNECTED_WEIGHTS_FORMAT = Field(1, "b", 0, "weightsFormat")


def _enumeration(name: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated

    members = vars(getattr(schema_py_generated, name))
    return {value: key for key, value in members.items() if isinstance(value, int)}


@cache
def operators() -> dict[int, str]:
    """BuiltinOperator's numbers and names."""
    return _enumeration("BuiltinOperator")


@cache
def tensor_types() -> dict[int, str]:
    """TensorType's numbers and names."""
    return _enumeration("TensorType")


@cache
def options_types() -> dict[int, str]:
    """BuiltinOptions' numbers and names."""
    return _enumeration("BuiltinOptions")
