"""Folders and zips of images: decoded once, and what is wrong with them is named."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import load_dataset, prepare
from edgekd.data.images import read_images
from edgekd.errors import ArtifactError, ConfigError
from edgekd.recipe import DataParams, Recipe, located

CLASSES = ("cat", "dog", "owl")


def picture(number: int, size: tuple[int, int] = (6, 4), kind: str = "PNG") -> bytes:
    pixels = np.random.Generator(np.random.Philox(number)).integers(0, 256, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def fill(root: Path, train: int = 8, test: int = 2) -> Path:
    """train/<class>/*.png and test/<class>/*.png, every picture another."""
    number = 0
    for split, count in (("train", train), ("test", test)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(picture(number))
                number += 1
    return root


def params(path: Path, **changes: object) -> DataParams:
    base = DataParams("image-folder", str(path), calibration_samples=10, validation_samples=10)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_a_folder_becomes_bytes_in_order(tmp_path: Path) -> None:
    images = read_images(params(fill(tmp_path)))
    assert images.x.shape == (30, 3, 4, 6) and images.x.dtype == np.uint8
    assert images.classes == CLASSES and images.test == 6 and images.unreadable == ()
    assert images.y.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [0, 0, 1, 1, 2, 2]
    with Image.open(tmp_path / "train" / "dog" / "3.png") as image:
        assert np.array_equal(images.x[11], np.asarray(image).transpose(2, 0, 1))


def test_a_zip_is_the_same_as_its_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "images")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
    one, other = read_images(params(folder)), read_images(params(tmp_path / "images.zip"))
    assert np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)


def test_without_a_test_folder_the_test_split_is_drawn(tmp_path: Path) -> None:
    fill(tmp_path / "all", train=12)
    data = params(tmp_path / "all" / "train", test_samples=6)
    out = tmp_path / "out"
    out.mkdir()
    counts = prepare(Recipe("r", "a test", data=data), out)
    assert counts["test_samples"] == 6 and counts["train_samples"] == 10
    assert np.bincount(load_dataset(out).part("test")[1]).tolist() == [2, 2, 2]


def test_the_prepared_set_is_a_map_of_bytes_that_is_fed_centred(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare(Recipe("r", "a test", data=params(fill(tmp_path / "images", train=12))), out)
    data = load_dataset(out)
    assert isinstance(data.x, np.memmap) and data.x.dtype == np.uint8
    assert data.splits["test"].tolist() == list(range(36, 42))
    x, _ = data.part("test")
    assert x.dtype == np.float32 and np.array_equal(x * 64 + 128, data.x[36:].astype(np.float32))


def test_sizes_are_brought_to_one_where_the_recipe_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "train" / "cat" / "9.png").write_bytes(picture(99, (20, 10)))
    with pytest.raises(ArtifactError, match=r"10 x 20 pixels .* set data.size_px"):
        read_images(params(tmp_path))
    assert read_images(params(tmp_path, size_px=5, channels="grey")).x.shape == (31, 1, 5, 5)


def test_unreadable_images_are_listed_and_refused_above_a_share(tmp_path: Path) -> None:
    fill(tmp_path / "images", train=12)
    for name, content in (("a.png", b""), ("b.jpg", picture(99, kind="JPEG")[:200])):
        (tmp_path / "images" / "train" / "cat" / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"2 of 44 images cannot be read .*a.png, .*b.jpg"):
        read_images(params(tmp_path / "images"))
    out = tmp_path / "out"
    out.mkdir()
    data = params(tmp_path / "images", max_unreadable_share=0.1)
    assert prepare(Recipe("r", "a test", data=data), out)["unreadable"] == 2
    assert (out / "unreadable.txt").read_text() == "train/cat/a.png\ntrain/cat/b.jpg\n"


def test_an_image_in_train_and_test_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "test" / "dog" / "x.png").write_bytes((tmp_path / "train" / "cat" / "1.png").read_bytes())
    with pytest.raises(ArtifactError, match=r"train/cat/1.png and test/dog/x.png are the same image"):
        read_images(params(tmp_path))


def test_nothing_one_class_and_a_class_in_one_split_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no images"):
        read_images(params(tmp_path / "empty"))
    (tmp_path / "one" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "train" / "cat" / "a.png").write_bytes(picture(1))
    with pytest.raises(ArtifactError, match=r"has 1 class \(cat\)"):
        read_images(params(tmp_path / "one"))
    fill(tmp_path / "odd")
    (tmp_path / "odd" / "train" / "yak").mkdir()
    (tmp_path / "odd" / "train" / "yak" / "a.png").write_bytes(picture(1))
    with pytest.raises(ArtifactError, match="'yak' is in one of train/ and test/ only"):
        read_images(params(tmp_path / "odd"))


def test_no_folder_and_no_zip(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"are not there; set data.path .* or give --source"):
        read_images(params(tmp_path / "absent"))
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(ArtifactError, match=r"neither a folder nor a readable \.zip"):
        read_images(params(tmp_path / "text.zip"))


def test_a_damaged_zip_member_counts_as_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "i.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(40):
            archive.writestr(f"train/{CLASSES[number % 2]}/{number}.png", picture(number))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 6] ^= 255
    path.write_bytes(raw)
    assert len(read_images(params(path, max_unreadable_share=0.1)).unreadable) == 1


def test_paths_are_the_projects_unless_the_caller_gives_his_own(tmp_path: Path) -> None:
    recipe = Recipe("r", "a test", data=DataParams("image-folder", "images"))
    assert located(recipe, tmp_path).data.path == str(tmp_path / "images")
    assert located(recipe, tmp_path, "/elsewhere").data.path == "/elsewhere"
    with pytest.raises(ConfigError, match=r"names no data\.path"):
        located(Recipe("r", "a test", data=DataParams("image-folder")), tmp_path)
    with pytest.raises(ConfigError, match="brings its own samples"):
        located(Recipe("r", "a test"), tmp_path, "/elsewhere")


@pytest.mark.shared
def test_a_slice_of_the_cifar_jpegs(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "slice.zip"
    with zipfile.ZipFile(shared / "data/cifar10_jpeg.zip") as whole, zipfile.ZipFile(path, "w") as part:
        for name in whole.namelist():
            if int(Path(name).stem) < 3:
                part.writestr(name, whole.read(name))
    images = read_images(params(path))
    assert images.x.shape == (60, 3, 32, 32) and len(images.classes) == 10 and images.test == 30
