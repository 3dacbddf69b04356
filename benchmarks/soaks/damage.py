"""How a .tflite file is damaged: guided by where the reader looks, so that most of it is past the header.

`Seed` is a sound file with the places that reading it touches; `damaged` is one mutation, a function of
the seed file and the generator alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekd.qgraph import tflite_reader
from edgekd.qgraph.flatbuffer import Reader

Rng = np.random.Generator

FEWEST_BYTES = 64  # what is cut off further is not damaged again
INTEGERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 62, 63, 64, 127, 128, 255, 1 << 15, 1 << 16, 1 << 27, (1 << 31) - 1)
SIGNED = (*INTEGERS, *(-v for v in INTEGERS if v), -(1 << 31), 1 << 30)
REALS = (1e-45, 1e-38, 1e-18, 1e-9, 1e-4, 0.5, 1.0, 1e4, 1e18, 3.4e38, -1.0, float("inf"), float("nan"))
WORDS = (*(struct.pack("<i", v) for v in SIGNED), *(struct.pack("<f", v) for v in REALS))


@dataclass(frozen=True)
class Seed:
    """A sound file: its bytes, and the places (position, bytes) that its reading touched, in order."""

    name: str
    data: bytes
    places: tuple[tuple[int, int], ...]


def make_seed(name: str, data: bytes) -> Seed:
    """Read `data` once and remember where."""
    seen: list[tuple[int, int]] = []

    class Watched(Reader):
        def spend(self, position: int, length: int) -> None:
            super().spend(position, length)
            seen.append((position, length))

    plain = tflite_reader.Reader
    tflite_reader.Reader = Watched  # type: ignore[misc]
    try:
        tflite_reader.read_tflite(data, name)
    finally:
        tflite_reader.Reader = plain  # type: ignore[misc]
    return Seed(name, data, tuple(dict.fromkeys(place for place in seen if place[1])))


def damaged(seed: Seed, rng: Rng) -> bytes:
    """One damaged file: one to three changes; now and then only cut off or extended."""
    data = bytearray(seed.data)
    for _ in range(1 + int(rng.geometric(0.6) - 1) % 3):
        if len(data) < FEWEST_BYTES:
            break
        CHANGES[int(rng.choice(len(CHANGES), p=SHARES))](data, seed, rng)
    return bytes(data)


def _at(data: bytearray, position: int, value: bytes) -> None:
    """Overwrite, as far as the file goes."""
    value = value[: max(0, len(data) - position)]
    data[position : position + len(value)] = value


def _special_value(data: bytearray, seed: Seed, rng: Rng) -> None:
    """An end of a range, into something that the reader reads: a size, an offset, a scale, an attribute."""
    position, length = seed.places[int(rng.integers(0, len(seed.places)))]
    word = WORDS[int(rng.integers(0, len(WORDS)))]
    if length > 8:  # one element of an array
        position += 4 * int(rng.integers(0, length // 4))
        length = 4
    _at(data, position, word[:length])


def _near_value(data: bytearray, seed: Seed, rng: Rng) -> None:
    """A value one off: extents, indices, strides and enumerations often stay plausible."""
    position, length = seed.places[int(rng.integers(0, len(seed.places)))]
    position += int(rng.integers(0, length))
    if position < len(data):
        data[position] = (data[position] + int(rng.choice([-2, -1, 1, 2]))) & 255


def _random_bytes(data: bytearray, seed: Seed, rng: Rng) -> None:
    position = int(rng.integers(0, len(data)))
    _at(data, position, rng.bytes(int(rng.integers(1, 9))))


def _flipped_bit(data: bytearray, seed: Seed, rng: Rng) -> None:
    position = int(rng.integers(0, len(data)))
    data[position] ^= 1 << int(rng.integers(0, 8))


def _copied_part(data: bytearray, seed: Seed, rng: Rng) -> None:
    """One part over another: an op's table, a tensor's, an offset that now points elsewhere."""
    length = int(rng.choice([4, 8, 16, 32]))
    source, target = (int(rng.integers(0, len(data) // 4)) * 4 for _ in range(2))
    _at(data, target, bytes(data[source : source + length]))


def _swapped_places(data: bytearray, seed: Seed, rng: Rng) -> None:
    """Two words that the reader reads change places: inputs of ops (cycles), extents, scales."""
    words = [place for place in seed.places if place[1] % 4 == 0]
    (a, a_bytes), (b, b_bytes) = (words[int(rng.integers(0, len(words)))] for _ in range(2))
    a += 4 * int(rng.integers(0, a_bytes // 4))
    b += 4 * int(rng.integers(0, b_bytes // 4))
    first, second = bytes(data[a : a + 4]), bytes(data[b : b + 4])
    _at(data, a, second)
    _at(data, b, first)


def _cut_or_extended(data: bytearray, seed: Seed, rng: Rng) -> None:
    if rng.random() < 0.7:
        del data[max(1, int(rng.integers(0, len(data)))) :]
    else:
        data += rng.bytes(int(rng.integers(1, 200)))


Change = Callable[[bytearray, Seed, Rng], None]
CHANGES: tuple[Change, ...] = (
    _special_value,
    _near_value,
    _random_bytes,
    _flipped_bit,
    _copied_part,
    _swapped_places,
    _cut_or_extended,
)
SHARES = (0.3, 0.25, 0.13, 0.1, 0.08, 0.1, 0.04)
