"""Samples from .npz files, CSV recordings and a user's function; each mistake is one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data.arrays import read_arrays, read_function, read_windows
from edgekd.errors import ArtifactError, ConfigError, EdgekdError

X = np.arange(60, dtype=np.float32).reshape(6, 2, 5)
Y = np.array([0, 1, 2, 0, 1, 2])


def saved(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


@pytest.mark.parametrize(
    ("shape", "channels_last", "becomes"),
    [
        ((6, 10), False, (6, 1, 1, 10)),
        ((6, 2, 5), False, (6, 1, 2, 5)),
        ((6, 2, 5, 1), True, (6, 1, 2, 5)),
        ((6, 1, 2, 5), False, (6, 1, 2, 5)),
    ],
)
def test_every_shape_becomes_channels_height_width(
    tmp_path: Path, shape: tuple[int, ...], channels_last: bool, becomes: tuple[int, ...]
) -> None:
    found = read_arrays(saved(tmp_path, x=X.reshape(shape), y=Y), channels_last=channels_last)
    assert found.x.shape == becomes and found.x.dtype == np.float32
    assert found.x.ravel().tolist() == X.ravel().tolist() and found.test == 0
    assert found.classes == ("0", "1", "2") and found.y.tolist() == Y.tolist()


def test_channels_move_with_their_pixels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    found = read_arrays(saved(tmp_path, x=x, y=Y), channels_last=True)
    assert found.x.dtype == np.uint8 and np.array_equal(found.x, x.transpose(0, 3, 1, 2))


def test_int8_features_are_what_uint8_pixels_would_be(tmp_path: Path) -> None:
    x = np.array([[-128, 0], [127, 64], [1, 2]], np.int8)
    found = read_arrays(saved(tmp_path, x=x, y=Y[:3]), channels_last=False)
    assert found.x.ravel().tolist() == [-2, 0, 127 / 64, 1, 1 / 64, 2 / 64]


def test_names_and_a_test_split_of_its_own(tmp_path: Path) -> None:
    names = np.array(["up", "down", "up", "left", "down", "left"])
    path = saved(tmp_path, x=X, y=names, x_test=X[:2] + 100, y_test=names[:2])
    found = read_arrays(path, channels_last=False)
    assert found.classes == ("down", "left", "up") and found.test == 2
    assert found.y.tolist() == [2, 0, 2, 1, 0, 1, 2, 0] and len(found.x) == 8
    numbered = read_arrays(saved(tmp_path, x=X, y=Y, classes=np.array(["a", "b", "c"])), channels_last=False)
    assert numbered.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "has no array 'y' (it has x)"),
        ({"x": X, "y": Y[:4]}, "x has shape (6, 2, 5) and y (4,)"),
        ({"x": X[:0], "y": Y[:0]}, "they must be [N, ...] and [N]"),
        ({"x": X, "y": Y, "x_test": X}, "only one of x_test and y_test"),
        ({"x": X, "y": Y, "x_test": X[:2], "y_test": Y[:2]}, "test sample 0 is a training sample, too"),
        ({"x": X, "y": Y, "x_test": X[:2, :1] + 99, "y_test": Y[:2]}, "differ from the others in shape"),
        ({"x": X, "y": Y, "x_test": X[:1] + 99, "y_test": np.array(["a"])}, "or kind of label"),
        ({"x": X, "y": Y * 0}, "every sample is of one class"),
        ({"x": X, "y": Y - 1}, "y holds -1; class numbers start at 0"),
        ({"x": X, "y": Y, "classes": np.array(["a"])}, "y holds class 2 and there are 1 class names"),
        ({"x": X, "y": Y.astype(float)}, "kind of label"),
        ({"x": np.array(["a"] * 6), "y": Y}, "give numbers"),
        ({"x": np.where(X == 30, np.nan, X), "y": Y}, "NaN or infinity (first in sample 3)"),
    ],
)
def test_a_mistake_in_an_npz_is_one_sentence(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_arrays(saved(tmp_path, **arrays), channels_last=False)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_npz_of_python_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a readable npz of plain arrays"):
        read_arrays(saved(tmp_path, x=np.array([{}] * 6, object), y=Y), channels_last=False)


def recording(path: Path, labels: str, start: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{start + i},{-i},{label}" for i, label in enumerate(labels)]
    path.write_text("ax, ay,label\n" + "\n".join(rows) + "\n")


def test_windows_lie_within_one_label(tmp_path: Path) -> None:
    recording(tmp_path / "walk.csv", "wwwwwssssw")
    found = read_windows(tmp_path / "walk.csv", label="label", rows=2, step=2)
    assert found.x.shape == (4, 1, 2, 2) and found.classes == ("s", "w")
    assert found.x[:, 0, 0, 0].tolist() == [0, 2, 5, 7] and found.y.tolist() == [1, 1, 0, 0]
    assert found.x[1, 0].tolist() == [[2, -2], [3, -3]]


def test_folders_of_recordings_fix_the_test_split(tmp_path: Path) -> None:
    recording(tmp_path / "train" / "a.csv", "wwwwss")
    recording(tmp_path / "test" / "b.csv", "sswww", start=50)
    found = read_windows(tmp_path, label="label", rows=2, step=1)
    assert found.test == 3 and len(found.x) == 7
    assert found.x[-3:, 0, 0, 0].tolist() == [50, 52, 53]


@pytest.mark.parametrize(
    ("text", "step", "said"),
    [
        ("ax,label\n1,w\n2,w\n3,s\n4,s\n", 1, "overlapping windows of one recording"),
        ("ax,class\n1,w\n", 2, "has no column 'label' (it has ax, class)"),
        ("", 2, "has no column 'label' (it has nothing)"),
        ("ax,label\n1,w\nx,w\n", 2, "line 3: could not convert string to float: 'x'"),
        ("ax,label\n1,w\n2\n", 2, "line 3"),
        ("ax,label\n1,w\n2,s\n3,w\n", 2, "holds no 2 rows in a row with one 'label'"),
        ("ax,label\n1,w\n2,w\n3,w\n4,w\n", 2, "every sample is of one class"),
        ("ax,label\n1,w\n2,w\nnan,s\n4,s\n", 2, "NaN or infinity (first in sample 1)"),
    ],
)
def test_a_mistake_in_a_recording_is_one_sentence(tmp_path: Path, text: str, step: int, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(EdgekdError) as caught:
        read_windows(tmp_path / "a.csv", label="label", rows=2, step=step)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_folders_without_recordings_or_with_other_columns(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no \.csv file"):
        read_windows(tmp_path, label="label", rows=2, step=2)
    recording(tmp_path / "a.csv", "wwss")
    (tmp_path / "b.csv").write_text("ax,label\n1,w\n")
    with pytest.raises(ArtifactError, match=r"b\.csv has the columns ax; others have ax, ay"):
        read_windows(tmp_path, label="label", rows=2, step=2)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="not a readable CSV file"):
        read_windows(tmp_path, label="label", rows=2, step=2)


MODULE = """
import numpy as np
def pair():
    return np.ones((4, 3)) * np.arange(4)[:, None], [0, 1, 0, 1]
def table():
    x, y = pair()
    words = np.array(["a", "b", "a", "b"])
    return {"x": x, "y": words, "x_test": x + 9, "y_test": words[::-1]}
def broken():
    raise KeyError("no such recording")
def nothing():
    return None
number = 3
"""


def test_a_function_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "my_samples_a.py").write_text(MODULE)
    before = list(sys.path)
    found = read_function("my_samples_a:pair", tmp_path, channels_last=False)
    assert found.x.shape == (4, 1, 1, 3) and found.y.tolist() == [0, 1, 0, 1]
    table = read_function("my_samples_a:table", tmp_path, channels_last=False)
    assert table.classes == ("a", "b") and table.test == 4
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("my_samples_b", ConfigError, "names no function; write it as package.module:function"),
        ("no_such_module_here:f", ConfigError, "No module named 'no_such_module_here'"),
        ("my_samples_b:absent", ConfigError, "has no function 'absent'"),
        ("my_samples_b:number", ConfigError, "has no function 'number'"),
        ("my_samples_b:broken", ArtifactError, "raised KeyError: 'no such recording'; mend it"),
        ("my_samples_b:nothing", ArtifactError, "returned NoneType; it must return (x, y) or a dict"),
        ("my_samples_broken:f", ConfigError, "importing my_samples_broken raised ZeroDivisionError"),
    ],
)
def test_a_function_that_does_not_work_is_said(
    tmp_path: Path, name: str, kind: type[EdgekdError], said: str
) -> None:
    (tmp_path / "my_samples_b.py").write_text(MODULE)
    (tmp_path / "my_samples_broken.py").write_text("1 / 0\n")
    with pytest.raises(kind) as caught:
        read_function(name, tmp_path, channels_last=False)
    assert said in str(caught.value) and "\n" not in str(caught.value)
