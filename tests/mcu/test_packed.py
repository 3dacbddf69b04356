"""Weights as indices on the device: both families give the reference's bytes, on the host and the core."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu import codegen_packed
from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.dsp import conv, packed
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.options import Options
from edgekd.mcu.plan import room_bytes
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import encoding, reference
from edgekd.qgraph.codebook import share_weights
from edgekd.qgraph.ir import QGraph
from tests.graphs import Builder, inputs_for
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import merge, pack, write

# name: input shape, entries, tables, output's zero point is -128, ops (kind, channels, filter, stride)
NETS: dict[str, tuple[tuple[int, ...], int, int, bool, list[tuple[str, int, tuple[int, int], int]]]] = {
    "pointwise": ((1, 5, 7, 32), 16, 1, True, [("conv", 20, (1, 1), 1)]),
    "pointwise-tables": ((1, 4, 5, 36), 16, 3, False, [("conv", 18, (1, 1), 1)]),
    "pointwise-four": ((1, 3, 5, 64), 4, 2, True, [("conv", 12, (1, 1), 1)]),
    "same": ((1, 6, 5, 16), 16, 1, True, [("conv", 24, (3, 3), 1)]),
    "same-strided-signed": ((1, 9, 7, 8), 11, 24, False, [("conv", 24, (3, 3), 2)]),
    "same-four": ((1, 6, 5, 16), 4, 1, False, [("conv", 16, (3, 3), 1)]),
    "rgb": ((1, 8, 8, 3), 16, 1, True, [("conv", 16, (3, 3), 1)]),
    "odd-outputs": ((1, 5, 4, 10), 16, 7, True, [("conv", 7, (3, 3), 1)]),
    "odd-four": ((1, 5, 4, 9), 3, 1, True, [("conv", 9, (3, 3), 1)]),
    "planes": (
        (1, 6, 5, 8),
        16,
        2,
        True,
        [("conv", 32, (1, 1), 1), ("depthwise", 32, (3, 3), 1), ("conv", 24, (1, 1), 1)],
    ),
    "planes-four": (
        (1, 6, 5, 16),
        4,
        4,
        True,
        [("conv", 24, (1, 1), 1), ("depthwise", 24, (3, 3), 1), ("conv", 16, (1, 1), 1)],
    ),
}
ON_THE_CORE = ("pointwise-tables", "same", "same-four", "planes")


def net(name: str) -> QGraph:
    """One of NETS with random weights in its tables."""
    shape, entries, tables, low, ops = NETS[name]
    b = Builder(np.random.default_rng([1, *name.encode()]), name)
    x = b.input(shape)
    for kind, channels, kernel, stride in ops:
        if kind == "conv":
            x = b.conv(x, channels, kernel, stride=(stride, stride))
        else:
            x = b.depthwise(x, kernel, stride=(stride, stride))
        if low:
            b.tensors[x] = dataclasses.replace(b.tensors[x], zero_point=-128)
    return share_weights(b.graph(x), entries, tables)


def plain(graph: QGraph) -> QGraph:
    """The same function with its weights stored plainly."""
    return dataclasses.replace(
        graph, tensors=tuple(dataclasses.replace(t, encoding=None) for t in graph.tensors)
    )


def weights_bytes(model: GeneratedModel) -> int:
    from edgekd.mcu.footprint import predict

    return predict(model, "clang").weights


@pytest.fixture(params=["whole", "in parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether layers are unpacked at once, or in the smallest parts."""
    if request.param == "in parts":
        monkeypatch.setattr(packed, "REGATHER_SHARE", 1e9)
        monkeypatch.setattr(codegen_packed, "REGATHER_SHARE", 1e9)
        for module in (conv, codegen_packed):
            monkeypatch.setattr(module, "room_bytes", lambda graph: [0] * len(graph.ops))
    return str(request.param)


@pytest.mark.parametrize("family", ("portable", "dsp"))
def test_the_host_gives_the_references_bytes(
    family: str, parts: str, compiler: Compiler, tmp_path: Path
) -> None:
    graph = merge([net(name) for name in NETS])
    model = generate(graph, family)
    kernels = {"portable": ("k_gemm_packed_s8", "k_conv_2d_packed_s8"), "dsp": ("k_dsp_packed_s8",)}
    for kernel in (*kernels[family], *(["k_dsp_unpack2_s8", "k_dsp_unpack4_s8"] if family == "dsp" else [])):
        assert f"{kernel}.c" in model.files
    chunks = [int(found) for found in re.findall(r"\.chunk = (\d+),", model.files["model.c"])]
    assert (max(chunks) > 16) if parts == "whole" else (max(chunks) <= 4)
    inputs = inputs_for(graph, np.random.default_rng(5), 6)
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    assert np.array_equal(host.run(pack(inputs)).view(np.uint8), pack(reference.run(graph, inputs)))
    assert np.array_equal(reference.run(plain(graph), inputs)[0], reference.run(graph, inputs)[0])


@pytest.mark.parametrize("family", ("portable", "dsp"))
def test_the_core_gives_the_references_bytes(
    family: str, parts: str, clang: Compiler, tmp_path: Path
) -> None:
    graph = merge([net(name) for name in ON_THE_CORE])
    inputs = inputs_for(graph, np.random.default_rng(5), 2)
    folder = write(generate(graph, family), tmp_path / "generated")
    build_image(folder, mcu_target(), clang, tmp_path / "image")
    result = run_image(
        tmp_path / "image/firmware.elf",
        folder / "layers.json",
        mcu_target(),
        pack(inputs),
        counted=1,
        watched=1,
    )
    assert np.array_equal(result.outputs.view(np.uint8), pack(reference.run(graph, inputs)))
    image = json.loads((tmp_path / "image/image.json").read_text("utf-8"))
    assert image["flash_bytes"]["weights"] == weights_bytes(generate(graph, family))


@pytest.mark.parametrize("family", ("portable", "dsp"))
def test_weights_take_half_or_a_quarter(family: str) -> None:
    for entries, share in ((16, 0.5), (4, 0.25)):
        b = Builder(np.random.default_rng(1))
        given = share_weights(b.graph(b.conv(b.input((1, 6, 6, 64)), 64)), entries)
        before, after = (weights_bytes(generate(g, family)) for g in (plain(given), given))
        assert before - after == 64 * 64 * 9 * (1 - share) - entries


def test_weights_that_are_used_once_stay_plain() -> None:
    b = Builder(np.random.default_rng(2))
    given = share_weights(b.graph(b.dense(b.input((1, 64)), 32)))
    for family in ("portable", "dsp"):
        assert generate(given, family).files == generate(plain(given), family).files


@pytest.mark.parametrize("family", ("portable", "dsp"))
def test_where_flash_is_the_limit_they_are_packed_too(
    family: str, compiler: Compiler, tmp_path: Path
) -> None:
    b = Builder(np.random.default_rng(2))
    given = share_weights(b.graph(b.dense(b.input((1, 64)), 37)))
    model = generate(given, family, Options(optimize="flash"))
    assert weights_bytes(model) < 0.75 * weights_bytes(generate(given, family))
    inputs = inputs_for(given, np.random.default_rng(3), 6)
    host = HostModel(write(model, tmp_path / "generated"), compiler, tmp_path / "work")
    assert np.array_equal(host.run(pack(inputs)).view(np.uint8), pack(reference.run(given, inputs)))


def test_tables_of_256_values_are_int8_and_change_nothing() -> None:
    b = Builder(np.random.default_rng(3))
    given = share_weights(b.graph(b.conv(b.input((1, 6, 6, 32)), 32)), 256)
    assert given.tensors[given.ops[0].inputs[1]].encoding is not None
    for family in ("portable", "dsp"):
        assert generate(given, family).files == generate(plain(given), family).files


def test_without_a_zero_in_the_table_missing_inputs_cannot_be_filled() -> None:
    b = Builder(np.random.default_rng(4))
    graph = b.graph(b.conv(b.input((1, 8, 8, 3)), 16))
    weights = graph.ops[0].inputs[1]
    tensors = list(graph.tensors)
    data = np.where(np.asarray(tensors[weights].data) > 0, 3, -5).astype(np.int8)
    found = encoding.encode(data, np.array([3, -5]))
    tensors[weights] = dataclasses.replace(tensors[weights], data=data, encoding=found)
    graph = dataclasses.replace(graph, tensors=tuple(tensors))
    packed, dense = generate(graph, "dsp").files, generate(plain(graph), "dsp").files
    assert {name for name in packed if packed[name] != dense.get(name)} == {"layers.json"}  # the runners-up
    assert packed.keys() == dense.keys()
    assert generate(graph).files != generate(plain(graph)).files


def test_scratch_is_in_the_plan_and_uses_what_is_free() -> None:
    b = Builder(np.random.default_rng(6))
    x = b.conv(b.input((1, 16, 16, 16)), 64, stride=(2, 2))  # its output is the fullest step
    x = b.conv(x, 32, stride=(2, 2))
    given = share_weights(b.graph(x))
    for family in ("portable", "dsp"):
        model = generate(given, family)
        assert model.plan.arena_bytes >= generate(plain(given), family).plan.arena_bytes
        assert set(model.plan.scratch) == {0, 1}
    assert room_bytes(given)[1] > 0 == room_bytes(given)[0]


@pytest.mark.parametrize(
    ("room", "most", "chunk"),
    [(0, 1, 24), (0, 100, 2), (1000, 100, 12), (600, 100, 12), (600, 2, 12), (400, 100, 8)],
)
def test_a_chunk_fits_the_room_within_the_most_parts(room: int, most: int, chunk: int) -> None:
    assert packed.chunk_of(24, 2, 100, room, most) == chunk
