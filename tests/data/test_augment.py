"""Augmented views: exact, replayable, independent of their neighbours, and what their name says."""

from __future__ import annotations

import hashlib

import numpy as np

from edgekd.data.augment import augmented, view_of, views_checksum
from edgekd.data.pixels import as_floats
from edgekd.data.randomness import permutation, words
from edgekd.recipe import AugmentParams

IDS = np.array([3, 7, 8, 40])
X = (np.arange(4 * 64).reshape(4, 1, 8, 8) % 17 / 16).astype(np.float32)
PARAMS = AugmentParams(shift_px=1.0, rotation_deg=12.0)


def test_view_zero_is_plain_and_others_differ() -> None:
    assert np.array_equal(view_of(X, IDS, PARAMS, seed=1, view=0), X)
    assert not np.array_equal(view_of(X, IDS, PARAMS, seed=1, view=1), X)


def test_a_sample_does_not_depend_on_the_others() -> None:
    every = view_of(X, IDS, PARAMS, seed=1, view=5)
    alone = view_of(X[2:3], IDS[2:3], PARAMS, seed=1, view=5)
    assert np.array_equal(every[2:3], alone)


def test_seed_view_and_purpose_each_give_another_view() -> None:
    views = [
        augmented(X, IDS, PARAMS, seed=s, purpose=p, view=v)
        for s, p, v in (
            (1, "knowledge-view", 1),
            (2, "knowledge-view", 1),
            (1, "knowledge-view", 2),
            (1, "teacher-view", 1),
        )
    ]
    assert len({view.tobytes() for view in views}) == 4


def test_the_pixels_are_the_published_ones() -> None:
    """A change here breaks every knowledge file: it needs another augmentation name."""
    view = view_of(X, IDS, PARAMS, seed=1, view=3)
    assert hashlib.sha256(view.astype("<f4").tobytes()).hexdigest()[:16] == GOLDEN
    assert view.dtype == np.float32 and view.min() >= 0 and view.max() <= 1


def test_no_shift_and_no_rotation_is_the_identity() -> None:
    still = AugmentParams(shift_px=0.0, rotation_deg=0.0)
    assert np.array_equal(view_of(X, IDS, still, seed=1, view=1), X)


def test_a_shift_moves_pixels_and_fills_with_zeros() -> None:
    image = np.zeros((1, 1, 8, 8), np.float32)
    image[0, 0, 4, 4] = 1
    shifted = [view_of(image, np.array([i]), AugmentParams(3.0, 0.0), seed=1, view=1) for i in range(50)]
    rows = {int(v[0, 0].sum(axis=1).argmax()) for v in shifted}
    assert len(rows) >= 4 and all(abs(float(v.sum()) - 1) < 0.02 for v in shifted)


def test_rectangular_images_with_channels_keep_their_shape() -> None:
    x = np.ones((4, 3, 5, 9), np.float32)
    assert view_of(x, IDS, PARAMS, seed=1, view=1).shape == x.shape


def test_the_checksum_sees_a_changed_seed_and_count() -> None:
    sums = {views_checksum(X, IDS, PARAMS, seed=s, views=v) for s, v in ((1, 4), (2, 4), (1, 5))}
    assert len(sums) == 3


def test_the_words_are_philox_and_never_change() -> None:
    assert [int(w) for w in words(7, "a-purpose", 2, count=2)] == WORDS
    assert sorted(permutation(7, "p", count=100).tolist()) == list(range(100))


GOLDEN = "308a754b35468036"
WORDS = [11619285757607169092, 1784177381322799252]


CROP = AugmentParams(kind="crop-flip", pad_px=2)
IMAGES = np.arange(4 * 3 * 5 * 6, dtype=np.uint8).reshape(4, 3, 5, 6)


def test_crop_and_flip_move_whole_pixels_by_the_documented_words() -> None:
    """docs/formats/knowledge.md, by hand: shift, then mirror, byte 128 beyond the edge."""
    view = view_of(IMAGES, IDS, CROP, seed=3, view=2)
    for row, sample in enumerate(IDS):
        unit = words(3, "knowledge-view", 2, count=4 * (int(sample) + 1))[-4:] >> np.uint64(32)
        down, right = (((int(u) * 5) >> 32) - 2 for u in unit[:2])
        expected = np.full((3, 5, 6), 128, np.uint8)
        for y in range(5):
            for x in range(6):
                if 0 <= y - down < 5 and 0 <= x - right < 6:
                    expected[:, y, x] = IMAGES[row][:, y - down, x - right]
        if int(unit[2]) & 1:
            expected = expected[:, :, ::-1]
        assert np.array_equal(view[row] * 64 + 128, expected.astype(np.float32))


def test_any_subset_gives_the_same_crops() -> None:
    every = view_of(IMAGES, IDS, CROP, seed=3, view=2)
    for part in ([2], [3, 1], [0, 1, 2, 3]):
        some = view_of(IMAGES[part], IDS[part], CROP, seed=3, view=2, population=500)
        assert np.array_equal(some, every[part])


def test_floats_are_cropped_as_bytes_are() -> None:
    floats = as_floats(IMAGES)
    assert np.array_equal(
        view_of(floats, IDS, CROP, seed=3, view=2), view_of(IMAGES, IDS, CROP, seed=3, view=2)
    )


def test_no_augmentation_is_the_plain_sample() -> None:
    none = AugmentParams(kind="none")
    assert np.array_equal(view_of(IMAGES, IDS, none, seed=1, view=4), as_floats(IMAGES))


def test_crop_flip_never_changes() -> None:
    digest = views_checksum(IMAGES, IDS, CROP, seed=7, views=6)
    assert digest.startswith(CROP_GOLDEN)


CROP_GOLDEN = "879487e7aa474c01"
