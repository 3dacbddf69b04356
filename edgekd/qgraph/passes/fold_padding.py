"""Makes a PAD in front of a convolution or a maximum the window's own padding.

PAD fills with its zero point, which validation ties to its input's. A convolution's own padding counts as
the input's zero point too: the same products. MAX_POOL_2D's own padding counts as less than every value:
the same only where no channel can be below the zero point (intervals.py), for each window meets the image.
AVERAGE_POOL_2D divides by the pixels inside, so a PAD before it stays.

The window's padding becomes EXPLICIT: the PAD's pixels and what SAME adds on the padded image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.qgraph.arithmetic import Ints
from edgekd.qgraph.ir import Attr, Op, QGraph
from edgekd.qgraph.ops import EXPLICIT, paddings
from edgekd.qgraph.passes.intervals import intervals
from edgekd.qgraph.passes.rewrite import Changed, plural, readers, rebuilt
from edgekd.qgraph.reference.values import attribute

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")

_Ends = dict[int, tuple[Ints, Ints]]


def fold_padding(graph: QGraph) -> Changed:
    """The graph without each PAD all of whose readers can pad for themselves."""
    ends = intervals(graph) if any(op.kind == "PAD" for op in graph.ops) else {}
    users = readers(graph)
    ops: list[Op | None] = list(graph.ops)
    saved_bytes = 0
    for index, op in enumerate(graph.ops):
        padded = op.outputs[0]
        if op.kind != "PAD" or padded in graph.outputs or padded not in users:
            continue
        found = {reader: _padding_itself(graph, op, graph.ops[reader], ends) for reader in users[padded]}
        if all(found.values()) and all(ops[reader] is graph.ops[reader] for reader in found):
            ops[index] = None
            for reader, new in found.items():
                ops[reader] = new
            saved_bytes += graph.tensors[padded].nbytes
    gone = sum(op is None for op in ops)
    if not gone:
        return Changed(graph, False, "no PAD can be folded")
    report = f"{plural(gone, 'PAD')} ({saved_bytes:,} bytes written) folded into the windows behind"
    return Changed(rebuilt(graph, [op for op in ops if op is not None]), True, report)


def _padding_itself(graph: QGraph, pad: Op, op: Op, ends: _Ends) -> Op | None:
    """`op` on the PAD's input, None where that would not be exact."""
    source, padded = graph.tensors[pad.inputs[0]], graph.tensors[pad.outputs[0]]
    if op.inputs.count(pad.outputs[0]) != 1 or op.inputs[0] != pad.outputs[0] or len(source.shape) != 4:
        return None
    if op.kind in _CONVOLUTIONS:
        filter_shape = graph.tensors[op.inputs[1]].shape[1:3]
    elif op.kind == "MAX_POOL_2D" and bool((ends[pad.inputs[0]][0] >= padded.zero_point).all()):
        filter_shape = attribute(op, "filter_h"), attribute(op, "filter_w")
    else:
        return None
    widths = np.asarray(graph.tensors[pad.inputs[1]].data)
    if widths[3].any():
        return None
    pads: list[int] = []
    for axis, name in ((1, "h"), (2, "w")):
        own = paddings(op.attrs, name, padded.shape[axis], filter_shape[axis - 1])
        both = [int(width) + more for width, more in zip(widths[axis], own, strict=True)]
        reach = (filter_shape[axis - 1] - 1) * attribute(op, f"dilation_{name}", 1) + 1
        if max(both) >= reach:
            return None
        pads += both
    given = {name: value for name, value in op.attrs.items() if name != "pads"}
    own_pads: dict[str, Attr] = (
        {"padding": EXPLICIT, "pads": tuple(pads)} if any(pads) else {"padding": "VALID"}
    )
    attrs = {**given, **own_pads}
    return replace(op, inputs=(pad.inputs[0], *op.inputs[1:]), attrs=attrs)
