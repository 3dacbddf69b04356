"""Random numbers that are the same on every machine and in every numpy: raw Philox words, integers only.

A stream is named by a seed, a purpose and counters; two purposes never share a stream, so the
teacher's own augmentation cannot meet the views that its knowledge is stored for.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def stream(seed: int, purpose: str, *counters: int) -> np.random.Philox:
    """The Philox 4x64 bit generator whose key is the first 16 bytes of sha256("purpose:seed:counter:...")."""
    text = ":".join([purpose, str(seed), *map(str, counters)])
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u8").astype(np.uint64)
    return np.random.Philox(key=key)


def words(seed: int, purpose: str, *counters: int, count: int) -> npt.NDArray[np.uint64]:
    """`count` uniform 64-bit words of that stream."""
    return np.asarray(stream(seed, purpose, *counters).random_raw(count), np.uint64)


def permutation(seed: int, purpose: str, *counters: int, count: int) -> npt.NDArray[np.int64]:
    """A random order of 0 .. count-1."""
    return np.argsort(words(seed, purpose, *counters, count=count), kind="stable").astype(np.int64)


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """A seed for a `torch.Generator`: 63 bits of that stream."""
    return int(words(seed, purpose, *counters, count=1)[0] >> np.uint64(1))
