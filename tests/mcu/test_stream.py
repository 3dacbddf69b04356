"""Layers by rows: the windows hold what is needed, every byte is the reference's, less memory is taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.chains import make_chain
from edgekd.mcu.choice import choose
from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.options import Options
from edgekd.mcu.plan import plan
from edgekd.mcu.segments import chains_of, walk
from edgekd.mcu.stream import Stage, parkable, simulate
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from tests.graphs import Builder, inputs_for
from tests.mcu import diff_faults as faults
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import merge, pack, run_sanitized, unpack, write

FORMS = ("rows 1", "rows 2 parked", "rows 3", "rows 3 parked", "rows 4")
RAM = Options("ram")


def random_stages(seed: int) -> list[Stage]:
    """A chain with filters, strides and paddings; some stages add what an earlier one made."""
    rng = np.random.default_rng(seed)
    height, made, stages = int(rng.integers(5, 40)), [(0, 0)], list[Stage]()
    for at in range(int(rng.integers(1, 7))):
        source, most = made[-1][0], int(rng.integers(1, 5))
        others = [t for t, h in made[1:-1] if h == height]
        if others and rng.random() < 0.4:
            stage = Stage(at, source, at + 1, height, height, most=most, other=others[-1])
        else:
            k, s = int(rng.integers(1, 4)), int(rng.integers(1, 3))
            pad = int(rng.integers(0, k))
            out = max(1, (height + pad + int(rng.integers(0, k)) - k) // s + 1)
            stage = Stage(at, source, at + 1, height, out, k, s, pad, most)
        stages.append(stage)
        height = stage.out_rows
        made = [(at, height)] if not made else [*made, (at + 1, height)]
    return stages


@pytest.mark.parametrize("seed", range(60))
def test_windows_hold_every_row_that_is_still_needed(seed: int) -> None:
    stages = random_stages(seed)
    for parked in (frozenset[int](), frozenset(parkable(stages))):
        trace = simulate(stages, parked)
        assert trace.is_whole
        made = {stage.output: 0 for stage in stages}
        for at, first, rows in trace.runs:
            stage = stages[at]
            assert first == made[stage.output] and 1 <= rows <= stage.most
            above = (first + rows - 1) * stage.stride - stage.pad_top + stage.filter_h
            if stage.input in made:  # the lowest row that the run reads exists, or is padding below the last
                assert min(above, stage.in_rows) <= made[stage.input]
            made[stage.output] += rows
            readers = [s for s in stages if stage.output in s.inputs]
            needed = [
                s.needed(made[s.output]) if s.input == stage.output else made[s.output] for s in readers
            ]
            held = made[stage.output] - min(needed, default=0)
            assert not readers or held <= trace.held[stage.output].window_rows
        assert all(made[stage.output] == stage.out_rows for stage in stages)


def low(b: Builder, x: int) -> int:
    """The zero point of a ReLU's output, for which the DSP family has its shortest rounding."""
    b.tensors[x] = dataclasses.replace(b.tensors[x], zero_point=-128)
    return x


def random_net(seed: int) -> QGraph:
    """Convolutions, depthwise and pointwise layers, residual blocks and a pool at the end."""
    rng = np.random.default_rng([11, seed])
    b = Builder(rng, f"net{seed}")
    height, width = int(rng.integers(6, 20)), int(rng.integers(6, 14))
    x = low(b, b.conv(b.input((1, height, width, int(rng.integers(1, 5)))), 4 * int(rng.integers(1, 4))))
    for _ in range(int(rng.integers(2, 6))):
        channels, choice = b.shape(x)[3], rng.random()
        stride = (2, 2) if rng.random() < 0.3 and min(b.shape(x)[1:3]) > 5 else (1, 1)
        if choice < 0.4:
            x = low(b, b.depthwise(x, kernel=(3, 3), stride=stride))
            x = low(b, b.conv(x, 4 * int(rng.integers(1, 5)), (1, 1)))
        elif choice < 0.7:
            y = low(b, b.conv(low(b, b.conv(x, channels)), channels))
            x = b.binary("ADD", x, y)
        else:
            kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
            x = low(b, b.conv(x, 4 * int(rng.integers(1, 4)), kernel, stride=stride))
    if rng.random() < 0.5:
        shape = b.shape(x)
        x = b.pool(x, "AVERAGE_POOL_2D", (shape[1], shape[2]), padding="VALID")
    return b.graph(x)


def equal_on_host(graph: QGraph, model: GeneratedModel, compiler: Compiler, folder: Path) -> bool:
    inputs = inputs_for(graph, np.random.default_rng(7), 4)
    host = HostModel(write(model, folder / "generated"), compiler, folder / "work")
    found = unpack(graph, host.run(pack(inputs)))
    expected = reference.run(graph, inputs)
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_rows_give_the_references_bytes(form: str, clang: Compiler, tmp_path: Path) -> None:
    graph = merge([random_net(seed) for seed in range(8)])
    model = generate(graph, "dsp", Options(prefer=(form,)))
    assert sum(len(chain.stages) for chain in model.plan.chains) > 20
    assert equal_on_host(graph, model, clang, tmp_path)


@pytest.mark.parametrize("form", ["rows 1", "rows 3 parked"])
def test_what_shares_the_bytes_of_a_chains_input_moves_with_it(
    form: str, clang: Compiler, tmp_path: Path
) -> None:
    """A table that works in place lies in front of a convolution whose output may lie over its input."""
    b = Builder(np.random.default_rng(5), "shared")
    x = b.pool(b.input((1, 14, 15, 4)), "MAX_POOL_2D", (2, 1), padding="VALID", stride=(2, 1))
    x = b.unary("TANH", x)
    graph = b.graph(low(b, b.conv(x, 4, (5, 3))))
    model = generate(graph, "dsp", Options(prefer=(form,)))
    source, output = model.plan.chains[-1].source, model.plan.chains[-1].output
    assert model.plan.offsets[source] > model.plan.offsets[output]  # the input begins behind the output
    assert equal_on_host(graph, model, clang, tmp_path)


@pytest.mark.parametrize("kernel", sorted(faults.STREAM))
def test_a_fault_in_a_kernel_of_rows_is_seen(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    graph = merge([random_net(seed) for seed in range(8)])
    model = generate(graph, "dsp", Options(prefer=("rows 3 parked",)))
    assert not equal_on_host(graph, faults.faulty(model, kernel), clang, tmp_path)


@pytest.mark.parametrize("form", ["rows 2 parked", "rows 3"])
def test_rows_on_the_core_with_the_memory_watched(form: str, clang: Compiler, tmp_path: Path) -> None:
    target = mcu_target()
    for seed in (1, 4):
        graph = random_net(seed)
        model = generate(graph, "dsp", Options(prefer=(form,)))
        assert model.plan.chains
        folder = write(model, tmp_path / f"{seed}")
        build_image(folder, target, clang, tmp_path / f"image{seed}")
        inputs = inputs_for(graph, np.random.default_rng(3), 2)
        result = run_image(
            tmp_path / f"image{seed}" / "firmware.elf",
            folder / "layers.json",
            target,
            pack(inputs),
            counted=1,
            watched=2,
        )
        assert np.array_equal(result.outputs, pack(reference.run(graph, inputs)))
        assert all(row["instructions"] > 0 for row in result.by_layer)


def test_rows_under_sanitizers(tmp_path: Path) -> None:
    for at, form in enumerate(FORMS[1:4]):
        folder = write(generate(random_net(at), "dsp", Options(prefer=(form,))), tmp_path / f"{at}")
        (tmp_path / f"work{at}").mkdir()
        run_sanitized(folder, 1, tmp_path / f"work{at}")


def test_ram_needs_less_and_speed_is_as_it_was() -> None:
    for seed in range(6):
        graph = random_net(seed)
        speed, ram = (generate(graph, "dsp", Options(mode)) for mode in ("speed", "ram"))
        assert ram.arena_bytes <= speed.arena_bytes
        assert not speed.plan.chains


def test_the_walk_finds_what_the_plan_needs() -> None:
    graph = random_net(2)
    chosen = choose(graph, "dsp", RAM)
    cuts = walk(graph, chosen)
    assert [c.peak_bytes for c in cuts] == sorted(c.peak_bytes for c in cuts)
    scratch = {index: found.best.emission.scratch_bytes for index, found in chosen.items()}
    chains = chains_of(graph, chosen, RAM)
    assert plan(graph, scratch, chains).arena_bytes <= plan(graph, scratch).arena_bytes


def test_a_layer_that_cannot_run_by_rows_ends_a_chain() -> None:
    b = Builder(np.random.default_rng(5))
    x = low(b, b.conv(b.input((1, 9, 9, 4)), 8))
    graph = b.graph(b.softmax(low(b, b.conv(b.pool(x, "MAX_POOL_2D", (2, 2)), 8))))
    emissions = {index: found.best.emission for index, found in choose(graph, "dsp", RAM).items()}
    assert make_chain(graph, emissions, 0, 1, 2) is None
    assert make_chain(graph, emissions, 0, 0, 2) is not None


def test_a_dense_layer_widens_its_input_where_it_lies(clang: Compiler, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(6))
    graph = b.graph(b.dense(b.dense(b.input((1, 64)), 16), 64))
    speed, ram = (generate(graph, "dsp", Options(mode)) for mode in ("speed", "ram"))
    assert ram.arena_bytes == speed.arena_bytes - 64
    assert equal_on_host(graph, ram, clang, tmp_path)
