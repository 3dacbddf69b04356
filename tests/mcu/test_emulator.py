"""The emulated core: exact counts, two engines that agree, every planted fault told by its function."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError, DeviceError, MissingDependencyError, VerifyError
from edgekd.mcu import qemu, unicorn_engine
from edgekd.mcu.codegen import generate
from edgekd.mcu.elf import read_elf
from edgekd.mcu.emulator import EmulatorResult, run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.isa import instructions
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from tests.mcu.firmware_models import mcu_target, write_model
from tests.mcu.generated import write

TARGET = mcu_target()

needs_core = pytest.mark.needs("ziglang", "unicorn", "capstone", "pyelftools")
pytestmark = needs_core


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, clang: Compiler) -> dict[str, Path]:
    """Each model's folder, with firmware.elf and layers.json."""
    folders = {}
    for name, rounds in (("loop", 1), ("dense", 100), ("faults", 1)):
        folder = write_model(tmp_path_factory.mktemp(name), name, rounds=rounds)
        build_image(folder, TARGET, clang, folder)
        folders[name] = folder
    return folders


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 16), np.uint8)


def run(folder: Path, inputs: np.ndarray, **options: object) -> EmulatorResult:
    options = {"counted": len(inputs), "watched": 0, "timeout_s": 60.0, **options}
    return run_image(folder / "firmware.elf", folder / "layers.json", TARGET, inputs, **options)  # type: ignore[arg-type]


def test_counts_are_exact(images: dict[str, Path]) -> None:
    """Counted by hand: the layer is 2 + 100 × 6 (an IT block with one failed slot among them) + 3."""
    result = run(images["loop"], samples(3), watched=1)
    assert result.instructions == (608, 608, 608)
    assert [(row["name"], row["instructions"]) for row in result.by_layer] == [("loop", 605), ("(invoke)", 3)]
    # 100 rounds: 5 cycles, then 3 for a taken branch (99) or 1; movs 2, str 2, bx 3; push 3, bl 3, pop 5.
    assert result.cycles == (816,) * 3
    assert result.outputs.tolist() == [[151, 0, 0, 0] * 2] * 3


@pytest.mark.parametrize("watched", [0, 1, 2])
def test_stages_change_no_count_and_no_byte(images: dict[str, Path], watched: int) -> None:
    inputs = samples(6)
    plain, mixed = run(images["dense"], inputs), run(images["dense"], inputs, counted=3, watched=watched)
    assert mixed.instructions == plain.instructions[:3]
    assert mixed.cycles == plain.cycles[:3]
    assert np.array_equal(mixed.outputs, plain.outputs)
    assert mixed.peak_stack_bytes == plain.peak_stack_bytes


def test_layers_sum_to_the_median_sample(images: dict[str, Path]) -> None:
    result = run(images["dense"], samples(5))
    assert len(set(result.instructions)) > 1
    assert sum(row["instructions"] for row in result.by_layer) == sorted(result.instructions)[2]
    assert [row["name"] for row in result.by_layer] == ["fc", "softmax", "(invoke)"]
    assert result.by_layer[0]["macs"] == 128


def test_the_run_is_deterministic(images: dict[str, Path]) -> None:
    first, second = (run(images["dense"], samples(4), watched=1) for _ in range(2))
    assert np.array_equal(first.outputs, second.outputs)
    assert replace(first, outputs=second.outputs) == second


def test_stack_is_within_what_the_functions_push(images: dict[str, Path]) -> None:
    result = run(images["dense"], samples(1))
    assert result.peak_stack_bytes is not None and 64 < result.peak_stack_bytes < 512


@pytest.mark.needs("qemu-arm")
def test_unicorn_and_qemu_agree(images: dict[str, Path]) -> None:
    inputs = samples(20)
    exact, second = run(images["dense"], inputs), run(images["dense"], inputs, engine="qemu")
    assert np.array_equal(exact.outputs, second.outputs)
    difference = np.mean(second.instructions) / np.mean(exact.instructions) - 1
    assert abs(difference) < 0.001
    assert second.by_layer == () and second.cycles == () and second.peak_stack_bytes is None
    assert second.engine.startswith("qemu ")


@pytest.mark.needs("gcc-arm", "qemu-arm")
def test_both_compilers_give_the_same_bytes(images: dict[str, Path], tmp_path: Path, gcc: Compiler) -> None:
    folder = write_model(tmp_path / "model", "dense", rounds=100)
    build_image(folder, TARGET, gcc, folder)
    inputs = samples(4)
    expected = run(images["dense"], inputs).outputs
    for engine in ("unicorn", "qemu"):
        assert np.array_equal(run(folder, inputs, engine=engine).outputs, expected)


WATCHED_FAULTS = [
    (1, VerifyError, r"^unwritten_read\+0x\w+: memory that nothing wrote was read at model\+0x28 "),
    (2, VerifyError, r"^near_read\+0x\w+: read of 0x20000444, outside the image's own memory"),
    (3, VerifyError, r"^near_write\+0x\w+: write to 0x20000440, outside the image's own memory"),
    (4, VerifyError, r"^far_read\+0x\w+: read of 0x30000000, outside"),
    (5, VerifyError, r"^odd_pair\+0x\w+: .* model\+0x6 .* not word-aligned"),
    (6, VerifyError, r"^flash_write\+0x\w+: write to flash at constants\+0x0 "),
    (7, DeviceError, r"^endless\+0x\w+: still running after 0\.5 s"),
    (8, VerifyError, r"^deeper\+0x\w+: the stack overflowed its 1024 reserved bytes"),
    (9, DeviceError, r"^undefined\+0x\w+: HardFault by an undefined instruction"),
    (10, VerifyError, r"^model_invoke: an output byte that the model never wrote was read at model\+0x10 "),
    (11, DeviceError, r"jumped to 0x20000400, which is no code of the image"),
    (12, VerifyError, r"^odd_multiple\+0x\w+: .* not word-aligned"),
    (13, VerifyError, r"^odd_float\+0x\w+: .* not word-aligned"),
    (14, VerifyError, r"^far_write\+0x\w+: write to 0x10000000, outside"),
]


def faulty(case: int) -> np.ndarray:
    """A good sample, then the one that fails."""
    inputs = np.zeros((2, 16), np.uint8)
    inputs[1, 0] = case
    return inputs


@pytest.mark.parametrize(("case", "error", "message"), WATCHED_FAULTS)
def test_the_watch_names_the_function(
    images: dict[str, Path], case: int, error: type[Exception], message: str
) -> None:
    inputs = faulty(case)[1:] if case == 10 else faulty(case)  # the good sample writes its outputs
    with pytest.raises(error, match=message):
        run(images["faults"], inputs, watched=2, timeout_s=0.5)


def test_the_watch_names_the_very_instruction(images: dict[str, Path]) -> None:
    image = read_elf(images["faults"] / "firmware.elf")
    culprit = image.function("unwritten_read")
    load = next(i for i in instructions(image) if i.address >= culprit.address and i.name == "ldrb")
    with pytest.raises(VerifyError) as caught:
        run(images["faults"], faulty(1), watched=2)
    assert str(caught.value).startswith(image.locate(load.address) + ": ")


def test_an_fpu_that_start_up_left_off(tmp_path: Path, clang: Compiler) -> None:
    """A float model whose reset handler has a NOP for `orr r1, r1, #0xF00000`."""
    extra = "static volatile float half = 0.5f;\n"
    folder = write_model(tmp_path / "model", "dense", extra=extra, prepare="half = half * half;")
    build_image(folder, TARGET, clang, folder)
    assert run(folder, samples(1)).instructions
    elf = folder / "firmware.elf"
    whole = elf.read_bytes()
    assert whole.count(bytes.fromhex("41f47001")) == 1
    elf.write_bytes(whole.replace(bytes.fromhex("41f47001"), bytes.fromhex("aff30080")))
    with pytest.raises(VerifyError, match=r"^model_invoke\+0x0: the image uses the FPU but start-up never"):
        run(folder, samples(1))


@pytest.mark.parametrize("case", [4, 6, 7, 8, 9, 14])
def test_these_are_seen_without_the_watch(images: dict[str, Path], case: int) -> None:
    _, error, message = next(row for row in WATCHED_FAULTS if row[0] == case)
    with pytest.raises(error, match=message) as caught:
        run(images["faults"], faulty(case), counted=0, timeout_s=0.5)
    assert str(caught.value).endswith("(sample 1)")


@pytest.mark.needs("qemu-arm")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        (4, r"^far_read\+0x\w+: HardFault \(CFSR 0x00008200, address 0x30000000"),
        (5, r"^odd_pair\+0x\w+: HardFault \(CFSR 0x01000000"),
        (7, r"^endless\+0x\w+: still running after 0\.5 s"),
        (9, r"^undefined\+0x\w+: HardFault \(CFSR 0x00010000"),
    ],
)
def test_qemu_names_the_function_too(images: dict[str, Path], case: int, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        run(images["faults"], faulty(case), engine="qemu", timeout_s=0.5)


def test_a_sane_sample_passes_the_watch(images: dict[str, Path]) -> None:
    assert run(images["faults"], faulty(0), watched=2).instructions


def test_a_killed_child_is_a_device_error(images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    popen = unicorn_engine.subprocess.Popen

    def start(*args: object, **options: object) -> object:
        child = popen(*args, **options)  # type: ignore[call-overload]
        started.append(child.pid)
        return child

    monkeypatch.setattr(unicorn_engine.subprocess, "Popen", start)

    def kill(label: str, done: int, total: int) -> None:
        os.kill(started[0], signal.SIGKILL)

    with pytest.raises(DeviceError, match="the emulator died in sample 1"):
        run(images["faults"], faulty(7), timeout_s=30.0, progress=kill)


def test_nothing_that_a_hook_raises_is_lost(
    images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ctypes only prints what a callback raises: a child that said something is not believed."""
    child = tmp_path / "child.py"
    child.write_text("import sys\nprint('KeyError: 4', file=sys.stderr)\n")
    monkeypatch.setattr(unicorn_engine, "CHILD", child)
    with pytest.raises(DeviceError, match="the emulator died in sample 0: KeyError: 4"):
        run(images["loop"], samples(1))


def test_an_engine_that_is_absent(images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu.shutil, "which", lambda name: None)
    with pytest.raises(MissingDependencyError, match="apt-get install qemu-system-arm"):
        run(images["loop"], samples(1), engine="qemu")
    monkeypatch.setattr(unicorn_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install unicorn"):
        run(images["loop"], samples(1))
    for module, line in (("capstone", "capstone"), ("elftools.elf.elffile", "pyelftools")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=f"pip install {line}"):
            run(images["loop"], samples(1))


@pytest.mark.parametrize("engine", ["unicorn", pytest.param("qemu", marks=pytest.mark.needs("qemu-arm"))])
def test_wrong_input_rows_are_refused(images: dict[str, Path], engine: str) -> None:
    with pytest.raises((ArtifactError, DeviceError), match="input"):
        run(images["loop"], np.zeros((3, 10), np.uint8), engine=engine)
    with pytest.raises(ArtifactError, match="4 of 8 bytes were given"):
        run(images["loop"], np.zeros((4, 8), np.uint8), engine=engine)


def test_bad_requests(images: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean unicorn"):
        run(images["loop"], samples(1), engine="unicron")
    with pytest.raises(ArtifactError, match="rows of bytes"):
        run(images["loop"], np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ArtifactError, match="rows of bytes"):
        run(images["loop"], samples(0))
    (tmp_path / "layers.json").write_text('[{"name": "x"}]')
    elf = images["loop"] / "firmware.elf"
    with pytest.raises(ArtifactError, match="not a list of layers"):
        run_image(elf, tmp_path / "layers.json", TARGET, samples(1), counted=1, watched=0)
    rows = [{"name": "x", "op": "X", "symbol": "model_layer_99", "macs": 0}]
    (tmp_path / "layers.json").write_text(json.dumps(rows))
    with pytest.raises(ArtifactError, match="no function 'model_layer_99'"):
        run_image(elf, tmp_path / "layers.json", TARGET, samples(1), counted=1, watched=0)


def test_progress_tells_each_sample(images: dict[str, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    run(images["loop"], samples(3), progress=lambda *row: told.append(row))
    assert told == [("emulate", n, 3) for n in (1, 2, 3)]


MODELS = Path("data/mlperf_tiny/models")
GOLDEN = Path("data/mlperf_tiny/golden")


@pytest.mark.shared
@pytest.mark.needs("qemu-arm")
@pytest.mark.parametrize(
    ("name", "watched"),
    [("ad01_int8", 1), ("kws_ref_model", 0), ("pretrainedResnet_quant", 0), ("vww_96_int8", 0)],
)
def test_mlperf_tiny_on_the_core(
    shared: Path, tmp_path: Path, clang: Compiler, name: str, watched: int
) -> None:
    """A golden sample of a public model: equal bytes, engines within 0.1 %, less work than TFLM's."""
    graph = strip_float_edges(read_tflite((shared / MODELS / f"{name}.tflite").read_bytes(), name))
    folder = write(generate(graph), tmp_path / name)
    build_image(folder, TARGET, clang, folder)
    inputs = np.fromfile(shared / GOLDEN / f"{name}.input.bin", np.uint8)[: bytes_of(graph, graph.inputs)]
    expected = np.fromfile(shared / GOLDEN / f"{name}.output.bin", np.uint8)[: bytes_of(graph, graph.outputs)]
    exact = run(folder, inputs[None], watched=watched)
    second = run(folder, inputs[None], engine="qemu")
    assert np.array_equal(exact.outputs[0], expected) and np.array_equal(second.outputs[0], expected)
    assert abs(second.instructions[0] / exact.instructions[0] - 1) < 0.001
    rows = json.loads((shared / "data/mlperf_tiny/baseline_tflm.json").read_text())[f"{name}.tflite"]
    plain = [r for r in rows if r["core"] == "cortex-m4" and r["kernels"] == "reference"]
    assert exact.instructions[0] < min(row["instructions"] for row in plain)


def bytes_of(graph: QGraph, indices: tuple[int, ...]) -> int:
    return sum(graph.tensors[index].nbytes for index in indices)
