"""Generated C as a whole: random graphs and known models bit for bit, its text, promises and refusals."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.mcu.codegen import generate
from edgekd.mcu.codegen_text import Array, initialiser, layer_names, literal, one_line
from edgekd.mcu.host import HostModel
from edgekd.mcu.library import Library
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.ir import Op, QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import Builder, conv_graph, float_edged, inputs_for, random_graph, small_net
from tests.mcu.generated import disagreements, merge, run_host, write

MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
STRICT = ("-ffreestanding", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-pedantic", "-Werror")
SEEDS = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- the same bytes ----


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seeds=st.lists(SEEDS, min_size=5, max_size=5), ops=st.integers(3, 12))
def test_random_graphs_equal_the_reference(
    seeds: list[int], ops: int, clang: Compiler, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph = merge([random_graph(rng(seed), ops) for seed in seeds])  # one compilation for five graphs
    assert disagreements(graph, clang, tmp_path_factory.mktemp("graph"), samples=12) == []


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_known_models_give_their_golden_bytes(
    name: str, clang: Compiler, tmp_path: Path, shared: Path
) -> None:
    data = shared / "data/mlperf_tiny"
    graph = read_tflite((data / f"models/{name}.tflite").read_bytes(), name)
    model = generate(graph)
    host = HostModel(write(model, tmp_path / "generated"), clang, tmp_path / "work")
    x = np.fromfile(data / f"golden/{name}.input.bin", np.int8).reshape(-1, host.input_bytes)
    golden = np.fromfile(data / f"golden/{name}.output.bin", np.int8).reshape(-1, host.output_bytes)
    assert np.array_equal(host.run(x), golden)
    real = x[rng().integers(0, len(x), 8)].reshape(8, *graph.tensors[graph.inputs[0]].shape[1:])
    inputs = inputs_for(graph, rng(1), 32, real)
    expected = reference.run(graph, inputs)[0]
    assert np.array_equal(host.run(inputs[0].reshape(32, -1)), expected.reshape(32, -1))


def test_a_stripped_float_edged_model_runs(clang: Compiler, tmp_path: Path) -> None:
    assert disagreements(strip_float_edges(float_edged(rng())), clang, tmp_path) == []


def test_an_op_of_constants_alone_runs(clang: Compiler, tmp_path: Path) -> None:
    b = Builder(rng())
    scale = np.array([0.05], np.float32)
    fixed = b.constant(b.rng.integers(-128, 128, (1, 6)).astype(np.int8), scale, 3)
    moved = b.unary("TANH", b.reshape(fixed, (1, 2, 3)))
    graph = b.graph(b.binary("ADD", b.input((1, 2, 3)), moved))
    assert disagreements(graph, clang, tmp_path) == []


def test_an_output_that_is_an_input_runs(clang: Compiler, tmp_path: Path) -> None:
    b = Builder(rng())
    x = b.input((1, 6))
    graph = b.graph(b.reshape(x, (1, 2, 3)), b.unary("RELU", x))
    assert disagreements(graph, clang, tmp_path) == []


# ---- what the text promises ----


@pytest.fixture(scope="module")
def everything() -> QGraph:
    """One graph that uses every kernel."""
    b = Builder(rng(2), "every*/kernel\nof it")
    x = b.input((1, 8, 8, 3))
    y = b.depthwise(b.conv(x, 8, stride=(2, 2)), activation="RELU")
    y = b.binary("MUL", b.binary("SUB", y, b.conv(y, 8, (1, 1))), b.unary("LOGISTIC", y))
    y = b.concatenate([y, b.pool(y, "MAX_POOL_2D", (3, 3), stride=(1, 1), padding="SAME")])
    y = b.pool(b.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    u = b.quantize(b.mean(y), "uint8")
    return b.graph(b.softmax(b.dense(b.quantize(u), 5)), u)


def test_same_graph_same_text(everything: QGraph) -> None:
    assert generate(everything).files == generate(everything).files


def test_every_file_is_0bsd_ascii_and_free_of_paths(everything: QGraph) -> None:
    for name, text in generate(everything).files.items():
        assert text.isascii(), name
        if name.endswith((".c", ".h")):
            assert text.startswith("/* SPDX-License-Identifier: 0BSD */\n"), name
            assert not re.search(
                r"\b(float|double|malloc)\b(?!ing)", re.sub(r"/\*.*?\*/", "", text, flags=re.S)
            ), name


@pytest.mark.parametrize("command", [
    ("clang",),
    pytest.param(("arm-none-eabi-gcc", "-mcpu=cortex-m4"), marks=pytest.mark.needs("gcc-arm")),
    pytest.param(("gcc",), marks=pytest.mark.needs("gcc")),
])  # fmt: skip
@pytest.mark.parametrize("optimize", ["-O2", "-Os"])
def test_compiles_strictly_as_c99(
    command: tuple[str, ...], optimize: str, everything: QGraph, clang: Compiler, tmp_path: Path
) -> None:
    folder = write(generate(everything), tmp_path / "generated")
    if command == ("clang",):
        clang.compile_host_shared(
            sorted(folder.glob("*.c")), [folder], tmp_path / "model.so", extra=(*STRICT, optimize)
        )
        return
    for source in sorted(folder.glob("*.c")):
        line = [*command, "-std=c99", *STRICT, optimize, "-c", source.name, "-o", str(tmp_path / "o.o")]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("gcc")
def test_model_h_is_cpp17(everything: QGraph, tmp_path: Path) -> None:
    folder = write(generate(everything), tmp_path)
    (folder / "use.cc").write_text(
        '#include "model.h"\nstatic model_t model;\n'
        "float use() { model_init(&model); model_invoke(&model); return MODEL_INPUT0_SCALE; }\n"
        'static_assert(sizeof(model_t) >= MODEL_ARENA_BYTES, "");\n'
    )
    line = ["g++", "-std=c++17", *STRICT, "-c", "use.cc", "-o", "use.o"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("gcc-arm")
def test_kernels_need_only_memcpy_memset_and_compiler_helpers(everything: QGraph, tmp_path: Path) -> None:
    folder = write(generate(everything), tmp_path)
    line = ["arm-none-eabi-gcc", "-std=c99", "-mcpu=cortex-m4", "-O2", "-ffreestanding", "-nostdlib", "-r"]
    subprocess.run(
        [*line, *(p.name for p in sorted(folder.glob("*.c"))), "-o", "all.o"], cwd=folder, check=True
    )
    done = subprocess.run(
        ["arm-none-eabi-nm", "-u", "all.o"], cwd=folder, capture_output=True, text=True, check=True
    )
    names = {text.split()[-1] for text in done.stdout.splitlines()}
    assert {name for name in names if not name.startswith("__aeabi_")} <= {"memcpy", "memset"}


def test_only_used_kernels_are_in(everything: QGraph) -> None:
    few = generate(conv_graph(rng())).files
    kernels = {name for name in few if name.startswith("k_") and name.endswith(".c")}
    assert kernels == {"k_conv_2d_s8.c", "k_gemm_s8.c", "k_weights.c"}
    assert kernels < set(generate(everything).files)


CHOICE = ("kernel", "flash_bytes", "instructions", "cycles", "others")


def test_layers_json_names_each_executed_op_once(clang: Compiler, tmp_path: Path) -> None:
    graph = small_net(rng())
    model = generate(graph)
    layers = json.loads(model.files["layers.json"])
    assert [layer["op"] for layer in layers] == [op.kind for op in graph.ops if op.kind != "RESHAPE"]
    assert all(set(layer) == {"name", "op", "symbol", "macs", *CHOICE} for layer in layers)
    assert (
        len({layer["name"] for layer in layers}) == len({layer["symbol"] for layer in layers}) == len(layers)
    )
    # conv 4x4 pixels x 8 x 9; depthwise 16 x 8 x 9; pointwise 16 x 64; dense 80
    assert [layer["macs"] for layer in layers] == [1152, 1152, 1024, 0, 0, 80, 0]
    source = model.files["model.c"]
    for layer in layers:
        assert source.count(f"    {layer['symbol']}(model);") == 1
    library = tmp_path / "model.so"
    folder = write(model, tmp_path / "generated")
    clang.compile_host_shared(sorted(folder.glob("*.c")), [folder], library)
    assert all(layer["symbol"].encode() in library.read_bytes() for layer in layers)


def test_header_states_the_edges(everything: QGraph) -> None:
    text = generate(everything).files["model.h"]
    macros = dict(re.findall(r"#define (MODEL_\w+) \(?([^ )\n]+)", text))
    assert (macros["MODEL_INPUT_COUNT"], macros["MODEL_INPUT_BYTES"]) == ("1", "192")
    assert (macros["MODEL_OUTPUT_COUNT"], macros["MODEL_OUTPUT_BYTES"]) == ("2", "21")
    tensor = everything.tensors[everything.inputs[0]]
    assert float.fromhex(macros["MODEL_INPUT0_SCALE"].rstrip("f")) == float(tensor.scale[0])
    assert int(macros["MODEL_INPUT0_ZERO_POINT"]) == tensor.zero_point
    assert int(macros["MODEL_ARENA_BYTES"]) == generate(everything).arena_bytes
    assert (macros["MODEL_OUTPUT0_BYTES"], macros["MODEL_OUTPUT1_BYTES"]) == ("5", "16")


# ---- C text ----


def test_names_are_short_unique_and_harmless() -> None:
    names = layer_names(["a/b/c/Relu;x/y", "b/c/Relu", "c/Relu", "c/Relu_2", "", "x*/y", "n" * 90, "é\n"])
    assert names[:4] == ["c/Relu", "c/Relu_2", "c/Relu_3", "c/Relu_2_2"]
    assert len(set(names)) == len(names) and all(len(name) < 50 for name in names)
    assert not any("*" in name or "\n" in name for name in names)
    assert one_line('*/ int main() { " \\') == "_/ int main__ _ _ _"


def test_literals_and_initialisers() -> None:
    assert literal(-(1 << 31)) == "(-2147483647 - 1)"
    assert initialiser({"a": -3, "b": (1, 2), "c": {"d": "name"}}, "") == (
        "{\n    .a = -3,\n    .b = {1, 2},\n    .c = {\n        .d = name,\n    },\n}"
    )
    assert Array("w", np.array([[1, -2]], np.int8)).definition() == "const int8_t w[2] = {\n    1, -2,\n};\n"


# ---- refusals ----


def test_float_edges_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"t0 of shape \(1, 6, 5, 2\) is float32"):
        generate(float_edged(rng()))


def test_float_inside_is_refused_by_name() -> None:
    b = Builder(rng())
    x = b.input((1, 4))
    graph = b.graph(b.quantize(b.dequantize(x)))
    with pytest.raises(UnsupportedOpError, match=r"op 0 DEQUANTIZE .*\(1, 4\)"):
        generate(graph)


def test_alternating_broadcast_is_refused_with_shapes() -> None:
    b = Builder(rng())
    graph = b.graph(b.binary("ADD", b.input((1, 2, 1, 3, 1, 2)), b.input((1, 1, 2, 1, 3, 1))))
    with pytest.raises(UnsupportedOpError, match=r"op 0 ADD .*\(1, 2, 1, 3, 1, 2\).*alternating"):
        generate(graph)


def test_extents_beyond_int16_are_refused() -> None:
    b = Builder(rng())
    graph = b.graph(b.conv(b.input((1, 1, 40_000, 1)), 1, (1, 3)))
    with pytest.raises(UnsupportedOpError, match="in_w is 40000"):
        generate(graph)


def test_unknown_op_is_refused() -> None:
    graph = conv_graph(rng())
    broken = QGraph(
        "g", graph.tensors, (Op("GELU", graph.ops[0].inputs, graph.ops[0].outputs),), (0,), graph.outputs
    )
    with pytest.raises(UnsupportedOpError, match="GELU"):
        generate(broken)


def test_host_model_refuses_another_shape_and_an_empty_folder(clang: Compiler, tmp_path: Path) -> None:
    graph = conv_graph(rng())
    run_host(graph, inputs_for(graph, rng(), 1), clang, tmp_path)
    host = HostModel(tmp_path / "generated", clang, tmp_path / "work")
    for x in (np.zeros((2, 5), np.int8), np.zeros((1, host.input_bytes), np.float32)):
        with pytest.raises(ArtifactError, match="takes int8 or uint8"):
            host.run(x)
    with pytest.raises(ArtifactError, match="holds no generated C"):
        HostModel(tmp_path / "work", clang, tmp_path / "other")


def test_equal_arrays_are_stored_once(clang: Compiler, tmp_path: Path) -> None:
    b = Builder(rng())
    x, y = (b.input((1, 5, 5, 3), scale=0.05, zero_point=3) for _ in range(2))
    one = b.conv(x, 4)
    op = b.ops[-1]
    copies = tuple(b.add(b.tensors[i]) for i in op.inputs[1:])
    other = b.op(op.kind, (y, *copies), b.add(b.tensors[one]), **op.attrs)
    graph = b.graph(one, other)
    files = generate(graph).files
    assert "int8_t w00_filter[108];" in files["model_weights.h"]
    assert "w01_" not in files["model_weights.h"] and "weights_01" not in files["model.c"]
    updatable = generate(graph, options=Options(library=Library(is_updatable=True))).files
    assert "int8_t w01_filter[108];" in updatable["model_weights.h"]  # each may get values of its own
    assert disagreements(graph, clang, tmp_path) == []


def test_what_the_passes_make_runs(clang: Compiler, tmp_path: Path) -> None:
    """Explicit padding in every kernel, clamps in the middle of the range, tables from and to uint8."""
    b = Builder(rng())
    x = b.input((1, 7, 6, 4), dtype="uint8", zero_point=7)
    x = b.unary("TANH", b.quantize(x))
    x = b.conv(b.pad(x, [[0, 0], [2, 1], [0, 2], [0, 0]]), 8, padding="VALID")
    x = b.quantize(x, scale=float(b.tensors[x].scale[0]), zero_point=11)
    x = b.depthwise(
        b.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), stride=(2, 2), padding="VALID", activation="RELU"
    )
    x = b.pool(b.pad(x, [[0, 0], [1, 1], [1, 0], [0, 0]]), "MAX_POOL_2D", (2, 2), stride=(1, 1))
    graph = b.graph(b.quantize(b.unary("LOGISTIC", x), "uint8"))
    model = generate(graph)
    assert [op.kind for op in model.graph.ops] == [
        "TABLE", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "TABLE"
    ]  # fmt: skip
    assert len(model.passes) == 3
    assert disagreements(graph, clang, tmp_path) == []
