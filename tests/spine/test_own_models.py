"""A user's own model through the chain: .tflite, float and QDQ ONNX; with and without data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import load_dataset
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import inputs_for, small_net
from tests.spine.support import artifacts, edgekd, make_project, record

pytestmark = pytest.mark.needs("ziglang", "unicorn")
MCU = ("--target", "mcu-sim")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a small .tflite that has nothing to do with any recipe."""
    project = make_project(tmp_path_factory.mktemp("own"))
    (project / "net.tflite").write_bytes(write_tflite(small_net(np.random.default_rng(3))))
    return project


def test_a_tflite_without_data_is_probed(project: Path) -> None:
    found = record(project, "--model", "net.tflite", *MCU, "--samples", "50")
    assert found["model"] == "net.tflite" and found["recipe"] is None and found["bit_exact"] is True
    assert found["accuracy"] is None and found["split"] is None and found["samples"] == 50


def test_a_tflite_with_data_is_scored(project: Path) -> None:
    graph = read_tflite((project / "net.tflite").read_bytes(), "net.tflite")
    x = inputs_for(graph, np.random.default_rng(4), 40)[0]
    np.savez(project / "data.npz", x=x, y=np.arange(40) % 3)
    found = record(project, "--model", "net.tflite", *MCU, "--data", "data.npz")
    assert found["split"] == "user data" and found["samples"] == 40 and 0 <= found["accuracy"] <= 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2, 2, 1), np.int8), "y": np.zeros(3, int)}, "save them in the model's own shape"),
        ({"x": np.zeros((3, 8), np.float32)}, "no array 'y'"),
        ({"x": np.full((3, 8), np.nan, np.float32), "y": np.zeros(3, int)}, "NaN"),
    ],
)
def test_bad_data_is_refused(project: Path, arrays: dict, message: str) -> None:
    np.savez(project / "bad.npz", **arrays)
    done = edgekd(project, "bench", "--model", "net.tflite", *MCU, "--data", "bad.npz")
    assert done.returncode == 3 and message in done.stderr and "Traceback" not in done.stderr


def test_a_tflite_for_a_linux_target_runs_there_as_litert_and_as_c(project: Path) -> None:
    graph = read_tflite((project / "net.tflite").read_bytes(), "net.tflite")
    x = inputs_for(graph, np.random.default_rng(5), 20)[0]
    np.savez(project / "linux.npz", x=x, y=np.arange(20) % 3)
    given = ("--model", "net.tflite", "--target", "linux-local", "--data", "linux.npz")
    found = record(project, *given)
    rows = {row["variant"]: row for row in found["selection"]["candidates"] if row["threads"] == 1}
    assert rows["native"]["golden"]["exact"] and rows["native"]["verdict"] != "out"
    named = record(project, *given, "--variant", "native")
    assert named["bit_exact"] is True and named["variant"]["engine"] == "native"


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_truncated_tflite_is_refused(project: Path, position: float) -> None:
    data = (project / "net.tflite").read_bytes()
    (project / "cut.tflite").write_bytes(data[: int(position * len(data))])
    done = edgekd(project, "bench", "--model", "cut.tflite", *MCU)
    assert done.returncode in (3, 4) and "cut.tflite" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.needs("torch")
def test_float_and_qdq_onnx_enter_where_they_belong(project: Path) -> None:
    made = edgekd(project, "quantize", "--recipe", "quick")
    assert made.returncode == 0, made.stderr
    shutil.copy(artifacts(project)["simplify"][0] / "model.onnx", project / "float.onnx")
    shutil.copy(artifacts(project)["quantize"][0] / "int8.onnx", project / "qdq.onnx")
    dataset = load_dataset(artifacts(project)["dataset"][0])
    (x, y), calibration = dataset.part("test"), dataset.part("calibration")[0]
    np.savez(project / "digits.npz", x=x[:60], y=y[:60], x_calibration=calibration)
    from_float = record(project, "--model", "float.onnx", *MCU, "--data", "digits.npz")
    from_qdq = record(project, "--model", "qdq.onnx", *MCU, "--data", "digits.npz")
    assert from_float["bit_exact"] is True and from_float["accuracy_float"] is not None
    assert from_float["accuracy"] == from_qdq["accuracy"]  # the same calibration split gave both
    assert from_qdq["accuracy_float"] is None
    on_linux = record(project, "--model", "float.onnx", "--target", "linux-local", "--data", "digits.npz")
    assert on_linux["samples"] == 60 and on_linux["latency_us"]["p50"] > 0
    without = edgekd(project, "bench", "--model", "float.onnx", *MCU)
    assert without.returncode == 2 and "x_calibration" in without.stderr


SAMPLES = {"ad01_int8": 50, "kws_ref_model": 30, "pretrainedResnet_quant": 4, "vww_96_int8": 4}


@pytest.mark.shared
@pytest.mark.parametrize("model", sorted(SAMPLES))
def test_the_mlperf_models_give_their_golden_bytes(shared: Path, tmp_path: Path, model: str) -> None:
    folder = shared / "data" / "mlperf_tiny"
    project = make_project(tmp_path)
    path = folder / "models" / f"{model}.tflite"
    graph = read_tflite(path.read_bytes(), model)
    count, tensor = SAMPLES[model], graph.tensors[graph.inputs[0]]
    x = np.fromfile(folder / "golden" / f"{model}.input.bin", np.int8).reshape(-1, *tensor.shape[1:])[:count]
    np.savez(project / "golden.npz", x=x, y=np.zeros(count, int))
    found = record(project, "--model", str(path), *MCU, "--data", "golden.npz")
    golden = np.fromfile(folder / "golden" / f"{model}.output.bin", np.uint8)
    outputs = np.fromfile(artifacts(project)["bench"][0] / "outputs.bin", np.uint8)
    assert found["samples_on_device"] == count and found["bit_exact"] is True
    assert np.array_equal(outputs, golden[: len(outputs)]) and len(outputs) > 0
