"""The TFLite Micro export: the array is the model, the resolver names its ops, the arena's bound holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.export import tflm
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import conv_graph

MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
FAMILY = {"reference": "reference", "CMSIS-NN": "dsp"}


@pytest.mark.shared
@pytest.mark.parametrize("model", MODELS)
def test_the_bound_is_above_what_cores_measured_and_close(shared: Path, model: str) -> None:
    folder = shared / "mlperf_tiny" if (shared / "mlperf_tiny").is_dir() else shared / "data" / "mlperf_tiny"
    graph = read_tflite((folder / "models" / f"{model}.tflite").read_bytes(), model)
    rows = json.loads((folder / "baseline_tflm.json").read_text())[f"{model}.tflite"]
    assert len(rows) > 8
    for row in rows:
        mve = row["core"] == "cortex-m55" and row["kernels"] == "CMSIS-NN"
        bound = tflm.arena_bound(graph, "mve" if mve else FAMILY[row["kernels"]])
        assert row["arena_bytes"] <= bound <= 1.10 * row["arena_bytes"], row


@pytest.mark.needs("tflite-micro")
def test_the_measured_arena_is_tflms_own_account() -> None:
    graph = conv_graph(np.random.default_rng(1))
    measured = tflm.measure_arena(write_tflite(graph))
    largest = max(t.nbytes for t in graph.tensors if not t.is_constant)
    assert measured is not None and measured > largest
    assert tflm.arena(graph, write_tflite(graph)).measured_x86_64 == measured


@pytest.mark.needs("ziglang")
def test_the_array_compiles_and_holds_every_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3 + b"tail"
    for name, text in tflm.model_array(data, "m").items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.cc").write_text(
        '#include <stdio.h>\n#include "model_data.h"\n'
        "int main() { fwrite(g_model_data, 1, g_model_data_len, stdout);\n"
        "  return (int)((unsigned long)g_model_data % 16); }\n"
    )
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-Wall",
        "-Wextra",
        "-Werror",
        "main.cc",
        "model_data.cc",
        "-o",
        "m",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert subprocess.run([tmp_path / "m"], capture_output=True, check=True).stdout == data


def test_the_resolver_names_each_op_once() -> None:
    text = tflm.op_resolver(conv_graph(np.random.default_rng(1)))
    methods = re.findall(r"resolver\.Add(\w+)\(\)", text)
    assert "Conv2D" in methods and len(methods) == len(set(methods))
    assert f"MicroMutableOpResolver<{len(methods)}>" in text


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("CONV_2D", "Conv2D"),
        ("DEPTHWISE_CONV_2D", "DepthwiseConv2D"),
        ("FULLY_CONNECTED", "FullyConnected"),
        ("RELU6", "Relu6"),
    ],
)
def test_resolver_methods_are_spelled_as_tflm_spells_them(kind: str, method: str) -> None:
    assert tflm._resolver_method(kind) == method
