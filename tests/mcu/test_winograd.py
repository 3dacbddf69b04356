"""Winograd's convolution: its identity, its roundings, the twins and the assembly against the reference."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.codegen_case import Case
from edgekd.mcu.dsp import winograd, winograd_leaves
from edgekd.mcu.dsp.linear import Linear
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import arithmetic, reference
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from tests.graphs import Builder, inputs_for
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import Array, merge, pack, run_sanitized, write

ALLOWED = Options(winograd=True)
TAKEN = Options(winograd=True, prefer=("winograd",))

# name: input shape, outputs, padding, mark. "r": the output's zero point is -128; "x": only -127 and 127 as
# weights. "p": padded unevenly before.
NETS: dict[str, tuple[tuple[int, ...], int, str, str]] = {
    "smallest": ((1, 2, 4, 4), 2, "SAME", "r"),
    "odd": ((1, 5, 7, 8), 6, "SAME", "r"),
    "odd-signed": ((1, 3, 5, 8), 4, "SAME", ""),
    "valid": ((1, 7, 9, 12), 4, "VALID", "r"),
    "valid-signed": ((1, 4, 6, 4), 10, "VALID", ""),
    "wide": ((1, 3, 19, 4), 2, "SAME", "r"),
    "tall": ((1, 9, 4, 4), 2, "SAME", ""),
    "square": ((1, 8, 8, 16), 16, "SAME", "r"),
    "extreme": ((1, 4, 5, 16), 4, "SAME", "rx"),
    "extreme-signed": ((1, 5, 4, 16), 4, "SAME", "x"),
    "two-turns": ((1, 2, 4, 72), 2, "SAME", "r"),
    "straight": ((1, 3, 4, 64), 2, "SAME", ""),
    "uneven": ((1, 3, 4, 8), 4, "VALID", "rp"),
    "uneven-signed": ((1, 4, 3, 4), 2, "VALID", "p"),
}
IN_AN_IMAGE = 4  # nets: the harness takes so many inputs


def net(name: str) -> QGraph:
    """One convolution with random weights."""
    shape, outputs, padding, mark = NETS[name]
    b = Builder(np.random.default_rng([*name.encode()]), name)
    x = b.input(shape)
    y = b.conv(b.pad(x, [[0, 0], [2, 0], [1, 2], [0, 0]]) if "p" in mark else x, outputs, padding=padding)
    if "r" in mark:
        b.tensors[y] = dataclasses.replace(b.tensors[y], zero_point=-128)
    if "x" in mark:
        index = b.ops[-1].inputs[1]
        data = b.tensors[index].data
        assert data is not None
        b.tensors[index] = dataclasses.replace(
            b.tensors[index], data=np.where(data > 0, 127, -127).astype(np.int8)
        )
    return b.graph(y)


def samples(graph: QGraph) -> list[Array]:
    """Random inputs, the ends of int8, and random ends."""
    rng = np.random.default_rng(3)
    inputs = inputs_for(graph, rng, 6)
    for x in inputs:
        x[0], x[1] = -128, 127
        x[2] = np.where(rng.integers(0, 2, x[2].shape) > 0, 127, -128)
    return inputs


@pytest.fixture(scope="module")
def graph() -> QGraph:
    return merge([net(name) for name in NETS])


@pytest.fixture(scope="module")
def model(graph: QGraph) -> GeneratedModel:
    return generate(graph, "dsp", TAKEN)


def differing(names: list[str], graph: QGraph, found: Array, expected: Array) -> list[str]:
    """The nets whose outputs differ."""
    sizes = [graph.tensors[output].nbytes for output in graph.outputs]
    ends = np.cumsum(sizes)[:-1]
    parts = zip(np.split(found.view(np.uint8), ends, axis=1), np.split(expected, ends, axis=1), strict=True)
    return [name for name, (a, b) in zip(names, parts, strict=True) if not np.array_equal(a, b)]


# ---- kernels ----


def test_every_net_and_form_runs_on_winograds_kernel(model: GeneratedModel) -> None:
    assert model.files["model.c"].count("k_dsp_winograd_s8(&layer") == len(NETS)
    leaves = re.findall(
        r"^k_dsp_winograd_multiply_c\d+t(\d)o\d+_s(\d+):", model.files["model_dsp.S"], re.MULTILINE
    )
    assert {turns for turns, _ in leaves} == {"1", "2"}
    assert {shift == "0" for _, shift in leaves} == {True, False}


def test_the_twins_equal_the_reference(
    graph: QGraph, model: GeneratedModel, compiler: Compiler, tmp_path: Path
) -> None:
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    inputs = samples(graph)
    found, expected = host.run(pack(inputs)), pack(reference.run(graph, inputs))
    assert differing(list(NETS), graph, found, expected) == []


@pytest.mark.parametrize("start", range(0, len(NETS), IN_AN_IMAGE))
def test_the_assembly_equals_the_reference(start: int, clang: Compiler, tmp_path: Path) -> None:
    assert failing_on_the_core(start, clang, tmp_path) == []


@pytest.mark.needs("gcc-arm")
def test_the_assembly_is_the_same_for_gnu_as(gcc: Compiler, tmp_path: Path) -> None:
    assert failing_on_the_core(len(NETS) - IN_AN_IMAGE, gcc, tmp_path) == []


def failing_on_the_core(start: int, compiler: Compiler, tmp_path: Path) -> list[str]:
    """The nets of one image, counted from `start`, whose outputs differ on the emulated core."""
    names = list(NETS)[start : start + IN_AN_IMAGE]
    graph = merge([net(name) for name in names])
    inputs, target = samples(graph), mcu_target()
    folder = write(generate(graph, "dsp", TAKEN), tmp_path / "generated")
    build_image(folder, target, compiler, tmp_path / "image")
    layers = folder / "layers.json"
    result = run_image(tmp_path / "image/firmware.elf", layers, target, pack(inputs), counted=1, watched=2)
    return differing(names, graph, result.outputs, pack(reference.run(graph, inputs)))


def test_twins_are_clean_under_strict_warnings(
    model: GeneratedModel, clang: Compiler, tmp_path: Path
) -> None:
    folder = write(model, tmp_path / "generated")
    strict = ("-Wconversion", "-Wsign-conversion", "-pedantic")
    clang.compile_host_shared(sorted(folder.glob("*.c")), [folder], tmp_path / "strict.so", strict)


@pytest.mark.needs("gcc")
def test_twins_are_clean_under_the_sanitizers(model: GeneratedModel, tmp_path: Path) -> None:
    run_sanitized(write(model, tmp_path / "generated"), len(NETS), tmp_path)


# ---- where it runs ----


def test_it_only_runs_where_it_is_allowed(graph: QGraph) -> None:
    assert not any("winograd" in name for name in generate(graph, "dsp").files)


def test_it_is_chosen_where_its_flash_pays() -> None:
    square = net("square")
    chosen = {mode: generate(square, "dsp", Options(mode, winograd=True)) for mode in ("speed", "flash")}
    others = {other["kernel"] for other in chosen["flash"].layers[0].others}
    assert not chosen["flash"].layers[0].kernel.startswith("winograd") and "winograd t1" in others
    fastest = min(chosen["flash"].layers[0].others, key=lambda other: other["cycles"])
    assert fastest["kernel"].startswith("winograd")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 1, 8, 8), {}),  # one row: an output tile has two
        ((1, 8, 3, 8), {}),
        ((1, 8, 8, 3), {}),
        ((1, 8, 8, 8), {"stride": (2, 2)}),
        ((1, 8, 8, 8), {"dilation": (2, 2)}),
        ((1, 8, 8, 8), {"kernel": (3, 1)}),
        ((1, 4, 126, 4), {}),
        ((1, 4, 4, 132), {}),
    ],
)
def test_other_convolutions_keep_their_kernels(shape: tuple[int, ...], options: dict[str, object]) -> None:
    b = Builder(np.random.default_rng(1))
    graph = b.graph(b.conv(b.input(shape), 4, **options))  # type: ignore[arg-type]
    assert winograd.plan(Case(graph, 0)) is None


# ---- arithmetic ----


@pytest.mark.parametrize("extreme", (False, True))
def test_the_identity_is_exact_at_four_times_the_sum(extreme: bool) -> None:
    rng = np.random.default_rng(2)
    g = rng.integers(-127, 128, (5, 3, 3, 4)).astype(np.int8)
    d = rng.integers(-128, 128, (4, 4, 4))
    if extreme:
        g, d = np.where(g > 0, 127, -127).astype(np.int8), np.where(d > 0, 127, -128)
    b = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    a = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    inputs = np.einsum("ri,ijk,cj->rck", b, d, b)
    products = (winograd.transform(g) * inputs).sum(axis=3)
    direct = [[(g * d[y : y + 3, x : x + 3]).sum(axis=(1, 2, 3)) for x in range(2)] for y in range(2)]
    assert np.array_equal(np.einsum("yr,orc,xc->yxo", a, products, a), 4 * np.array(direct))
    assert np.abs(inputs).max() <= 512


def test_transformed_weights_fit() -> None:
    assert np.abs(winograd.transform(np.full((1, 3, 3, 1), -127, np.int8))).max() == 9 * 127


@pytest.mark.parametrize("seed", range(4))
def test_proved_roundings_are_exact_at_every_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    multipliers, shifts = rng.integers(1 << 30, 1 << 31, 6), rng.integers(6, 10, 6)
    highest, lowest = rng.integers(1000, 100_000, 6), -rng.integers(0, 100_000, 6)
    zeros = np.zeros(6, np.int64)
    linear = Linear(np.zeros((6, 9), np.int8), zeros, lowest, highest, multipliers, shifts)
    found = winograd.possible_roundings(linear, rng.integers(100, 1144, 6))
    assert found
    for shift, rounding in found.items():
        for channel in range(6):
            sums = np.arange(lowest[channel], highest[channel] + 1)
            carried = sums << int(rounding.carried[channel])
            assert np.abs(carried).max() < 1 << 31
            t = (carried * rounding.proved.multipliers[channel] >> 32) + rounding.proved.constants[channel]
            scaled = arithmetic.multiply_by_quantized_multiplier(
                sums, int(multipliers[channel]), -int(shifts[channel])
            )
            assert np.array_equal(np.clip(t >> shift, -128, 127), np.clip(scaled - 128, -128, 127))


@pytest.mark.parametrize("name", NETS)
def test_packed_weights_fit_their_halves(name: str) -> None:
    graph = net(name)
    plan = winograd.plan(Case(graph, len(graph.ops) - 1))
    assert plan is not None
    largest = np.abs(plan.transformed).max(axis=(1, 2, 3))
    for rounding in plan.proofs.values():
        assert (largest << (rounding.carried - winograd.LEAST_BITS)).max() < 1 << 15
    shift = max(plan.proofs, default=0)
    words = plan.linear.weights.shape[0] // 2
    each = winograd_leaves.pair_bytes(plan.transformed.shape[3]) + (16 if shift else 12)
    assert winograd.packed(plan, shift).nbytes == words * each


# ---- a known model ----


@pytest.mark.shared
def test_a_known_model_gives_its_golden_bytes_in_fewer_instructions(
    clang: Compiler, tmp_path: Path, shared: Path
) -> None:
    name, data = "pretrainedResnet_quant", shared / "data/mlperf_tiny"
    graph = read_tflite((data / f"models/{name}.tflite").read_bytes(), name)
    folder, target = write(generate(graph, "dsp", ALLOWED), tmp_path / "generated"), mcu_target()
    build_image(folder, target, clang, tmp_path / "image")
    x = np.fromfile(data / f"golden/{name}.input.bin", np.uint8).reshape(-1, 32 * 32 * 3)[-2:]
    golden = np.fromfile(data / f"golden/{name}.output.bin", np.uint8).reshape(-1, 10)[-2:]
    layers = folder / "layers.json"
    # The second sample runs without the watch: the emulator then cuts long straight code elsewhere.
    result = run_image(tmp_path / "image/firmware.elf", layers, target, x, counted=2, watched=1)
    assert np.array_equal(result.outputs.view(np.uint8), golden)
    assert max(result.instructions) <= 6.7e6
