"""Splits are disjoint, whole, stratified, and the test split never moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.data.splits import SPLITS, make_splits
from edgekd.errors import ConfigError


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_splits_never_mix_and_lose_nothing(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 6))
    y = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=40, max_size=300)))
    y[:classes] = np.arange(classes)
    sizes = [data.draw(st.integers(0, len(y) // 4)) for _ in range(3)]
    seed = data.draw(st.integers(0, 2**32 - 1))
    splits = make_splits(y, test=sizes[0], calibration=sizes[1], validation=sizes[2], seed=seed)
    assert tuple(splits) == SPLITS
    together = np.concatenate(list(splits.values()))
    assert np.array_equal(np.sort(together), np.arange(len(y)))
    assert [len(splits[n]) for n in ("test", "calibration", "validation")] == sizes


def test_each_class_has_its_share() -> None:
    y = np.repeat(np.arange(4), [400, 200, 100, 100])
    test = make_splits(y, test=80, calibration=40, validation=40, seed=3)["test"]
    assert np.bincount(y[test]).tolist() == [40, 20, 10, 10]


def test_the_test_split_does_not_depend_on_the_seed() -> None:
    y = np.arange(500) % 10
    first, second = (make_splits(y, test=100, calibration=50, validation=50, seed=s) for s in (1, 2))
    assert np.array_equal(first["test"], second["test"])
    assert not np.array_equal(first["calibration"], second["calibration"])


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave fewer than 10 of 100 to train on"):
        make_splits(np.arange(100) % 10, test=50, calibration=30, validation=15, seed=0)
