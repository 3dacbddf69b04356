"""The one table of operators: names, attributes, and what a reader, writer and generator may rely on.

Attributes carry TFLite's meaning. `activation` is "NONE", "RELU" or "RELU6"; `padding` is "SAME" or
"VALID" (TensorFlow's rule: SAME puts the odd pixel at the bottom and right).
"""

from __future__ import annotations

# kind -> the attributes that every op of that kind has.
OPS: dict[str, tuple[str, ...]] = {
    "ADD": ("activation",),
    "AVERAGE_POOL_2D": ("padding", "stride_h", "stride_w", "filter_h", "filter_w", "activation"),
    "CONCATENATION": ("axis", "activation"),
    "CONV_2D": ("padding", "stride_h", "stride_w", "dilation_h", "dilation_w", "activation"),
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
    "TANH": (),
}

# Element-wise int8 -> int8 functions of one tensor: a table of 256 bytes computes each of them.
TABLE_OPS = ("LOGISTIC", "RELU", "RELU6", "TANH")


def same_padding(extent: int, filter_extent: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding along one axis as (before, after), in pixels."""
    effective = (filter_extent - 1) * dilation + 1
    total = max(0, (-(-extent // stride) - 1) * stride + effective - extent)
    return total // 2, total - total // 2
