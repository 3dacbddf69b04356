"""A FlatBuffer read with every offset checked: a broken file ends in one ArtifactError, never in a crash.

FlatBuffers let parts of a file be shared, so a small hostile file can describe a huge tree. Each read
is paid from a budget that grows with the file's size, which bounds time and memory.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError

MOST_INTEGERS = 512  # of a shape, or of an op's inputs


class Reader:
    """The bytes, their name for messages, and what may still be read."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self._budget = 64 * len(data) + 4096

    def root(self) -> Table:
        """The table that the file starts with."""
        return Table(self, self.offset(0))

    def offset(self, position: int) -> int:
        """Follow the forward offset at `position`."""
        return position + int(self.unpack("<I", position))

    def unpack(self, code: str, position: int) -> int | float:
        """One number at `position`."""
        length = struct.calcsize(code)
        self.spend(position, length)
        number: int | float = struct.unpack_from(code, self.data, position)[0]
        return number

    def spend(self, position: int, length: int) -> None:
        """Raise unless [position, position + length) lies in the file and the budget lasts."""
        if position < 0 or length < 0 or position + length > len(self.data):
            raise ArtifactError(
                f"{self.name} is truncated or damaged: it points outside itself; get the file again"
            )
        self._budget -= length + 8
        if self._budget < 0:
            raise ArtifactError(
                f"{self.name} is damaged: it refers to its own parts too often; get the file again"
            )


class Table:
    """One table: fields by their slot in the schema, None or the default where absent."""

    def __init__(self, reader: Reader, position: int) -> None:
        self._reader = reader
        self._position = position
        self._vtable = position - int(reader.unpack("<i", position))
        self._vtable_bytes = int(reader.unpack("<H", self._vtable))
        if self._vtable_bytes % 2:  # readers would not agree on which field is the last
            raise ArtifactError(
                f"{reader.name} is damaged: a table of {self._vtable_bytes} bytes lists its fields by two; "
                "get the file again"
            )

    def number(self, slot: int, code: str, default: int | float = 0) -> int | float:
        """A scalar field; `code` is struct's letter (b, B, i, I, f, q, Q, ?)."""
        position = self._field(slot)
        return default if position is None else self._reader.unpack("<" + code, position)

    def integer(self, slot: int, code: str, default: int = 0) -> int:
        """A scalar field that is an integer."""
        return int(self.number(slot, code, default))

    def table(self, slot: int) -> Table | None:
        """A table field."""
        position = self._field(slot)
        return None if position is None else Table(self._reader, self._reader.offset(position))

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        found = self._vector(slot, 4)
        if found is None:
            return []
        start, count = found
        return [Table(self._reader, self._reader.offset(start + 4 * i)) for i in range(count)]

    def has(self, slot: int) -> bool:
        """Whether the field is there at all."""
        return self._field(slot) is not None

    def array(self, slot: int, dtype: str) -> npt.NDArray[np.generic] | None:
        """A vector of numbers (dtype as numpy's, little-endian): a read-only view of the file's bytes."""
        item = np.dtype(dtype)
        found = self._vector(slot, item.itemsize)
        if found is None:
            return None
        start, count = found
        return np.frombuffer(self._reader.data, item, count, start)

    def integers(self, slot: int, dtype: str = "<i4") -> tuple[int, ...]:
        """A short vector of integers; empty where absent. As Python's, each takes ten times its bytes."""
        found = self.array(slot, dtype)
        if found is not None and len(found) > MOST_INTEGERS:
            raise ArtifactError(
                f"{self._reader.name} is damaged: it lists {len(found)} integers where a few belong; "
                "get the file again"
            )
        return () if found is None else tuple(found.tolist())

    def text(self, slot: int) -> str:
        """A string; bytes that are no UTF-8 or not printable become "?"."""
        found = self.array(slot, "u1")
        text = "" if found is None else found.tobytes().decode("utf-8", "replace")
        return "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in text)

    def _vector(self, slot: int, item_bytes: int) -> tuple[int, int] | None:
        position = self._field(slot)
        if position is None:
            return None
        start = self._reader.offset(position)
        count = int(self._reader.unpack("<I", start))
        self._reader.spend(start + 4, count * item_bytes)
        return start + 4, count

    def _field(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_bytes:
            return None
        offset = int(self._reader.unpack("<H", self._vtable + entry))
        return self._position + offset if offset else None
