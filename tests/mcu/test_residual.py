"""Convolution and ADD as one layer: on the host, on the emulated core, in the plan and in the choice."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.diff import by_reference, compare
from edgekd.mcu.diff_code import by_host
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.options import Options
from edgekd.mcu.plan import plan
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fuse_residual import fuse_residuals
from edgekd.qgraph.residual import KIND
from tests.graphs import Builder, inputs_for
from tests.mcu import diff_faults
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import Array, merge, pack, run_sanitized, write
from tests.mcu.test_dsp import ITS_OWN

FORCED = Options(prefer=(*ITS_OWN, "residual"))
# name: height, width, inner and outer channels, filter, zero points of -128, whether the ADD's operands are
# swapped. Pixels are 0, 1 and 2 more than a multiple of three.
NETS: dict[str, tuple[int, int, int, int, tuple[int, int], bool, bool]] = {
    "same": (6, 6, 8, 8, (3, 3), True, False),
    "one-more": (5, 5, 4, 12, (3, 3), True, True),
    "two-more": (4, 5, 4, 4, (3, 3), True, False),
    "signed": (5, 7, 8, 4, (3, 3), False, True),
    "pointwise": (4, 4, 8, 16, (1, 1), True, False),
    "pointwise-signed": (5, 4, 12, 8, (1, 1), False, False),
    "one-column": (7, 1, 4, 4, (3, 1), True, False),
    "two-columns": (8, 2, 4, 4, (3, 3), False, True),
}
IN_AN_IMAGE = 4


def net(name: str) -> QGraph:
    """x, a convolution of it, and a convolution of that plus x."""
    height, width, inner, outer, kernel, low, swapped = NETS[name]
    b = Builder(np.random.default_rng([1, *name.encode()]), name)

    def point(x: int) -> int:
        if low:
            b.tensors[x] = dataclasses.replace(b.tensors[x], zero_point=-128)
        return x

    x = point(b.conv(b.input((1, height, width, 4), scale=0.05), outer, (1, 1)))
    y = point(b.conv(point(b.conv(x, inner, kernel)), outer, kernel))
    scale = float(b.tensors[x].scale[0])
    b.tensors[y] = dataclasses.replace(b.tensors[y], scale=np.array([scale * 0.8], np.float32))
    z = b.activation(b.shape(x), scale * 1.5, -128 if low else None)
    return b.graph(b.op("ADD", (x, y) if swapped else (y, x), z, activation="NONE"))


@pytest.fixture(scope="module")
def graph() -> QGraph:
    return merge([net(name) for name in NETS])


@pytest.fixture(scope="module")
def model(graph: QGraph) -> GeneratedModel:
    return generate(graph, "dsp", FORCED)


def differing(graph: QGraph, found: Array, inputs: list[Array], nets: list[str]) -> list[str]:
    """The nets whose outputs are not the reference's."""
    expected = pack(reference.run(graph, inputs))
    ends = np.cumsum([graph.tensors[output].nbytes for output in graph.outputs])[:-1]
    parts = zip(
        nets, *(np.split(rows, ends, axis=1) for rows in (found.view(np.uint8), expected)), strict=True
    )
    return [name for name, a, b in parts if not np.array_equal(a, b)]


def test_every_net_runs_as_one_layer(model: GeneratedModel) -> None:
    kernels = [layer.kernel for layer in model.layers if layer.op == KIND]
    assert len(kernels) == len(NETS)
    assert all(re.fullmatch(r"pairs u\d+ \+ sum", kernel) for kernel in kernels)
    assert "k_copy_rows_8.c" not in model.files  # all in place
    source = model.files["model.c"]
    assert ".run = k_dsp_conv_s8," in source and ".run = k_dsp_pointwise_s8," in source
    assert "8 ADDs fused into the convolution in front" in model.passes


def test_the_twins_equal_the_reference(
    graph: QGraph, model: GeneratedModel, compiler: Compiler, tmp_path: Path
) -> None:
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    inputs = inputs_for(graph, np.random.default_rng(5), 12)
    assert differing(graph, host.run(pack(inputs)), inputs, list(NETS)) == []


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("start", range(0, len(NETS), IN_AN_IMAGE))
def test_the_assembly_equals_the_reference(start: int, clang: Compiler, tmp_path: Path) -> None:
    names = list(NETS)[start : start + IN_AN_IMAGE]
    graph = merge([net(name) for name in names])
    inputs = inputs_for(graph, np.random.default_rng(6), 6)
    folder, target = write(generate(graph, "dsp", FORCED), tmp_path / "generated"), mcu_target()
    build_image(folder, target, clang, tmp_path / "image")
    layers = folder / "layers.json"
    result = run_image(tmp_path / "image/firmware.elf", layers, target, pack(inputs), counted=1, watched=2)
    assert differing(graph, result.outputs, inputs, names) == []


def test_twins_are_clean_under_strict_warnings(
    model: GeneratedModel, clang: Compiler, tmp_path: Path
) -> None:
    folder = write(model, tmp_path / "generated")
    strict = ("-Wconversion", "-Wsign-conversion", "-pedantic")
    clang.compile_host_shared(sorted(folder.glob("*.c")), [folder], tmp_path / "strict.so", strict)


@pytest.mark.needs("gcc")
def test_twins_are_clean_under_the_sanitizers(model: GeneratedModel, tmp_path: Path) -> None:
    run_sanitized(write(model, tmp_path / "generated"), len(NETS), tmp_path)


def shared_operand() -> QGraph:
    """The other operand is a RESHAPE of a tensor that is needed later: the sum cannot take its place."""
    b = Builder(np.random.default_rng(9))
    x = b.conv(b.input((1, 4, 5, 4), scale=0.05), 8, (1, 1))
    same = b.reshape(x, (1, 4, 5, 8))
    y = b.conv(b.conv(x, 8), 8)
    scale = float(b.tensors[x].scale[0])
    b.tensors[y] = dataclasses.replace(b.tensors[y], scale=np.array([scale * 0.8], np.float32))
    z = b.op("ADD", (y, same), b.activation(b.shape(x), scale * 1.5), activation="NONE")
    return b.graph(z, b.unary("LOGISTIC", x))


def test_an_operand_that_is_needed_later_is_copied(compiler: Compiler, tmp_path: Path) -> None:
    graph = shared_operand()
    model = generate(graph, "dsp", FORCED)
    assert [layer.op for layer in model.layers].count(KIND) == 1 and "k_copy_rows_8.c" in model.files
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    inputs = inputs_for(graph, np.random.default_rng(5), 12)
    assert differing(graph, host.run(pack(inputs)), inputs, ["sum", "gate"]) == []


def test_the_sum_does_not_take_the_place_of_what_the_convolution_reads() -> None:
    b = Builder(np.random.default_rng(9))
    x = b.conv(b.input((1, 4, 5, 4)), 8, (1, 1))
    same = b.reshape(x, (1, 4, 5, 8))
    graph = fuse_residuals(b.graph(b.binary("ADD", b.conv(x, 8), same))).graph
    (op,) = (op for op in graph.ops if op.kind == KIND)
    offsets = plan(graph).offsets
    assert offsets[op.inputs[0]] == offsets[op.inputs[3]] != offsets[op.outputs[0]]


def test_it_is_fused_only_where_the_arena_becomes_smaller() -> None:
    graph = net("same")
    assert [layer.op for layer in generate(graph, "dsp").layers] == ["CONV_2D", "CONV_2D", KIND]
    b = Builder(np.random.default_rng(4))
    wide = b.conv(b.input((1, 16, 16, 8)), 8, (1, 1))  # needs more than all behind it
    x = b.conv(wide, 4, stride=(4, 4))
    y = b.conv(b.conv(x, 4), 4)
    late = b.graph(b.binary("ADD", y, x))
    assert KIND not in [layer.op for layer in generate(late, "dsp").layers]
    assert KIND not in [layer.op for layer in generate(graph, "portable").layers]
    assert KIND not in [layer.op for layer in generate(graph, "dsp", Options(prefer=("portable",))).layers]


def test_a_fault_is_found_in_the_sum(clang: Compiler, tmp_path: Path) -> None:
    graph = net("one-more")
    model = diff_faults.faulty(generate(graph, "dsp", FORCED), "k_dsp_residual_s8")
    inputs = inputs_for(graph, np.random.default_rng(3), 16)
    found = compare(graph, inputs, by_reference, by_host(model, clang, tmp_path)).first
    assert found is not None and (found.op, found.kind) == (3, "ADD")
    assert found.a != found.b and found.accumulator_a is None
