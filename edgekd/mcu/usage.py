"""What a kernel's usage is described from, and with: the vocabulary of USAGE's rows (costs.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.mcu.codegen_case import Call, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp.assembly import Kernel
from edgekd.mcu.work import NOTHING, Work


@dataclass(frozen=True)
class Usage:
    """features: what the C runs over, name -> how often. assembly: what the leaves that it calls run.

    others: the usages of other kernels in C that it calls, with their names.
    """

    features: Mapping[str, float]
    assembly: Work = NOTHING
    others: tuple[tuple[str, Usage], ...] = ()


@dataclass(frozen=True)
class Seen:
    """One call of a kernel: the struct's fields, its arguments, the layer's emission and leaves by name."""

    fields: Mapping[str, Value]
    call: Call
    emission: Emission
    leaves: Mapping[str, Kernel]

    def number(self, name: str) -> int:
        """A whole-number field."""
        value = self.fields[name]
        assert isinstance(value, int)
        return value

    def numbers(self, name: str) -> list[int]:
        """A field of several whole numbers."""
        value = self.fields[name]
        assert not isinstance(value, int | str | Mapping)
        return list(value)

    def inner(self, name: str, **changed: Value) -> Seen:
        """The same call, seen from a nested struct, some of whose fields are `changed`."""
        value = self.fields[name]
        assert isinstance(value, Mapping)
        return Seen({**value, **changed}, self.call, self.emission, self.leaves)

    def leaf(self, name: str) -> Kernel:
        """The generated function that a field points to."""
        return self.leaves[str(self.fields[name])]

    def argument(self, position: int) -> int:
        """A whole number among the arguments."""
        return int(str(self.call.arguments[position]))
