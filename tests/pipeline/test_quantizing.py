"""The stage that makes integers, trained and with bits by layer, through the graph of stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgekd import api
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import graph_of

TEXT = (
    'name = "{}"\ndescription = "mechanics"\nseed = 5\n[teacher]\nwidth = 8\nepochs = 1\n[knowledge]\n'
    "views = 2\n[student]\nchannels = [8, 16]\nstrides = [2, 1]\n[distill]\nepochs = 2\n"
    "[gate]\nmax_accuracy_drop = 1.0\n[quantize]\n"
)


def asked(project: Path, name: str, text: str, channels: str = "[8, 16]") -> Request:
    (project / "recipes").mkdir(exist_ok=True)
    (project / ".edgekd").mkdir(exist_ok=True)
    (project / "recipes" / f"{name}.toml").write_text(TEXT.format(name).replace("[8, 16]", channels) + text)
    return api.request(recipe=name, start=project)


def test_a_trained_model_with_bits_by_layer(tmp_path: Path) -> None:
    text = 'method = "qat"\nepochs = 1\nmax_weight_bytes = 400\nbias_guard = true\n'
    request = asked(tmp_path, "trained", text)
    made = api.make(request, "quantize")
    assert sorted(made.manifest["inputs"]) == ["data", "knowledge", "model", "samples", "student"]
    assert {"seed", "distill", "max_weight_bytes"} <= set(made.manifest["params"])
    said = json.loads((made.path / "sensitivity.json").read_text("utf-8"))
    bits = made.metrics["bits"]
    assert said["chosen_bits"] == bits and min(bits.values()) < 8
    graph = graph_of(made)
    weights = [t for t in graph.tensors if t.data is not None and t.dtype == "int8"]
    assert len(weights) == len(bits)
    for tensor, (layer, wanted) in zip(weights, bits.items(), strict=True):
        assert layer in tensor.name and tensor.data is not None
        assert (tensor.encoding.stored_bits if tensor.encoding else 8) == wanted
        assert wanted == 8 or len(np.unique(tensor.data)) <= 1 << wanted
    stored = sum(
        t.encoding.stored_bytes(t.data.size) if t.encoding else t.data.size
        for t in weights
        if t.data is not None
    )
    assert stored <= 400
    assert api.make(request, "quantize").key == made.key


def test_shared_weights_reach_the_integers(tmp_path: Path) -> None:
    text = '[compress]\nmethods = ["share"]\nepochs = 1\n'
    request = asked(tmp_path, "shared", text, "[16, 32]")  # of fewer, no table is smaller than its layer
    made = api.make(request, "quantize")
    assert sorted(made.manifest["inputs"]) == ["model", "samples", "student"]
    assert set(made.metrics["bits"].values()) == {4, 8}
    compress = api.make(request, "compress")
    assert "tables.safetensors" in compress.manifest["files"]
    stored = [
        t.encoding.stored_bytes(t.data.size)
        for t in graph_of(made).tensors
        if t.encoding and t.data is not None
    ]
    assert len(stored) == compress.metrics["shared"]["layers"]
    assert sum(stored) == compress.metrics["shared"]["stored_bytes"] < compress.metrics["shared"]["weights"]


def test_settings_that_are_not_used_leave_an_artifacts_key_alone(tmp_path: Path) -> None:
    made = api.make(asked(tmp_path, "measured", ""), "quantize")
    assert made.manifest["params"] == {"ranges": "minmax", "percentile": 99.99}
    assert sorted(made.manifest["inputs"]) == ["model", "samples"]
    assert sorted(p.name for p in made.path.iterdir()) == ["int8.onnx", "manifest.json"]
