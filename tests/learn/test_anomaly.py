"""Anomaly detection from vectors to the emulated core: trained on normal samples, judged by AUC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import api
from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, ConfigError
from edgekd.evaluate.roc import anomaly_scores, auc
from edgekd.learn.knowledge import FILE, read_knowledge
from edgekd.learn.structure import LayerSpec, Structure, autoencoder
from edgekd.learn.student import StudentNet, fold, load_student
from edgekd.learn.torch_tools import initialise, predict
from edgekd.qgraph.edges import dequantize_output, quantize_input, strip_float_edges
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.reference import run
from edgekd.recipe import StudentParams
from edgekd.store import Artifact
from tests.learn.anomaly import anomaly_project, normal, recipe_text
from tests.learn.test_recipes import with_data


def make(folder: Path, stage: str, **options: Any) -> Artifact:
    return api.make(api.request(recipe="anomaly", start=folder, **options), stage)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained without a teacher, to the int8 model."""
    folder = anomaly_project(tmp_path_factory.mktemp("anomaly") / "project", recipe_text())
    make(folder, "quantize")
    return folder


def test_the_autoencoder_is_mlperf_tinys() -> None:
    """264,192 weights, as the reference model's file: 640-128-128-128-128-8-128-128-128-128-640."""
    params = StudentParams(
        "autoencoder", (128, 128, 128, 128, 8, 128, 128, 128, 128), max_weight_bytes=275_000, max_macs=270_000
    )
    structure = autoencoder(params, (640,), 2)
    assert sum(layer.weights for layer in structure.layers) == structure.macs == 264_192
    assert [layer.relu for layer in structure.layers] == [True] * 9 + [False]
    assert structure.reconstructs and Structure.from_json(structure.to_json()) == structure


def test_folding_a_dense_layers_batch_norm_changes_nothing() -> None:
    net = StudentNet(Structure((6,), (LayerSpec("dense", 6, 4, relu=True), LayerSpec("dense", 4, 6))), True)
    initialise(net, 3)
    import torch

    x = np.random.default_rng(0).normal(1, 2, (64, 6)).astype(np.float32)
    for _ in range(5):
        net(torch.from_numpy(x))
    assert np.allclose(predict(net, x), predict(fold(net), x), rtol=1e-5, atol=1e-5)


def test_it_learns_what_is_normal_without_a_teacher(alone: Path) -> None:
    records = api.evaluations(api.request(recipe="anomaly", start=alone))
    assert [(r["metric"], r["samples"]) for r in records] == [("auc", 80)] * 3
    assert records[0]["value"] > 0.9 and records[2]["drop"]["against"] == "distill"
    assert records[2]["value"] > 0.85 and all(r["gate"]["outcome"] != "failed" for r in records)
    header = json.loads((make(alone, "knowledge").path / FILE).read_text())
    assert header["teachers"] == {} and header["shards"] == [] and header["outputs"] == 32
    metrics = make(alone, "distill").metrics
    assert metrics["auc_test"] == pytest.approx(records[0]["value"])
    assert 0 < metrics["error_validation"] < np.square(normal(400, 0)).mean() / 2


def test_the_int8_area_is_of_the_quantized_reconstruction(alone: Path) -> None:
    """By hand: integers in, integers out, dequantized, squared, ranked."""
    x, y = load_dataset(make(alone, "dataset").path).part("test")
    graph = strip_float_edges(load_graph((make(alone, "quantize").path / "int8.onnx").read_bytes(), "m.onnx"))
    outputs = run(graph, [quantize_input(x, graph.tensors[graph.inputs[0]])])[0]
    real = dequantize_output(outputs, graph.tensors[graph.outputs[0]])
    errors = np.square(x.astype(np.float64) - real).mean(axis=1)
    above = np.mean([(a > b) + (a == b) / 2 for a in errors[y == 1] for b in errors[y == 0]])
    record = api.evaluations(api.request(recipe="anomaly", start=alone))[2]
    assert record["value"] == pytest.approx(above) == pytest.approx(auc(y, anomaly_scores(x, real)).value)


@pytest.mark.needs("ziglang", "unicorn")
def test_the_bench_states_areas_and_no_accuracy(alone: Path) -> None:
    record = api.bench(api.request(recipe="anomaly", start=alone, target="mcu-sim"))
    evaluated = api.evaluations(api.request(recipe="anomaly", start=alone))
    assert record["auc"] == pytest.approx(evaluated[2]["value"]) and record["bit_exact"] is True
    assert record["auc_float"] == pytest.approx(evaluated[0]["value"], abs=0.01)
    assert record["accuracy"] is None and record["accuracy_float"] is None


def test_a_larger_autoencoder_may_teach_it(tmp_path: Path) -> None:
    teacher = 'model = "autoencoder"\nepochs = 30\nbatch_samples = 32\nlearning_rate = 0.02\nwidth = 32\n'
    text = recipe_text(hard_share="0.5").replace('model = "none"', teacher + 'augment = { kind = "none" }')
    folder = anomaly_project(tmp_path, text)
    knowledge, data = make(folder, "knowledge"), load_dataset(make(folder, "dataset").path)
    assert knowledge.metrics["teacher_error_train_plain"] < np.square(data.part("train")[0]).mean() / 2
    said = read_knowledge(knowledge.path / FILE, data).read(0, np.arange(5))
    assert said.shape == (5, 32) and make(folder, "teacher").metrics["auc_test"] > 0.8
    assert make(folder, "distill").metrics["auc_test"] > 0.8


def test_low_rank_makes_it_smaller(tmp_path: Path) -> None:
    changes = {"epochs": "4", "channels": "[24, 16, 24]"}
    text = recipe_text(**changes) + '[compress]\nmethods = ["lowrank"]\nenergy = 0.7\nepochs = 2\n'
    folder = anomaly_project(tmp_path, text.replace("max_accuracy_drop = 0.02", "max_accuracy_drop = 1.0"))
    assert make(folder, "compress").metrics["weight_bytes_saved"] > 0
    assert load_student(make(folder, "compress").path).net.structure.reconstructs


def test_vectors_from_a_function(tmp_path: Path) -> None:
    table = 'name = "function"\nfunction = "tests.learn.anomaly:load"\nvectors = true\n'
    table += "calibration_samples = 20\nvalidation_samples = 20\n"
    folder = anomaly_project(tmp_path, with_data(recipe_text(), table))
    assert load_dataset(make(folder, "dataset").path).x.shape == (480, 32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y_test": np.zeros(80, np.int64)}, "every sample is of one class"),
        ({"y": np.arange(400) % 2}, "the train split holds 180 samples that are not of class 0 (0)"),
        ({"y_test": np.ones(80, np.int64)}, "the test split holds only 1; AUC needs normal (0) and abnormal"),
        ({"y_test": np.arange(80) % 3}, "the test split holds the classes 0, 1, 2; AUC needs two"),
        ({"x_test": np.ones((80, 31))}, "test samples differ from the others in shape"),
        ({"y_test": np.arange(79) % 2}, "x_test has shape (80, 32) and y_test (79,)"),
    ],
)
def test_samples_that_do_not_fit_are_one_sentence(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    folder = anomaly_project(tmp_path, recipe_text(epochs="1"), **arrays)
    with pytest.raises(ArtifactError) as caught:
        make(folder, "distill")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    folder = anomaly_project(tmp_path, recipe_text())
    np.savez(folder / "anomaly.npz", x=normal(50, 0))
    with pytest.raises(ArtifactError, match="has no array 'y'"):
        make(folder, "dataset")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("vectors = true", "vectors = false", "needs data.vectors = true"),
        ('metric = "auc"', 'metric = "accuracy"', 'needs gate.metric = "auc"'),
        ('loss = "mse"', 'loss = "hard"', "needs distill.loss mse, mae, huber, not hard"),
        ("hard_share = 1.0", "hard_share = 0.5", "mse compares with a teacher, and teacher.model is none"),
        ('augment = { kind = "none" }\n\n[student]', "\n[student]", "augment = { kind = "),
        ('model = "autoencoder"', 'model = "ds-cnn"', 'needs student.model = "autoencoder"'),
        ('model = "none"', 'model = "resnet20"', 'needs augment = { kind = "none" }'),
        (
            'model = "none"',
            'model = "resnet20"\naugment = { kind = "none" }',
            'needs teacher.model "autoencoder" or "none"',
        ),
    ],
)
def test_a_recipe_that_does_not_hold_together_is_one_sentence(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = recipe_text()
    assert text.count(old) >= 1
    head, _, tail = text.rpartition(old)
    folder = anomaly_project(tmp_path, head + new + tail)
    with pytest.raises(ConfigError) as caught:
        make(folder, "dataset")
    assert said in str(caught.value) and "anomaly.toml" in str(caught.value)
