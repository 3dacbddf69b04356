"""The Linux bundle: what is in it, that it is whole, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError, EdgekdError
from edgekd.export.linux import NAME, bundle_name, read_bundle, write_bundle
from edgekd.export.onnx_session import run_onnx
from edgekd.quantize.activation import uint8_variant
from tests.device.support import conv_net, quantized


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of write_bundle that work."""
    x = np.random.default_rng(3).normal(size=(12, 1, 8, 8)).astype(np.float32)
    float_onnx = conv_net(3)
    return {
        "name": "net",
        "float_onnx": float_onnx,
        "int8_onnx": quantized(float_onnx, x, tmp_path_factory.mktemp("net")),
        "activation": "int8",
        "labels": [str(i) for i in range(10)],
        "samples_x": x,
        "samples_y": run_onnx(float_onnx, x).argmax(1),
        "split": "test",
        "golden_count": 5,
        "preprocessing": {"scale": 0.0625},
    }


def test_a_bundle_holds_everything_and_reads_back(tmp_path: Path, parts: dict[str, Any]) -> None:
    table = write_bundle(tmp_path / "b", **parts)
    assert read_bundle(tmp_path / "b") == json.loads((tmp_path / "b" / "bundle.json").read_text()) == table
    assert set(table["files"]) | {"bundle.json"} == set(os.listdir(tmp_path / "b"))
    assert table["split"] == "test" and table["preprocessing"] == {"scale": 0.0625}
    assert table["input"] == {"shape": [1, 1, 8, 8], "dtype": "float32", "layout": "NCHW"}
    for variant, activation in (("int8", "int8"), ("float", "float32")):
        entry = table["variants"][variant]
        golden = np.load(tmp_path / "b" / entry["golden"]["file"], allow_pickle=False)
        expected = run_onnx(parts[f"{variant}_onnx"], parts["samples_x"][:5])
        assert entry["activation"] == activation and np.array_equal(golden, expected)
    golden = np.load(tmp_path / "b" / "golden_int8.npy")
    steps = golden / table["variants"]["int8"]["golden"]["step"]
    assert np.abs(steps - steps.round()).max() < 1e-3  # the step is the output's own


def test_the_same_parts_give_the_same_bytes(tmp_path: Path, parts: dict[str, Any]) -> None:
    write_bundle(tmp_path / "a", **parts)
    (tmp_path / "b").mkdir()  # an empty directory is filled
    write_bundle(tmp_path / "b", **parts)
    subprocess.run(["diff", "-r", tmp_path / "a", tmp_path / "b"], check=True)


def test_uint8_activations_and_no_float_and_no_labels(tmp_path: Path, parts: dict[str, Any]) -> None:
    changes = {"int8_onnx": uint8_variant(parts["int8_onnx"]), "activation": "uint8", "float_onnx": None}
    table = write_bundle(tmp_path / "b", **{**parts, **changes, "samples_y": None, "labels": None})
    assert list(table["variants"]) == ["int8"] and table["variants"]["int8"]["activation"] == "uint8"
    assert table["samples"]["y"] is None and table["labels"] is None
    x = parts["samples_x"]
    difference = np.abs(run_onnx(changes["int8_onnx"], x) - run_onnx(parts["int8_onnx"], x))
    assert difference.max() <= table["variants"]["int8"]["golden"]["step"] * 1.001


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "Net/1"}, ConfigError, "lower case"),
        ({"activation": "uint8"}, ArtifactError, "int8 activations, not uint8"),
        ({"activation": "int16"}, ConfigError, "use int8 or uint8"),
        ({"int8_onnx": b"\xff\xffnonsense"}, ArtifactError, "not valid ONNX"),
        ({"int8_onnx": conv_net(3)}, ArtifactError, "no quantized activations"),
        ({"float_onnx": b""}, ArtifactError, "ONNX"),
        ({"float_onnx": conv_net(3, side=9)}, ArtifactError, "give samples of its shape"),
        ({"samples_x": np.zeros((4, 1, 8, 8))}, ArtifactError, "float32"),
        ({"samples_x": np.zeros((0, 1, 8, 8), np.float32)}, ArtifactError, "N >= 1"),
        ({"samples_x": np.full((12, 1, 8, 8), np.nan, np.float32)}, ArtifactError, "not finite"),
        ({"samples_y": np.zeros(3, np.int64)}, ArtifactError, "integers"),
        ({"samples_y": np.zeros(12)}, ArtifactError, "integers"),
        ({"golden_count": 13}, ArtifactError, "from 1 to 12"),
        ({"preprocessing": {"scale": np.float32(1)}}, ArtifactError, "JSON"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, parts: dict[str, Any], changes: dict[str, Any], error: type[EdgekdError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        write_bundle(tmp_path / "b", **{**parts, **changes})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("net", "net"),
        ("ResNet 8 (best)", "resnet-8-best"),
        ("../x", "x"),
        ("Ü", "model"),
        ("a" * 80, "a" * 64),
    ],
)
def test_any_text_makes_a_name(text: str, name: str) -> None:
    assert bundle_name(text) == name and NAME.fullmatch(name)


def test_a_bundle_is_never_written_over(tmp_path: Path, parts: dict[str, Any]) -> None:
    write_bundle(tmp_path / "b", **parts)
    with pytest.raises(ArtifactError, match="never changed"):
        write_bundle(tmp_path / "b", **parts)
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="file"):
        write_bundle(tmp_path / "file" / "b", **parts)


@pytest.mark.parametrize(
    "name", ["bundle.json", "int8.onnx", "float.onnx", "samples_x.npy", "golden_int8.npy"]
)
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_harmed_file_is_named(tmp_path: Path, parts: dict[str, Any], name: str, harm: str) -> None:
    write_bundle(tmp_path / "b", **parts)
    path = tmp_path / "b" / name
    data = path.read_bytes()
    middle = len(data) // 2
    changed = {
        "flip": data[:middle] + bytes([data[middle] ^ 0x80]) + data[middle + 1 :],
        "truncate": data[:middle],
        "empty": b"",
    }
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(changed[harm])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        read_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    "change", [{"schema": 1}, {"kind": "other"}, {"files": {"../x": {}}}, {"files": 3}, {"name": 4}]
)
def test_a_table_that_is_none_of_ours(tmp_path: Path, parts: dict[str, Any], change: dict[str, Any]) -> None:
    table = write_bundle(tmp_path / "b", **parts)
    (tmp_path / "b" / "bundle.json").write_text(json.dumps({**table, **change}))
    with pytest.raises(ArtifactError, match=r"bundle\.json"):
        read_bundle(tmp_path / "b")
