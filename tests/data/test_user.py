"""A user's npz: what is accepted, and one clear sentence for each way it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data import load_user_data
from edgekd.errors import ArtifactError

X, Y = np.zeros((4, 1, 8, 8), np.float32), np.arange(4)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_float64_is_taken_as_float32_and_calibration_is_kept(tmp_path: Path) -> None:
    data = load_user_data(save(tmp_path / "d.npz", x=X.astype(np.float64), y=Y, x_calibration=X[:2]))
    assert data.x.dtype == np.float32 and data.y.dtype == np.int64
    assert data.x_calibration is not None and data.x_calibration.shape == (2, 1, 8, 8)


def test_int8_samples_stay_integers(tmp_path: Path) -> None:
    data = load_user_data(save(tmp_path / "d.npz", x=X.astype(np.int8), y=Y))
    assert data.x.dtype == np.int8 and data.x_calibration is None


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "has no array 'y'"),
        ({"images": X, "y": Y}, "has no array 'x' (it has images, y)"),
        ({"x": X, "y": Y[:3]}, "x has 4 samples and y 3"),
        ({"x": X, "y": Y.astype(float)}, "y is float64"),
        ({"x": X, "y": Y - 1}, "class numbers start at 0"),
        ({"x": np.where(X == 0, np.nan, X), "y": Y}, "x holds NaN or infinity (first in sample 0)"),
        ({"x": np.array(["a"] * 4), "y": Y}, "x has shape (4,)"),
        ({"x": np.array([["a"]] * 4), "y": Y}, "x is <U1"),
        ({"x": X[:0], "y": Y[:0]}, "one sample at least"),
        ({"x": X, "y": Y, "x_calibration": X[:, :, :4]}, "they must be equal"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_user_data(save(tmp_path / "d.npz", **arrays))
    assert said in str(caught.value) and "d.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_not_an_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"d\.npz"):
        load_user_data(path)


def test_a_single_array_a_pickle_and_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ArtifactError, match="single array"):
        load_user_data(tmp_path / "one.npy")
    with pytest.raises(ArtifactError, match="plain arrays"):
        load_user_data(save(tmp_path / "objects.npz", x=np.array([{}, {}], object), y=Y))
    with pytest.raises(ArtifactError, match="does not exist"):
        load_user_data(tmp_path / "absent.npz")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "d.npz", x=X, y=Y).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            load_user_data(path)
