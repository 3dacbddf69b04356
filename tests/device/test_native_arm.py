"""The generated C on the Arm cores that Linux bundles are for: its bytes are the integer reference's.

32-bit code runs there too: a 64-bit kernel carries it. The program is of the shared object's own sources and
flags, linked with native_runner.c in place of Python's loader, so it needs no library of either width.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.virtual.machine import VirtualPi
from edgekd.export.native import native_graph
from edgekd.mcu.codegen import generate
from edgekd.mcu.toolchain import CODE, LINUX, LINUX_CODE, WARNINGS, Compiler, find_compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.reference import run
from edgekd.resources import resource_dir
from tests.graphs import small_net

pytestmark = pytest.mark.needs("pi-sim", "ziglang")
RUNNER = Path(__file__).with_name("native_runner.c")
MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "mlperf_tiny" / "models"
SAMPLES = 4


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return find_compiler("clang", tmp_path_factory.mktemp("compiler"))


def program(graph: QGraph, architecture: str, compiler: Compiler, folder: Path) -> bytes:
    """A static program of the graph."""
    folder.mkdir()
    for name, text in generate(graph).files.items():
        (folder / name).write_text(text)
    for source in (RUNNER, resource_dir("firmware_stubs") / "linux" / "native_model.c"):
        shutil.copy(source, folder)
    library = [flag for flag in LINUX_CODE if flag not in ("-shared", "-fPIC")]
    flags = [*LINUX[architecture], *CODE, *library, *WARNINGS, "-O2", "-static", "-fomit-frame-pointer"]
    stage, output = folder / "stage", folder / "program"
    stage.mkdir()
    command, tail = (*compiler.core_command, *flags), ["-rtlib=compiler-rt"]
    compiler._compile(command, sorted(folder.glob("*.c")), [folder], stage, output, tail)
    return output.read_bytes()


def answers(pi: VirtualPi, code: bytes, taken: bytes) -> bytes:
    """What the program answers on the device."""
    talk(pi, "cat > program && chmod +x program", code)
    return talk(pi, "./program", taken)


def talk(pi: VirtualPi, line: str, data: bytes) -> bytes:
    """What a line of shell prints that reads `data`."""
    told = b""
    with pi.connect() as transport:
        conversation = transport.start(["sh", "-c", f"head -c {len(data)} | ({line})"])
        conversation.send(data, 120.0)
        while more := conversation.receive(120.0):
            told += more
        status, errors = conversation.finish(10.0)
    assert status == 0, errors
    return told


def graph_of(name: str) -> QGraph:
    if name == "small":
        return native_graph(small_net(np.random.default_rng(3)))
    path = MODELS / f"{name}.tflite"
    return native_graph(load_graph(path.read_bytes(), path.name))


@pytest.mark.parametrize("architecture", ["aarch64", "armv7"])
@pytest.mark.parametrize(
    "name",
    [
        "small",
        *(
            pytest.param(name, marks=pytest.mark.shared)
            for name in ("kws_ref_model", "pretrainedResnet_quant", "vww_96_int8", "ad01_int8")
        ),
    ],
)
def test_its_bytes_are_the_references(
    virtual_pi: VirtualPi, compiler: Compiler, tmp_path: Path, name: str, architecture: str
) -> None:
    graph = graph_of(name)
    shape = graph.tensors[graph.inputs[0]].shape
    x = np.random.default_rng(5).integers(-128, 128, (SAMPLES, *shape[1:]), dtype=np.int8)
    code = program(graph, architecture, compiler, tmp_path / "c")
    machine = int.from_bytes(code[18:20], "little")
    assert machine == {"aarch64": 183, "armv7": 40}[architecture]
    assert answers(virtual_pi, code, x.tobytes()) == run(graph, [x])[0].tobytes()
