"""What an emitter sees (one op with its tensors) and what it returns (calls, constants, needs)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from edgekd.errors import UnsupportedOpError
from edgekd.mcu.codegen_text import Array, Value
from edgekd.mcu.dsp.assembly import Kernel
from edgekd.qgraph import requantize
from edgekd.qgraph.ir import QGraph, Tensor

LARGEST_EXTENT = (1 << 15) - 1  # the kernels keep shapes as int16_t


@dataclass(frozen=True)
class Address:
    """A pointer argument: a tensor's bytes in the arena or among the constants, or the op's scratch.

    tensor: the tensor's index, or -1 for the scratch (words of int32_t). offset: bytes behind its start.
    """

    tensor: int
    c_type: str = "int8_t"
    writes: bool = False
    offset: int = 0


SCRATCH = Address(-1, "int32_t", writes=True)


@dataclass(frozen=True)
class Call:
    """One call of a kernel: `kernel` is the function and the stem of its files."""

    kernel: str
    arguments: tuple[str | Address, ...]


@dataclass(frozen=True)
class Emission:
    """The code of one op.

    calls: in order. struct: the type and the fields of the constant `layer` that "&layer" points to.
    weights: arrays named model_weights_*. tables: other constants. macs: multiply-accumulates.
    assembly: the generated leaves that its kernel calls. helpers: further kernels in C that it names.
    consumed: where in its scratch the first input may lie, in bytes: each byte is read before it is written.
    """

    calls: tuple[Call, ...]
    struct: tuple[str, Mapping[str, Value]] | None = None
    weights: tuple[Array, ...] = ()
    tables: tuple[Array, ...] = ()
    macs: int = 0
    scratch_bytes: int = 0
    assembly: tuple[Kernel, ...] = ()
    helpers: tuple[str, ...] = ()
    consumed: int = -1


class Case:
    """Op `index` of a validated graph, with the look-ups that emitters share.

    is_updatable: an emitter must then decide from the structure alone, never from a weight or a scale.
    wants_flash: weights stored as indices stay so even where each is used once.
    """

    def __init__(
        self, graph: QGraph, index: int, *, is_updatable: bool = False, wants_flash: bool = False
    ) -> None:
        self.graph = graph
        self.index = index
        self.is_updatable = is_updatable
        self.wants_flash = wants_flash
        self.op = graph.ops[index]
        self.inputs: list[Tensor] = [graph.tensors[i] for i in self.op.inputs if i != -1]
        self.x = self.inputs[0]
        self.y: Tensor = graph.tensors[self.op.outputs[0]]

    def fail(self, why: str) -> NoReturn:
        shapes = ", ".join(str(t.shape) for t in self.inputs)
        label = self.graph.label(self.index)
        raise UnsupportedOpError(
            f"graph {self.graph.name}: {label}, {shapes} -> {self.y.shape}: {why}; "
            "change the model, or run it with TFLite Micro"
        )

    def number(self, name: str, default: int = 1) -> int:
        """A whole-number attribute; `default` where this kind of op has none of that name."""
        value = self.op.attrs.get(name, default)
        assert isinstance(value, int)
        return value

    def source(self, position: int = 0, c_type: str = "int8_t") -> Address:
        return Address(self.op.inputs[position], c_type)

    def target(self, c_type: str = "int8_t", offset: int = 0) -> Address:
        return Address(self.op.outputs[0], c_type, writes=True, offset=offset)

    def clamp(self) -> dict[str, Value]:
        """The fused activation's range: fields `lowest` and `highest`."""
        low, high = requantize.activation_range(self.y, str(self.op.attrs.get("activation", "NONE")))
        return {"lowest": low, "highest": high}

    def extents(self, **named: int) -> dict[str, Value]:
        """Fields that the kernels keep as int16_t; refused where one does not fit."""
        for name, value in named.items():
            if not -LARGEST_EXTENT <= value <= LARGEST_EXTENT:
                self.fail(f"{name} is {value}; the kernels' limit is {LARGEST_EXTENT}")
        return dict(named)

    def array(self, role: str, values: np.typing.NDArray[np.generic]) -> Array:
        """A weight array of this op."""
        return Array(f"model_weights_{self.index:02d}_{role}", values)
