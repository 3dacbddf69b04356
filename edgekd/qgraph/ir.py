"""QGraph: the int8 graph that every reader produces and every writer consumes.

Plain frozen data, no behaviour beyond look-ups: tensors in NHWC, ops under TFLite's names, in
execution order. `check()` holds a graph to the invariants that all the rest relies on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.encoding import Encoding

DTYPES = ("int8", "int16", "int32", "uint8", "float32", "int64", "bool")

# An attribute is what TFLite's options table holds, in plain Python.
Attr = int | float | bool | str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor.

    shape: NHWC, batch first (batch is 1); weights as TFLite lays them out: CONV_2D OHWI,
        DEPTHWISE_CONV_2D 1HWC, FULLY_CONNECTED [out, in].
    scale: float32, length 1 (per tensor) or the length of `shape[axis]` (per channel); empty where
        the tensor is not quantized.
    zero_point: one integer for the whole tensor (per-channel tensors are symmetric: 0).
    axis: the quantized dimension of a per-channel tensor, else 0.
    data: the constant's values in `dtype` and `shape`, or None for an activation.
    encoding: how the constant is stored on a device, None for plainly; `data` are its values all the same.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: int = 0
    axis: int = 0
    data: npt.NDArray[np.generic] | None = None
    encoding: Encoding | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def nbytes(self) -> int:
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Op:
    """One operator: `kind` is TFLite's name; `inputs` and `outputs` index `QGraph.tensors` (-1: absent)."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class QGraph:
    """One entry graph. `ops` are in execution order; `inputs` and `outputs` index `tensors`."""

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def label(self, index: int) -> str:
        """How a person finds op `index`: its number, kind and output tensor's name."""
        op = self.ops[index]
        return f"op {index} {op.kind} ({self.tensors[op.outputs[0]].name})"

    def check(self) -> None:
        """Raise UnsupportedOpError unless every index, shape, dtype and order is sound."""
        for position in (*self.inputs, *self.outputs):
            if not 0 <= position < len(self.tensors):
                raise UnsupportedOpError(f"graph {self.name}: tensor {position} does not exist")
        known = set(self.inputs) | {i for i, t in enumerate(self.tensors) if t.is_constant}
        for tensor in self.tensors:
            _check_tensor(self.name, tensor)
        for index, op in enumerate(self.ops):
            for position in op.inputs:
                if position != -1 and position not in known:
                    raise UnsupportedOpError(
                        f"graph {self.name}: {op.kind} (op {index}) reads tensor {position} "
                        "before it is written"
                    )
            for position in op.outputs:
                if not 0 <= position < len(self.tensors) or position in known:
                    raise UnsupportedOpError(
                        f"graph {self.name}: {op.kind} (op {index}) writes tensor {position}, "
                        "which does not exist or already has a value"
                    )
            known.update(op.outputs)
        missing = [p for p in self.outputs if p not in known]
        if missing:
            raise UnsupportedOpError(f"graph {self.name}: output tensor {missing[0]} is never written")


def _check_tensor(graph: str, tensor: Tensor) -> None:
    where = f"graph {graph}, tensor {tensor.name}"
    if tensor.dtype not in DTYPES:
        raise UnsupportedOpError(f"{where}: dtype {tensor.dtype} is not supported")
    if any(extent <= 0 for extent in tensor.shape):
        raise UnsupportedOpError(
            f"{where}: shape {tensor.shape} is dynamic or empty; export with fixed shapes"
        )
    if tensor.data is not None and tensor.data.shape != tensor.shape:
        raise UnsupportedOpError(
            f"{where}: data of shape {tensor.data.shape} in a tensor of shape {tensor.shape}"
        )
    if len(tensor.scale) > 1 and len(tensor.scale) != tensor.shape[tensor.axis]:
        raise UnsupportedOpError(
            f"{where}: {len(tensor.scale)} scales for {tensor.shape[tensor.axis]} channels"
        )
