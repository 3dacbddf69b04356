"""How a constant's int8 values are stored: indices of a few bits into small tables of int8 values.

Every tensor's `data` are its plain values, so the reference and the passes know nothing of this. An
Encoding beside them promises that each value stands in the table of its channel; uniform int4 and int2 are
the same format with the fixed tables -8 to 7 and -2 to 1. Indices are packed low bits first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import UnsupportedOpError

Int8 = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]

INDEX_BITS = (2, 4, 8)
MOST_TABLES = 256
_FIELDS_BYTES = 40  # what a kernel is told more than for plain weights, about
_VALUES = 256  # of an int8


@dataclass(frozen=True, eq=False)
class Encoding:
    """bits of an index (2, 4 or 8); tables int8 [groups, entries], 1 to 2**bits entries.

    channel_tables: uint8 [channels], the table of each output channel. axis: which axis of the weights
    counts output channels (0; 3 for DEPTHWISE_CONV_2D).
    """

    bits: int
    tables: Int8
    channel_tables: Bytes
    axis: int = 0

    @property
    def stored_bits(self) -> int:
        """The fewest bits that hold every index of these tables."""
        return next(bits for bits in INDEX_BITS if self.tables.shape[1] <= 1 << bits)

    @property
    def whole_tables(self) -> Int8:
        """The tables filled up to as many entries as an index of `stored_bits` can name."""
        whole = np.zeros((len(self.tables), 1 << self.stored_bits), np.int8)
        whole[:, : self.tables.shape[1]] = self.tables
        return whole

    def stored_bytes(self, weights: int) -> int:
        """What `weights` indices with their tables and channels' numbers take, and a kernel's own fields."""
        numbers = len(self.channel_tables) if len(self.tables) > 1 else 0
        return -(-weights * self.stored_bits // 8) + self.whole_tables.size + numbers + _FIELDS_BYTES

    @property
    def is_uniform_int4(self) -> bool:
        """Whether the values are those of a plain int4."""
        return self.bits == 4 and np.array_equal(self.tables, uniform_table(4)[None])

    def rows(self, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`data` as [channels, values of a channel]."""
        return np.moveaxis(data, self.axis, 0).reshape(len(self.channel_tables), -1)

    def indices(self, rows: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """[channels, values] -> each value's place in its channel's table, -1 where it stands in none."""
        place = np.full((len(self.tables), _VALUES), -1, np.int64)
        for entry in range(self.tables.shape[1] - 1, -1, -1):  # of equal entries the first
            place[np.arange(len(self.tables)), self.tables[:, entry].astype(np.int64) + 128] = entry
        return np.asarray(place[self.channel_tables[:, None], rows.astype(np.int64) + 128])

    def holds(self, data: npt.NDArray[np.generic]) -> bool:
        """Whether every value of `data` (the weights' shape) stands in its channel's table."""
        if self.bits < 8 and np.array_equal(self.tables, uniform_table(self.bits)[None]):
            return data.size == 0 or bool(self.tables[0, 0] <= data.min() <= data.max() <= self.tables[0, -1])
        return bool((self.indices(self.rows(data)) >= 0).all())

    def narrowed(self, data: npt.NDArray[np.generic], kept: npt.NDArray[np.bool_]) -> Encoding | None:
        """The encoding of `data`, new values of the channels that are `kept`; zeros may have been put in.

        None where the tables have no zero and no room for one: the values are then stored plainly.
        """
        found = Encoding(self.bits, self.tables, self.channel_tables[kept], self.axis)
        if found.holds(data):
            return found
        if self.tables.shape[1] == 1 << self.bits:
            return None
        zeros = np.zeros((len(self.tables), 1), np.int8)
        found = Encoding(
            self.bits, np.concatenate([self.tables, zeros], axis=1), found.channel_tables, self.axis
        )
        return found if found.holds(data) else None


def uniform_table(bits: int) -> Int8:
    """The values of a signed integer of `bits` bits, ascending."""
    return np.arange(-(1 << bits - 1), 1 << bits - 1, dtype=np.int64).astype(np.int8)


def uniform(bits: int, channels: int, axis: int = 0) -> Encoding:
    """Plain integers of 2, 4 or 8 bits."""
    return Encoding(bits, uniform_table(bits)[None], np.zeros(channels, np.uint8), axis)


def encode(
    data: npt.NDArray[np.generic],
    tables: npt.NDArray[np.generic],
    channel_tables: npt.NDArray[np.generic] | None = None,
    axis: int = 0,
    where: str = "the weights",
) -> Encoding:
    """The encoding of `data` (int8 weights) by `tables` [groups, entries], whole numbers -128 to 127.

    channel_tables: the table of each output channel; absent: one table for all. Raises UnsupportedOpError
    for tables or groups that cannot be, or that lack a value of `data`; `where` begins the message.
    """
    tables = np.atleast_2d(tables)
    channels = data.shape[axis] if -1 < axis < data.ndim else 0
    given = np.zeros(channels, np.uint8) if channel_tables is None else channel_tables
    if tables.ndim != 2 or not tables.size or tables.min() < -128 or tables.max() > 127:
        raise UnsupportedOpError(f"{where}: a codebook of shape {tables.shape} is no table of int8 values")
    if given.size and (given.min() < 0 or given.max() >= MOST_TABLES):
        raise UnsupportedOpError(f"{where}: tables are numbered 0 to {MOST_TABLES - 1}")
    bits = next((bits for bits in INDEX_BITS if tables.shape[1] <= 1 << bits), 8)
    found = Encoding(bits, tables.astype(np.int8), given.astype(np.uint8), axis)
    check(found, data, where)
    return found


def check(encoding: Encoding, data: npt.NDArray[np.generic] | None, where: str) -> None:
    """Raise UnsupportedOpError unless `encoding` is sound and holds `data`; `where` begins the message."""
    why = _fault(encoding, data)
    if why:
        raise UnsupportedOpError(f"{where}: {why}")


def _fault(encoding: Encoding, data: npt.NDArray[np.generic] | None) -> str:
    if data is None or data.dtype != np.int8:
        return "only constant int8 weights can be stored as indices"
    if encoding.bits not in INDEX_BITS:
        return f"indices of {encoding.bits} bits are not supported; take 2, 4 or 8"
    tables, groups = encoding.tables, encoding.channel_tables
    if tables.dtype != np.int8 or tables.ndim != 2 or not 1 <= tables.shape[1] <= 1 << encoding.bits:
        return f"tables of shape {tables.shape} do not fit indices of {encoding.bits} bits"
    if not 1 <= len(tables) <= MOST_TABLES:
        return f"{len(tables)} tables; 1 to {MOST_TABLES} are supported"
    if not 0 <= encoding.axis < data.ndim or groups.shape != (data.shape[encoding.axis],):
        return f"{groups.size} channels have a table, but the weights' shape is {data.shape}"
    if groups.dtype != np.uint8 or int(groups.max(initial=0)) >= len(tables):
        return f"a channel has table {groups.max(initial=0)}, but there are {len(tables)}"
    if not encoding.holds(data):
        return "a weight does not stand in its channel's table; encode the weights again"
    return ""


def pack(indices: npt.NDArray[np.integer[Any]], bits: int) -> Bytes:
    """Indices (flat order) of `bits` bits as bytes, the first in the lowest bits; zeros fill the last."""
    each = 8 // bits
    flat = indices.ravel().astype(np.uint8)
    whole = np.concatenate([flat, np.zeros(-len(flat) % each, np.uint8)]).reshape(-1, each)
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    return np.asarray(np.bitwise_or.reduce(whole << shifts, axis=1), np.uint8)


def unpack_int4(packed: Bytes, count: int) -> Int8:
    """The first `count` signed nibbles, the lower one of each byte first; few copies for large files."""
    found = np.empty(2 * len(packed), np.int8)
    found[0::2] = (packed << 4).view(np.int8) >> 4
    found[1::2] = packed.view(np.int8) >> 4
    return found[:count]


def unpack(packed: Bytes, count: int, bits: int) -> Bytes:
    """The first `count` indices of `pack`."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    every = (packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(every.ravel()[:count], np.uint8)
