"""Splits that never mix: stratified draws without replacement, decided by integers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.data.randomness import permutation
from edgekd.errors import ConfigError

Ids = npt.NDArray[np.int64]

SPLITS = ("train", "calibration", "validation", "test")

# The test split of a data set is the same in every recipe: its draw uses this seed, not the recipe's.
TEST_SEED = 20_240_229


def make_splits(
    y: npt.NDArray[np.int64], *, test: int | Ids, calibration: int, validation: int, seed: int
) -> dict[str, Ids]:
    """Sorted, disjoint id arrays named as SPLITS whose union is every id of `y` int64 [N].

    test: how many to draw, or the ids themselves where the data set fixes them. Each drawn split has exactly
    the size asked for and each class in proportion, to one sample. Raises ConfigError when fewer than one
    sample a class would be left to train on.
    """
    classes = int(y.max()) + 1
    tests = test if isinstance(test, int) else len(test)
    if tests + calibration + validation > len(y) - classes:
        raise ConfigError(
            f"data: {tests} test, {calibration} calibration and {validation} validation samples leave "
            f"fewer than {classes} of {len(y)} to train on; ask for fewer"
        )
    rest = np.arange(len(y), dtype=np.int64)
    splits: dict[str, Ids] = {}
    draws = (("test", test, TEST_SEED), ("calibration", calibration, seed), ("validation", validation, seed))
    for name, count, draw_seed in draws:
        drawn = _stratified(y, rest, count, draw_seed, name) if isinstance(count, int) else np.sort(count)
        splits[name] = drawn
        rest = np.setdiff1d(rest, drawn, assume_unique=True)
    splits["train"] = rest
    return {name: splits[name] for name in SPLITS}


def _stratified(y: npt.NDArray[np.int64], ids: Ids, count: int, seed: int, purpose: str) -> Ids:
    """`count` of `ids`, sorted: each class by largest remainder of its share."""
    shuffled = ids[permutation(seed, f"split-{purpose}", count=len(ids))]
    members = [shuffled[y[shuffled] == c] for c in range(int(y.max()) + 1)]
    whole = [len(m) * count // len(ids) for m in members]
    remainder = [len(m) * count % len(ids) for m in members]
    for c in sorted(range(len(members)), key=lambda c: (-remainder[c], c))[: count - sum(whole)]:
        whole[c] += 1
    return np.sort(np.concatenate([m[:n] for m, n in zip(members, whole, strict=True)]))
