"""The one table of operators: names, attributes, and what a reader, writer and generator may rely on.

Attributes carry TFLite's meaning. `activation` is "NONE", "RELU" or "RELU6"; `padding` is "SAME" or
"VALID" (TensorFlow's rule: SAME puts the odd pixel at the bottom and right).

Four forms come from passes alone, and no file holds them: the ops TABLE and CONV_2D_ADD (residual.py); the
padding "EXPLICIT", with the further attribute `pads` (top, bottom, left, right: pixels of the input's zero
point); and the activation "CLAMP lowest highest" in the output's integers.
"""

from __future__ import annotations

from collections.abc import Mapping

# kind -> the attributes that every op of that kind has.
OPS: dict[str, tuple[str, ...]] = {
    "ADD": ("activation",),
    "AVERAGE_POOL_2D": ("padding", "stride_h", "stride_w", "filter_h", "filter_w", "activation"),
    "CONCATENATION": ("axis", "activation"),
    "CONV_2D": ("padding", "stride_h", "stride_w", "dilation_h", "dilation_w", "activation"),
    "CONV_2D_ADD": (
        "padding",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "activation",
        "between_scale",
        "between_zero_point",
        "sum_activation",
    ),
    "DEPTHWISE_CONV_2D": (
        "padding",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "depth_multiplier",
        "activation",
    ),
    "DEQUANTIZE": (),
    "FULLY_CONNECTED": ("activation",),
    "LOGISTIC": (),
    "MAX_POOL_2D": ("padding", "stride_h", "stride_w", "filter_h", "filter_w", "activation"),
    "MEAN": ("keep_dims",),  # input 1: int32 axes, constant; spatial axes (1, 2) only
    "MUL": ("activation",),
    "PAD": (),  # input 1: int32 paddings [rank, 2], constant
    "QUANTIZE": (),
    "RELU": (),
    "RELU6": (),
    "RESHAPE": (),  # the output tensor's shape is the truth; input 1 is ignored
    "SOFTMAX": ("beta",),
    "SUB": ("activation",),
    "TABLE": (),  # input 1: constant, the output of each value of input 0's dtype in order, lowest first
    "TANH": (),
}

EXPLICIT = "EXPLICIT"

# Element-wise int8 -> int8 functions of one tensor: a table of 256 bytes computes each of them.
TABLE_OPS = ("LOGISTIC", "RELU", "RELU6", "TANH")


def same_padding(extent: int, filter_extent: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding along one axis as (before, after), in pixels."""
    effective = (filter_extent - 1) * dilation + 1
    total = max(0, (-(-extent // stride) - 1) * stride + effective - extent)
    return total // 2, total - total // 2


def paddings(attrs: Mapping[str, object], axis: str, extent: int, filter_extent: int) -> tuple[int, int]:
    """What a window op's padding puts before and behind the image along axis "h" or "w", in pixels."""
    if attrs["padding"] == "VALID":
        return 0, 0
    if attrs["padding"] == EXPLICIT:
        pads = attrs["pads"]
        assert isinstance(pads, tuple)
        before, after = pads[:2] if axis == "h" else pads[2:]
        return int(before), int(after)
    stride, dilation = attrs[f"stride_{axis}"], attrs.get(f"dilation_{axis}", 1)
    assert isinstance(stride, int) and isinstance(dilation, int)
    return same_padding(extent, filter_extent, stride, dilation)
