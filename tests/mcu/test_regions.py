"""Tensors in two RAMs, weights in external flash: the same bytes, the hottest in the fast one, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import BudgetError, ConfigError, VerifyError
from edgekd.mcu.check import check
from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.footprint import predict
from edgekd.mcu.host import HostModel
from edgekd.mcu.library import Library
from edgekd.mcu.options import Options, Regions, options_for
from edgekd.mcu.plan_answer import tell
from edgekd.mcu.plan_picture import plan_svg
from edgekd.mcu.regions import POINTER_BYTES, accesses
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.target import Memory, Region, Target, load_target
from tests.graphs import Builder, inputs_for, small_net
from tests.mcu.firmware_models import mcu_target, write_model
from tests.mcu.generated import pack, write
from tests.random_graphs import wide_graph

ROOT = Path(__file__).resolve().parents[2]
SECTION = ".slow_ram"


def split(graph: QGraph, family: str = "dsp", share: float = 0.5, **options: object) -> GeneratedModel:
    """The C with `share` of the arena's bytes in the fast RAM at the most."""
    whole = generate(graph, family).arena_bytes
    regions = Regions(round(share * whole) + POINTER_BYTES, 1 << 20, SECTION, 4)
    return generate(graph, family, Options(regions=regions, **options))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.25, 0.5, 0.75, 0.95]))
def test_both_parts_are_plans_of_their_own(seed: int, share: float) -> None:
    graph = wide_graph(np.random.default_rng(seed))
    model = split(graph, "dsp", share)
    where, whole = model.plan, generate(graph, "dsp").arena_bytes
    assert where.slow_bytes % 8 == 0
    assert model.arena_bytes <= (max(share * whole, 1) + 1 if where.slow_bytes else whole)
    for block in where.blocks:
        end = block.offset_bytes + block.size_bytes
        assert end <= (where.slow_bytes if block.is_slow else where.arena_bytes)
        for tensor in block.tensors:
            assert block.offset_bytes <= where.offsets[tensor]
            assert where.offsets[tensor] + model.graph.tensors[tensor].nbytes <= end
            assert (tensor in where.slow) == block.is_slow
        for other in where.blocks:
            apart = other is block or other.is_slow != block.is_slow
            apart = apart or block.last < other.first or other.last < block.first
            low = max(block.offset_bytes, other.offset_bytes)
            assert apart or low >= min(end, other.offset_bytes + other.size_bytes)
    answer = tell(model)
    assert plan_svg(answer).count("<g>") == len(where.blocks)
    assert where.slow_bytes == 0 or "lie in slow RAM" in answer["advice"][0]


@pytest.mark.parametrize(("seed", "updatable"), [(1, False), (2, False), (3, True), (4, False)])
def test_outputs_keep_every_byte(seed: int, updatable: bool, compiler: Compiler, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    graph = wide_graph(rng)
    library = Library(prefix="kws" if seed % 2 else "model", is_updatable=updatable)
    model = split(graph, "portable" if updatable else "dsp", library=library)
    assert model.plan.slow_bytes > 0
    inputs = inputs_for(graph, rng, 6)
    host = HostModel(write(model, tmp_path / "c"), compiler, tmp_path / "work")
    expected = pack(run(graph, inputs)).view(np.uint8)
    np.testing.assert_array_equal(host.run(pack(inputs)).view(np.uint8), expected)


def test_what_fits_into_the_fast_ram_is_left_as_it_was() -> None:
    graph = small_net(np.random.default_rng(0))
    plain = generate(graph, "dsp")
    roomy = generate(graph, "dsp", Options(regions=Regions(plain.arena_bytes, 1 << 16, SECTION)))
    assert roomy.files == plain.files and "model_slow.c" not in roomy.files


def test_the_most_touched_bytes_are_fast() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.conv(b.input((1, 12, 12, 8)), 16, (3, 3))
    graph = b.graph(b.conv(x, 8, (3, 3)))
    model = split(graph, "dsp", 0.6)
    where = model.plan
    counts = accesses(model.graph, where.blocks)
    rates = {block.scratch: n / block.size_bytes for block, n in zip(where.blocks, counts, strict=True)}
    fast = {block.scratch for block in where.blocks if not block.is_slow}
    assert max(rates, key=lambda key: rates[key]) in fast - {-1}  # scratch is the hottest
    assert where.slow_accesses == sum(n for b, n in zip(where.blocks, counts, strict=True) if b.is_slow)
    assert where.slow_cycles == 4 * where.slow_accesses


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("mcu-sim-split", [ROOT / "targets"])


@pytest.mark.parametrize("engine", ["unicorn", pytest.param("qemu", marks=pytest.mark.needs("qemu-arm"))])
def test_a_core_with_two_rams_and_external_flash(
    engine: str, target: Target, compiler: Compiler, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    b = Builder(rng, "two_rams")
    x = b.conv(b.input((1, 12, 12, 4)), 32, (3, 3))
    graph = b.graph(b.dense(b.pool(b.conv(x, 8, (3, 3)), kernel=(12, 12), stride=(12, 12)), 6))
    assert target.memory is not None
    target = replace(target, memory=replace(target.memory, ram_bytes=6144, stack_bytes=1024))
    model = generate(graph, "dsp", options_for(target, compiler=compiler.kind))
    assert model.plan.slow_bytes > 0
    folder = write(model, tmp_path / "c")
    build_image(folder, target, compiler, tmp_path / "image")
    image = json.loads((tmp_path / "image/image.json").read_text())
    assert image["ram_bytes"]["slow"] == model.plan.slow_bytes
    assert image["flash_bytes"]["external"] >= model.weights.bytes
    size = predict(model, compiler.kind)
    assert size.arena == image["ram_bytes"]["arena"] == model.state_bytes
    assert size.code is None or image["flash_bytes"]["code"] <= size.code
    inputs = inputs_for(graph, rng, 2)
    found = run_image(
        *(tmp_path / "image/firmware.elf", folder / "layers.json", target, pack(inputs).view(np.uint8)),
        engine=engine,
        counted=1,
        watched=int(engine == "unicorn"),
    )
    np.testing.assert_array_equal(found.outputs, pack(run(graph, inputs)).view(np.uint8))


SLOW = '__attribute__((section(".slow_ram"))) static volatile uint8_t far[64];\n'
FLASH = '__attribute__((section(".model_weights"))) static const uint8_t outer_table[64] = {1};\n'


@pytest.mark.parametrize(
    ("extra", "prepare", "message"),
    [
        (SLOW, "model->bytes[0] = far[3];", "memory that nothing wrote"),
        (SLOW, "*(volatile uint8_t *)(uintptr_t)0x21000100u = 1;", "outside the image's own memory"),
        (FLASH, "*(volatile uint8_t *)(uintptr_t)outer_table = 1;", "write to flash"),
    ],
    ids=["unwritten", "outside", "flash"],
)
def test_the_watch_covers_the_other_memories(
    extra: str, prepare: str, message: str, target: Target, compiler: Compiler, tmp_path: Path
) -> None:
    keep = 'far[0] = 0; __asm volatile("" :: "r"(far));' if "far" in extra else ""
    folder = write_model(tmp_path / "c", "dense", extra=extra, prepare=keep + prepare)
    build_image(folder, target, compiler, tmp_path / "image")
    elf, inputs = tmp_path / "image/firmware.elf", np.zeros((1, 16), np.uint8)
    with pytest.raises(VerifyError, match=message):
        run_image(elf, folder / "layers.json", target, inputs, counted=0, watched=1)


# ---- bad input ----

REGION = '[memory.slow_ram]\norigin = {origin}\nsize_bytes = {size}\nsection = "{section}"\n'
EXTERNAL = '[memory.external_flash]\norigin = {origin}\nsize_bytes = {size}\nsection = "{section}"\n'
BAD = [
    (REGION, "0x2100_0004", "65_536", ".slow", r"slow_ram.origin is 0x21000004; it must be a multiple of 8"),
    (REGION, "0x2100_0000", "65_532", ".slow", r"slow_ram.size_bytes is 0xfffc; it must be a multiple"),
    (REGION, "0x2100_0000", "512", ".slow", r"slow_ram.size_bytes is 512 bytes; it must be from 1024"),
    (REGION, "0x2000_4000", "65_536", ".slow", r"ram \(0x20000000 to 0x20008000\) overlaps slow_ram"),
    (REGION, "0x0001_0000", "65_536", ".slow", r"flash .* overlaps slow_ram, which begins at 0x00010000"),
    (REGION, "0x2100_0000", "65_536", ".bss", r"slow_ram.section is '.bss'"),
    (REGION, "0x2100_0000", "65_536", "slow ram", r"slow_ram.section is 'slow ram'"),
    (EXTERNAL, "0x2000_0000", "65_536", "", r"ram .* overlaps external_flash|external_flash .* overlaps ram"),
    (EXTERNAL, "0x0020_0004", "65_536", "", r"external_flash.origin is 0x200004; it must be a multiple"),
    (EXTERNAL, "0x0020_0000", "65_536", ".xip", r"external_flash.section is '.xip'; the weights are in"),
]


@pytest.mark.parametrize(("table", "origin", "size", "section", "message"), BAD)
def test_a_wrong_region_is_one_sentence(
    table: str, origin: str, size: str, section: str, message: str, tmp_path: Path
) -> None:
    text = (ROOT / "targets/mcu-sim-split.toml").read_text("utf-8")
    start, end = text.index("# Tensors that"), text.index("[emulator]")
    text = text[:start] + table.format(origin=origin, size=size, section=section) + text[end:]
    (tmp_path / "mcu-sim-split.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_target("mcu-sim-split", [tmp_path])
    assert "\n" not in str(caught.value)


def test_two_rams_that_are_both_too_small() -> None:
    graph = small_net(np.random.default_rng(0))
    with pytest.raises(BudgetError, match=r"do not fit into 56 of fast RAM .* and 64 of slow RAM"):
        generate(graph, "dsp", Options(regions=Regions(64, 64, SECTION)))


def small_memory(**regions: Region) -> Target:
    plain = mcu_target()
    assert plain.memory is not None
    memory: Memory = replace(plain.memory, ram_bytes=1 << 12, **regions)
    return replace(plain, memory=memory)


def test_check_answers_where_no_region_is_large_enough() -> None:
    graph = small_net(np.random.default_rng(0))
    tiny = small_memory(slow_ram=Region(0x2100_0000, 1024, SECTION))
    assert tiny.memory is not None
    tiny = replace(tiny, memory=replace(tiny.memory, stack_bytes=(1 << 12) - 64))
    (row,) = check(graph, [tiny], "clang")["targets"]
    assert row["fits"] in (True, False)


def test_external_flash_that_is_too_small(compiler: Compiler, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    model = generate(b.graph(b.dense(b.input((1, 64)), 64)), "portable")
    target = small_memory(external_flash=Region(0x0020_0000, 2048))
    folder = write(model, tmp_path / "c")
    with pytest.raises(BudgetError, match=r"external flash: it needs [\d,]+ bytes for the weights, .* 2,048"):
        build_image(folder, target, compiler, tmp_path / "image")


def test_slow_ram_that_the_profile_does_not_have(compiler: Compiler, tmp_path: Path) -> None:
    model = split(small_net(np.random.default_rng(0)))
    with pytest.raises(
        BudgetError, match=r"slow RAM: it needs [\d,]+ bytes for its part of the tensors, .* 0;"
    ):
        build_image(write(model, tmp_path / "c"), mcu_target(), compiler, tmp_path / "image")
