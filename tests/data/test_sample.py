"""One sample from a file: what each kind becomes, and what does not fit."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edgekd.data.sample import read_sample
from edgekd.errors import ArtifactError, ConfigError
from edgekd.recipe import DataParams

SHAPE = (1, 1, 4, 4)
VALUES = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16


def test_arrays_by_themselves_or_as_the_first_of_many(tmp_path: Path) -> None:
    for name, array in (("one", VALUES), ("many", np.stack([VALUES, VALUES + 1])), ("flat", VALUES.ravel())):
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(read_sample(tmp_path / f"{name}.npy", SHAPE, None), VALUES[None])
    np.savez(tmp_path / "data.npz", x=np.stack([VALUES, VALUES]), y=[1, 2])
    assert np.array_equal(read_sample(tmp_path / "data.npz", SHAPE, None), VALUES[None])


def test_stored_bytes_are_what_the_model_learnt_from(tmp_path: Path) -> None:
    pixels = np.arange(0, 256, 16, dtype=np.uint8).reshape(1, 4, 4)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "int8.npy", (pixels.astype(int) - 128).astype(np.int8))
    expected = ((pixels.astype(np.float32) - 128) / 64)[None]
    for name in ("pixels.npy", "int8.npy"):
        assert np.array_equal(read_sample(tmp_path / name, SHAPE, None), expected)


def test_channels_last_as_the_recipe_says(tmp_path: Path) -> None:
    image = np.random.default_rng(1).random((4, 4, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    params = DataParams(name="npz", path="x", channels_last=True)
    assert np.array_equal(read_sample(tmp_path / "x.npy", (1, 3, 4, 4), params)[0], np.moveaxis(image, -1, 0))


def test_images_as_the_data_set_has_them(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = (np.indices((8, 12)).sum(axis=0) * 8).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "grey.png")
    digit = read_sample(tmp_path / "grey.png", SHAPE, DataParams())
    assert digit.shape == SHAPE and 0 <= digit.min() < digit.max() <= 1
    folder = read_sample(tmp_path / "grey.png", (1, 3, 4, 4), DataParams(name="image-folder", path="x"))
    assert folder.shape == (1, 3, 4, 4) and np.array_equal(folder[:, 0], folder[:, 2]) and folder.min() < 0


def test_rows_and_sound(tmp_path: Path) -> None:
    text = "a,label,b\n" + "".join(f"{row},walk,{row + 0.5}\n" for row in range(8))
    (tmp_path / "rows.csv").write_text(text)
    params = DataParams(name="csv", path="x", window_rows=8)
    found = read_sample(tmp_path / "rows.csv", (1, 1, 8, 2), params)
    assert found[0, 0, 3].tolist() == [3.0, 3.5]
    with wave.open(str(tmp_path / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.arange(16, dtype="<i2").tobytes())
    assert read_sample(tmp_path / "tone.wav", (1, 16), None)[0, 3] == 3 / 32768
    with pytest.raises(ArtifactError, match=r"16 samples of sound .* save \.npy"):
        read_sample(tmp_path / "tone.wav", (1, 49, 10), None)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("gone.npy", None, ArtifactError, "no such file"),
        ("model.onnx", b"x", ConfigError, "not .onnx"),
        ("plain", b"x", ConfigError, "not no suffix"),
        ("noise.npy", b"noise", ArtifactError, "not a readable .npy file"),
        ("noise.npz", b"noise", ArtifactError, "noise.npz"),
        ("noise.png", b"noise", ArtifactError, "not a readable image"),
        ("noise.wav", b"noise", ArtifactError, "not a readable .wav file"),
        ("word.csv", b"1,2\n3,four\n", ArtifactError, "line 2: 'four' is no number"),
        ("ragged.csv", b"1,2\n3\n", ArtifactError, "1 to 2 numbers"),
        ("short.csv", b"1,2\n3,4\n", ArtifactError, "4 values of shape (2, 2) and the model takes (1, 4, 4)"),
        ("empty.csv", b"", ArtifactError, "0 values"),
        ("nan.csv", b"nan," * 15 + b"1\n", ArtifactError, "NaN or infinity"),
    ],
)
def test_what_is_no_sample(
    tmp_path: Path, name: str, content: bytes | None, kind: type[Exception], message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind) as error:
        read_sample(path, SHAPE, DataParams())
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_image_for_a_model_of_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for params, shape in ((None, SHAPE), (DataParams(name="npz", path="x"), SHAPE), (DataParams(), (1, 64))):
        with pytest.raises(ConfigError, match=r"save the sample as \.npy"):
            read_sample(tmp_path / "a.png", shape, params)
