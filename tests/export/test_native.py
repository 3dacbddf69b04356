"""The generated C as shared objects: the reference's bytes, the host's rounding, no library needed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.agent.engines import architecture
from edgekd.errors import ConfigError, MissingDependencyError, UnsupportedOpError
from edgekd.export.native import build_native, exact_answers, native_graph
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.qgraph.edges import dequantize_output, with_float_edges
from tests.graphs import small_net

pytestmark = pytest.mark.needs("ziglang")
GRAPH = native_graph(small_net(np.random.default_rng(3)))


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return find_compiler("clang", tmp_path_factory.mktemp("compiler"))


@pytest.fixture(scope="module")
def library(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("native") / "native.so"
    path.write_bytes(build_native(GRAPH, [architecture()], compiler)[architecture()])
    return ctypes.CDLL(str(path))


def run(library: ctypes.CDLL, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers in, and real numbers out, of one sample."""
    state = ctypes.create_string_buffer(library.edgekd_state_bytes())
    library.edgekd_init(state)
    values = np.ascontiguousarray(x, np.float32)
    taken = np.zeros(library.edgekd_input_values(), np.int8)
    given = np.zeros(library.edgekd_output_values(), np.float32)
    real, integers, answer = (ctypes.c_void_p(array.ctypes.data) for array in (values, taken, given))
    assert library.edgekd_quantize(real, integers) == 0
    assert library.edgekd_run(state, real, answer) == 0
    return taken, given


def test_it_rounds_and_answers_as_the_reference(library: ctypes.CDLL) -> None:
    tensor, random = GRAPH.tensors[GRAPH.inputs[0]], np.random.default_rng(4)
    scale = float(tensor.scale[0])
    halves = (random.integers(-140, 140, (40, *tensor.shape[1:])) + 0.5) * scale
    wide = random.normal(size=(40, *tensor.shape[1:])) * scale * 80
    edges = np.nextafter(np.float32(0.5 * scale), np.float32(0)) * np.ones((1, *tensor.shape[1:]))
    far = np.full((1, *tensor.shape[1:]), np.inf)
    x = np.concatenate([halves, wide, edges, far, -far]).astype(np.float32)
    integers, outputs = exact_answers(GRAPH, x)
    real = dequantize_output(outputs, GRAPH.tensors[GRAPH.outputs[0]])
    for sample, q, y in zip(x, integers, real, strict=True):
        taken, given = run(library, sample)
        assert np.array_equal(taken, q.ravel()) and np.array_equal(given, y.ravel())


def test_a_nan_is_refused_and_leaves_the_answer_alone(library: ctypes.CDLL) -> None:
    state = ctypes.create_string_buffer(library.edgekd_state_bytes())
    library.edgekd_init(state)
    x = np.full(library.edgekd_input_values(), np.nan, np.float32)
    y = np.full(library.edgekd_output_values(), 7, np.float32)
    pointers = (ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
    assert library.edgekd_run(state, *pointers) == 1 and set(y.tolist()) == {7.0}


def test_float_edges_change_nothing_and_other_edges_are_refused(compiler: Compiler) -> None:
    framed = with_float_edges(GRAPH)
    assert [framed.tensors[i].dtype for i in (*framed.inputs, *framed.outputs)] == ["float32"] * 2
    assert with_float_edges(framed).ops == framed.ops
    again = native_graph(framed)
    assert (again.inputs, again.outputs, again.ops) == (GRAPH.inputs, GRAPH.outputs, GRAPH.ops)
    two = type(GRAPH)(GRAPH.name, GRAPH.tensors, GRAPH.ops, GRAPH.inputs, (*GRAPH.outputs, *GRAPH.outputs))
    with pytest.raises(UnsupportedOpError, match="leave the variant native out"):
        native_graph(two)
    with pytest.raises(ConfigError, match="take aarch64, armv7, x86_64"):
        build_native(GRAPH, ["riscv64"], compiler)
    gcc = Compiler("gcc", "gcc 1", ("gcc",), (), compiler.cache)
    with pytest.raises(MissingDependencyError, match="leave --compiler out"):
        build_native(GRAPH, ["aarch64"], gcc)


@pytest.mark.parametrize("name", ["aarch64", "armv7", "x86_64"])
def test_each_architecture_is_a_library_that_needs_none(
    compiler: Compiler, tmp_path: Path, name: str
) -> None:
    data = build_native(GRAPH, [name], compiler)[name]
    machine = int.from_bytes(data[18:20], "little")
    assert data[:4] == b"\x7fELF" and machine == {"aarch64": 183, "armv7": 40, "x86_64": 62}[name]
    assert str(compiler.cache).encode() not in data and b"/tmp" not in data
    if name == architecture():
        assert build_native(GRAPH, [name], compiler)[name] == data
    if shutil.which("readelf"):
        (tmp_path / "x.so").write_bytes(data)
        told = subprocess.run(
            ["readelf", "-dW", "--dyn-syms", tmp_path / "x.so"], capture_output=True, text=True, check=True
        )
        assert "NEEDED" not in told.stdout and " UND " not in told.stdout.replace("UND \n", "")
