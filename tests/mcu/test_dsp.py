"""The DSP family: rounding proofs, each kernel on the host and on the emulated core, and the known models."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.dsp import depthwise, pairs, rounding
from edgekd.mcu.dsp.assembly import Kernel
from edgekd.mcu.dsp.family import choose_shifts, family_of
from edgekd.mcu.dsp.widen import Window
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

# name: input shape, mark, ops; an op is (kind, channels, filter, stride, padding).
# mark "r": every output has zero point -128.
NETS: dict[str, tuple[tuple[int, ...], str, list[tuple[str, int, tuple[int, int], int, str]]]] = {
    "pointwise": ((1, 5, 7, 8), "r", [("conv", 6, (1, 1), 1, "SAME")]),
    "pointwise-signed": ((1, 4, 4, 12), "", [("conv", 10, (1, 1), 1, "SAME")]),
    "pointwise-strided": ((1, 7, 9, 16), "r", [("conv", 4, (1, 1), 2, "SAME")]),
    "three-pixels": ((1, 1, 3, 4), "r", [("conv", 2, (1, 1), 1, "SAME")]),
    "same": ((1, 6, 5, 8), "r", [("conv", 4, (3, 3), 1, "SAME")]),
    "same-signed-strided": ((1, 9, 8, 4), "", [("conv", 6, (3, 3), 2, "SAME")]),
    "valid": ((1, 6, 7, 4), "r", [("conv", 4, (3, 2), 1, "VALID")]),
    "one-column": ((1, 9, 1, 4), "r", [("conv", 4, (3, 1), 1, "SAME")]),
    "two-columns": ((1, 8, 2, 4), "", [("conv", 4, (3, 3), 1, "SAME")]),
    "rgb": ((1, 8, 8, 3), "r", [("conv", 8, (3, 3), 1, "SAME")]),
    "rgb-strided": ((1, 9, 8, 3), "r", [("conv", 4, (3, 3), 2, "SAME")]),
    "grey-tall": ((1, 17, 6, 1), "r", [("conv", 8, (10, 4), 2, "SAME")]),
    "wide-columns": ((1, 6, 7, 16), "r", [("conv", 4, (3, 3), 1, "SAME")]),
    "many-columns": ((1, 4, 5, 48), "", [("conv", 2, (3, 3), 1, "SAME")]),
    "pooled": (
        (1, 6, 5, 4),
        "r",
        [("conv", 8, (1, 1), 1, "SAME"), ("depthwise", 8, (3, 3), 1, "SAME"), ("pool", 0, (0, 0), 0, "")],
    ),
    "pooled-signed": ((1, 5, 5, 8), "", [("conv", 12, (1, 1), 1, "SAME"), ("pool", 0, (0, 0), 0, "")]),
    "dense-two": ((1, 64), "", [("dense", 2, (0, 0), 0, "")]),
    "dense-ten": ((1, 72), "r", [("dense", 10, (0, 0), 0, "")]),
    "deep": ((1, 3, 4, 52), "r", [("conv", 4, (3, 3), 1, "SAME")]),
    "separable": (
        (1, 6, 5, 4),
        "r",
        [
            ("conv", 8, (1, 1), 1, "SAME"),
            ("depthwise", 8, (3, 3), 1, "SAME"),
            ("conv", 12, (1, 1), 1, "SAME"),
        ],
    ),
    "separable-chain": (
        (1, 12, 12, 3),
        "r",
        [
            ("conv", 8, (3, 3), 2, "SAME"),
            ("depthwise", 8, (3, 3), 1, "SAME"),
            ("conv", 16, (1, 1), 1, "SAME"),
            ("depthwise", 16, (3, 3), 2, "SAME"),
            ("conv", 8, (1, 1), 1, "SAME"),
        ],
    ),
    "sum": ((1, 5, 4, 4), "r", [("conv", 4, (1, 1), 1, "SAME"), ("add", 0, (0, 0), 0, "")]),
    "difference": ((1, 3, 4, 8), "r", [("conv", 8, (3, 3), 1, "SAME"), ("sub", 0, (0, 0), 0, "")]),
    "dense": ((1, 24), "r", [("dense", 8, (0, 0), 0, "")]),
    "padded-conv": ((1, 7, 6, 4), "r", [("pad 2012", 0, (0, 0), 0, ""), ("conv", 4, (3, 3), 1, "VALID")]),
    "padded-conv-strided": (
        (1, 8, 8, 3),
        "r",
        [("pad 0101", 0, (0, 0), 0, ""), ("conv", 8, (3, 3), 2, "VALID")],
    ),
    "padded-depthwise": (
        (1, 6, 7, 4),
        "r",
        [
            ("conv", 8, (1, 1), 1, "SAME"),
            ("pad 1202", 0, (0, 0), 0, ""),
            ("depthwise", 8, (3, 3), 1, "VALID"),
            ("conv", 4, (1, 1), 1, "SAME"),
        ],
    ),
    "padded-depthwise-strided": (
        (1, 8, 6, 4),
        "r",
        [
            ("conv", 8, (1, 1), 1, "SAME"),
            ("pad 0101", 0, (0, 0), 0, ""),
            ("depthwise", 8, (3, 3), 2, "VALID"),
            ("conv", 4, (1, 1), 1, "SAME"),
        ],
    ),
    "dense-signed": ((1, 200), "", [("dense", 12, (0, 0), 0, "")]),
} | {
    f"depthwise-{width}-{stride}-{padding.lower()}": (
        (1, height, width, 4),
        "r",
        [
            ("conv", 4, (1, 1), 1, "SAME"),
            ("depthwise", 4, (3, 3), stride, padding),
            ("conv", 2, (1, 1), 1, "SAME"),
        ],
    )
    for height, width, stride, padding in (
        (4, 3, 1, "SAME"),
        (5, 4, 1, "SAME"),
        (3, 5, 1, "SAME"),
        (4, 6, 1, "SAME"),
        (3, 7, 1, "SAME"),
        (4, 8, 1, "SAME"),
        (5, 9, 1, "VALID"),
        (6, 3, 1, "VALID"),
        (6, 4, 2, "SAME"),
        (7, 5, 2, "SAME"),
        (8, 6, 2, "SAME"),
        (9, 7, 2, "SAME"),
        (9, 11, 2, "VALID"),
        (8, 12, 2, "VALID"),
    )
}


ITS_OWN = ("pairs", "planes", "dense", "sum", "average")  # the family's kernels, where they can run
FORMS = (("pairs u48", "dense u64"), ("pairs u32", "dense u16"), ("pairs u16",), ("pairs u8", "dense u8"))
IN_AN_IMAGE = 4  # nets: the harness takes so many inputs


def net(name: str, seed: int = 0) -> QGraph:
    """One of NETS, with random weights."""
    shape, mark, ops = NETS[name]
    b = Builder(np.random.default_rng([seed, *name.encode()]), name)
    x = b.input(shape)
    for kind, channels, kernel, stride, padding in ops:
        if kind == "dense":
            x = b.dense(x, channels)
        elif kind == "pool":
            x = b.pool(x, "AVERAGE_POOL_2D", b.shape(x)[1:3], padding="VALID")
        elif kind in ("add", "sub"):
            x = b.binary(kind.upper(), b.inputs[0], x)
        elif kind == "conv":
            x = b.conv(x, channels, kernel, stride=(stride, stride), padding=padding)
        elif kind.startswith("pad"):  # top, bottom, left, right
            top, bottom, left, right = (int(n) for n in kind[-4:])
            x = b.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
            continue
        else:
            x = b.depthwise(x, kernel, stride=(stride, stride), padding=padding)
        if mark == "r" and kind != "pool":
            b.tensors[x] = dataclasses.replace(b.tensors[x], zero_point=-128)
    return b.graph(x)


@pytest.fixture(scope="module")
def graph() -> QGraph:
    """All of NETS side by side: one compilation for each compiler."""
    return merge([net(name) for name in NETS])


@pytest.fixture(scope="module")
def model(graph: QGraph) -> GeneratedModel:
    return generate(graph, "dsp", Options(prefer=ITS_OWN))


@pytest.fixture(scope="module")
def samples(graph: QGraph) -> tuple[Array, Array]:
    inputs = inputs_for(graph, np.random.default_rng(5), 12)
    return pack(inputs), pack(reference.run(graph, inputs))


def differing(graph: QGraph, found: Array, expected: Array, nets: list[str]) -> list[str]:
    """The nets whose outputs differ."""
    names, start = [], 0
    for name, output in zip(nets, graph.outputs, strict=True):
        stop = start + graph.tensors[output].nbytes
        if not np.array_equal(found.view(np.uint8)[:, start:stop], expected[:, start:stop]):
            names.append(name)
        start = stop
    return names


# ---- kernels ----


def test_every_kernel_runs_in_some_net(model: GeneratedModel) -> None:
    assembly = model.files["model_dsp.S"]
    names = set(re.findall(r"^(k_dsp_\w+):", assembly, re.MULTILINE))
    for pattern in (
        r"pairs_u\d+_s0",
        r"pairs_u\d+_s[1-9]\d*",
        r"pairs_planes_u\d+_s[1-9]\d*",
        r"widen_[124]",
        r"widen_planes",
        r"widen_shared_c(16|48)",
        r"average_4",
        r"copy_fast",
        r"widen_3x9s\d+",
        r"widen_10x4s\d+",
        r"add_s\d+",
        r"dense_u\d+_s0",
        r"dense_u\d+_s[1-9]\d*",
        *(rf"depthwise_x1t{t}_s\d+" for t in (2, 3, 4)),
        *(rf"depthwise_x2t{t}_s\d+" for t in (1, 2)),
        r"depthwise_x1w[34]_s\d+",
    ):
        assert any(re.fullmatch("k_dsp_" + pattern, name) for name in names), pattern
    portable = [name for name in model.files if re.match("k_(gemm|conv|depthwise|add|average|pad)", name)]
    assert portable == []


def test_the_twins_equal_the_reference(
    graph: QGraph, model: GeneratedModel, samples: tuple[Array, Array], compiler: Compiler, tmp_path: Path
) -> None:
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    assert differing(graph, host.run(samples[0]), samples[1], list(NETS)) == []


@pytest.mark.parametrize("start", range(0, len(NETS), IN_AN_IMAGE))
def test_the_assembly_equals_the_reference(start: int, clang: Compiler, tmp_path: Path) -> None:
    assert failing_on_the_core(start, clang, tmp_path) == []


@pytest.mark.needs("gcc-arm")
def test_the_assembly_is_the_same_for_gnu_as(gcc: Compiler, tmp_path: Path) -> None:
    assert failing_on_the_core(12, gcc, tmp_path) == []


@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_the_reference(form: tuple[str, ...], clang: Compiler, tmp_path: Path) -> None:
    start = list(NETS).index("deep")
    assert {"deep", "separable", "separable-chain"} < set(list(NETS)[start : start + IN_AN_IMAGE])
    assert failing_on_the_core(start, clang, tmp_path / "chain", form) == []
    start = list(NETS).index("dense-two")
    assert failing_on_the_core(start, clang, tmp_path / "dense", form) == []


def failing_on_the_core(
    start: int, compiler: Compiler, tmp_path: Path, prefer: tuple[str, ...] = ITS_OWN
) -> list[str]:
    """The nets of one image, counted from `start`, whose outputs differ on the emulated core."""
    names = list(NETS)[start : start + IN_AN_IMAGE]
    tmp_path.mkdir(exist_ok=True)
    graph = merge([net(name) for name in names])
    inputs = inputs_for(graph, np.random.default_rng(5), 8)
    folder, target = (
        write(generate(graph, "dsp", Options(prefer=prefer)), tmp_path / "generated"),
        mcu_target(),
    )
    build_image(folder, target, compiler, tmp_path / "image")
    layers = folder / "layers.json"
    result = run_image(tmp_path / "image/firmware.elf", layers, target, pack(inputs), counted=1, watched=2)
    expected = pack(reference.run(graph, inputs))
    return differing(graph, result.outputs, expected, names)


def test_twins_are_clean_under_strict_warnings(
    model: GeneratedModel, clang: Compiler, tmp_path: Path
) -> None:
    folder = write(model, tmp_path / "generated")
    strict = ("-Wconversion", "-Wsign-conversion", "-pedantic")
    clang.compile_host_shared(sorted(folder.glob("*.c")), [folder], tmp_path / "strict.so", strict)


@pytest.mark.needs("gcc")
def test_twins_are_clean_under_the_sanitizers(model: GeneratedModel, tmp_path: Path) -> None:
    run_sanitized(write(model, tmp_path / "generated"), len(NETS), tmp_path)


def test_a_layer_outside_the_familys_reach_runs_portable(clang: Compiler, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(1))
    x = b.conv(b.input((1, 5, 5, 4)), 3)  # an odd number of outputs
    x = b.conv(x, 4, dilation=(2, 2))
    graph = b.graph(b.depthwise(x, (2, 2), activation="RELU"))
    model = generate(graph, "dsp")
    assert "model_dsp.S" not in model.files
    assert model.files["model.c"] == generate(graph).files["model.c"]


def test_the_same_graph_gives_the_same_text(graph: QGraph, model: GeneratedModel) -> None:
    assert generate(graph, "dsp").files == model.files


# ---- rounding ----


def exact(sums: Array, multiplier: int, shift: int) -> Array:
    """TFLite's output of each sum, zero point -128."""
    scaled = arithmetic.multiply_by_quantized_multiplier(sums, multiplier, -shift)
    return np.clip(scaled - 128, -128, 127)


@pytest.mark.parametrize("s", (1, 2, 5, 8, 11, 16))
def test_steps_are_where_the_output_changes(s: int) -> None:
    rng = np.random.default_rng(s)
    multipliers = np.array([1 << 30, (1 << 31) - 1, *rng.integers(1 << 30, 1 << 31, 6)])
    first = rounding.steps(multipliers, np.full(8, s))
    for multiplier, row in zip(multipliers, first, strict=True):
        k = np.arange(1, 256)
        assert np.array_equal(exact(row, int(multiplier), s), np.clip(k - 128, -128, 127))
        assert (exact(row - 1, int(multiplier), s) < k - 128).all()


@pytest.mark.parametrize("seed", range(4))
def test_proved_roundings_are_exact_at_every_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    multipliers, shifts = rng.integers(1 << 30, 1 << 31, 6), rng.integers(5, 8, 6)
    highest = rng.integers(1000, 100_000, 6)
    lowest = -rng.integers(0, 100_000, 6)
    proofs = rounding.possible_shifts(multipliers, shifts, lowest, highest)
    assert proofs
    for shift, proved in proofs.items():
        for channel in range(6):
            sums = np.arange(lowest[channel], highest[channel] + 1)
            t = ((sums * 256 * proved.multipliers[channel]) >> 32) + proved.constants[channel]
            wanted = exact(sums, int(multipliers[channel]), int(shifts[channel]))
            assert np.array_equal(np.clip(t >> shift, -128, 127), wanted)


@pytest.mark.parametrize("seed", range(4))
def test_folded_roundings_are_exact_at_every_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    multipliers, shifts = rng.integers(1 << 30, 1 << 31, 6), rng.integers(4, 9, 6)
    highest = rng.integers(1000, 60_000, 6)
    lowest = -rng.integers(0, 60_000, 6)
    highest[0], lowest[0] = 12, 10  # a channel that never changes
    folds = rounding.possible_folds(multipliers, shifts, lowest, highest)
    assert folds
    for shift, folded in folds.items():
        for channel in range(6):
            sums = np.arange(lowest[channel], highest[channel] + 1)
            wanted = exact(sums, int(multipliers[channel]), int(shifts[channel]))
            factor = 0 if folded.is_constant[channel] else 1 << (8 + int(folded.left[channel]))
            t = ((sums * factor + folded.constants[channel]) * folded.multipliers[channel]) >> 32
            assert folded.exact[channel]
            assert np.array_equal(np.clip(t >> shift, -128, 127), wanted)
            assert (np.abs(sums * factor + folded.constants[channel]) < 1 << 31).all()


def test_a_rounding_that_cannot_be_exact_is_refused() -> None:
    multipliers, shifts = np.array([(1 << 31) - 1, 1 << 30]), np.array([2, 21])
    lowest, highest = np.array([-4000, -4_000_000]), np.array([4000, 4_000_000])
    assert rounding.possible_shifts(multipliers, shifts, lowest, highest) == {}


# ---- text and tables ----


def test_layers_share_shifts() -> None:
    assert choose_shifts({0: [12, 13], 1: [13, 14], 2: [9], 3: []}) == {0: 13, 1: 13, 2: 9, 3: 0}


def test_families() -> None:
    assert (family_of("cortex-m4"), family_of("cortex-m0plus")) == ("dsp", "portable")


@pytest.mark.parametrize("planes", (False, True))
@pytest.mark.parametrize("shift", (0, 13))
def test_a_step_of_the_unrolled_loop_is_of_one_size(shift: int, planes: bool) -> None:
    text = pairs.kernel(shift, 16, planes).text
    loop = text.split("\n2:\n")[1].split("cmp r12")[0].split("\n")
    lines = [line.strip() for line in loop if line.strip()]
    assert len(lines) == 4 * pairs.STEP_INSTRUCTIONS
    assert all(re.match(r"(ldrd|ldmia\.w|smlad|sxtb16) ", line) for line in lines)  # four bytes each


def test_windows_name_every_input_once() -> None:
    for window in (Window(3, 9, 30), Window(1, 64, 64), Window(10, 4, 12), Window(2, 6, 40)):
        order = [i for i in window.order() if i >= 0]
        assert sorted(order) == list(range(window.rows * window.row_bytes))
        assert len(window.order()) == window.depth


@pytest.mark.parametrize("stride", (1, 2))
def test_turns_and_tail_make_the_width(stride: int) -> None:
    for width in range(1, 60):
        if depthwise.is_looped(width, stride):
            each = 3 if stride == 1 else 2
            assert (depthwise.turns(width, stride) + 1) * each + depthwise.tail(width, stride) == width
        else:
            assert width <= 4


def test_a_kernel_names_its_twin() -> None:
    kernel = depthwise.kernel(6, 1, 15)
    assert isinstance(kernel, Kernel) and kernel.twin == depthwise.TWIN


# ---- known models ----

# Instructions in millions, RAM (arena, static, stack) and code with constants in bytes: each at most.
LIMITS = {
    "ad01_int8": (0.27, 3_400, 8_000),
    "kws_ref_model": (2.6, 24_000, 14_000),
    "pretrainedResnet_quant": (11.6, 40_000, 16_000),
    "vww_96_int8": (4.6, 60_000, 18_000),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", LIMITS)
def test_known_models_give_their_golden_bytes_within_their_limits(
    name: str, clang: Compiler, tmp_path: Path, shared: Path
) -> None:
    data = shared / "data/mlperf_tiny"
    graph = read_tflite((data / f"models/{name}.tflite").read_bytes(), name)
    model = generate(graph, "dsp")
    folder, target = write(model, tmp_path / "generated"), mcu_target()
    host = HostModel(folder, clang, tmp_path / "work")
    x = np.fromfile(data / f"golden/{name}.input.bin", np.int8).reshape(-1, host.input_bytes)
    golden = np.fromfile(data / f"golden/{name}.output.bin", np.int8).reshape(-1, host.output_bytes)
    assert np.array_equal(host.run(x), golden)
    build_image(folder, target, clang, tmp_path / "image")
    layers = folder / "layers.json"
    few = x[-3:].view(np.uint8)
    result = run_image(tmp_path / "image/firmware.elf", layers, target, few, counted=1, watched=1)
    assert np.array_equal(result.outputs.view(np.int8), golden[-3:])
    image = json.loads((tmp_path / "image/image.json").read_text())
    millions, ram_bytes, code_bytes = LIMITS[name]
    assert max(result.instructions) <= millions * 1e6
    assert model.arena_bytes + image["ram_bytes"]["static"] + result.peak_stack_bytes <= ram_bytes
    assert image["flash_bytes"]["code"] + image["flash_bytes"]["constants"] <= code_bytes
