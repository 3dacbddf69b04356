"""Kernels chosen by modelled cost: the cost of text, the search, the limits, what reports show of it."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from edgekd.errors import ConfigError
from edgekd.mcu.choice import Priced, cheapest, choose, flash_of
from edgekd.mcu.codegen import generate
from edgekd.mcu.costs import USAGE, load_costs, work_of
from edgekd.mcu.dsp.assembly import REPEATED, Function
from edgekd.mcu.footprint import digest_of_source, kernel_folder
from edgekd.mcu.options import Options
from edgekd.mcu.sizes import sizes_of
from edgekd.mcu.work import work_of_lines
from edgekd.qgraph.ir import QGraph
from edgekd.target import CostModel
from tests.graphs import small_net
from tests.mcu.test_dsp import net
from tests.random_graphs import wide_graph

NETS = ("separable-chain", "difference", "dense-ten", "pooled", "same-signed-strided")


@pytest.mark.parametrize(
    ("lines", "cycles"),
    [
        (["add r0, r0, #1", "smlad r0, r1, r2, r0"], 2),
        (["ldr r0, [r1]", "ldr r2, [r1, #4]", "adds r0, r0, r2"], 4),  # the second load is pipelined
        (["ldrd r0, r1, [r2]", "ldr r3, [r2]"], 5),
        (["ldmia.w r12!, {r0, r1, r2}", "stmia r1!, {r3-r8}"], 11),
        (["push {r4-r11, lr}", "pop {r4-r11, pc}"], 10 + 10 + 2),  # and the branch, less an ALU
        (["ldr pc, [sp, #8]", ".p2align 2"], 4),
        (["ldrsb.w r0, [r1]", "ldrb r2, [r1]"], 3),
        (["cmp r0, #0", "it ne", "addne r0, r0, #1"], 3),
        (["bne 1b"], 1),
        (["b.w 1b", "bl 9f", "bx lr"], 9),
        (["strb r0, [r1], #1", "strd r0, r1, [r2]"], 4),
    ],
)
def test_cycles_of_text(lines: list[str], cycles: int) -> None:
    work = work_of_lines(lines)
    assert work.cycles(CostModel()) == cycles
    assert work.instructions == sum(not line.startswith(".") for line in lines)


def test_a_loop_is_counted_by_its_region() -> None:
    f = Function("loop")
    f.add("push {r4, lr}")
    f.region("turn")
    f.add("ldr r0, [r1], #4")
    f.region(REPEATED)
    f.add("ldr r0, [r1], #4")
    f.region("turn")
    f.add("subs r2, r2, #1")
    f.branch_back("bne 1b", outer="call")
    f.region("call")
    f.add("pop {r4, pc}")
    work = f.kernel("twin").once({"turn": 5})
    assert work.instructions == 2 + 5 * 3
    assert work.cycles(CostModel()) == 3 + (3 + 2) + 5 * (2 + 1) + 4 * 3 + 1


# ---- the table ----


def test_the_committed_costs_are_of_these_kernels() -> None:
    from edgekd.mcu.costs import TABLE

    held = json.loads(TABLE.read_text("utf-8"))["digests"]
    fresh = {path.name: digest_of_source(path) for path in sorted(kernel_folder().glob("*.c"))}
    changed = [name for name in fresh if fresh[name] != held.get(name)]
    assert not changed, f"run benchmarks/kernel_costs.py and commit {TABLE.name}"


@pytest.mark.parametrize("compiler", ["clang", "gcc"])
def test_every_kernel_has_a_measured_cost(compiler: str) -> None:
    # Packed weights run the plain kernels; unpacking, once an inference, counts in assembly only.
    unmeasured = {"k_conv_2d_packed_s8", "k_dsp_packed_s8", "k_gemm_packed_s8"}
    assert set(load_costs()[compiler]) == set(USAGE) - unmeasured


@pytest.mark.parametrize("family", ["portable", "dsp"])
def test_every_layer_of_random_graphs_has_a_cost(family: str) -> None:
    for seed in range(15):
        for layer in generate(wide_graph(np.random.default_rng([3, seed])), family).layers:
            assert layer.kernel and layer.instructions and layer.cycles, layer.symbol


# ---- the search ----


def by_trying_all(every: dict[int, tuple[Priced, ...]], price: float) -> float:
    sizes = sizes_of("clang")
    return min(
        sum(p.cycles for p in picked) + price * flash_of(picked, sizes)
        for picked in itertools.product(*every.values())
    )


@pytest.mark.parametrize("price", [0.0, 0.3, 3.0, 1e6])
@pytest.mark.parametrize("name", NETS)
def test_the_search_finds_the_least(name: str, price: float) -> None:
    chosen = choose(net(name), "dsp", Options())
    every = {index: (found.best, *found.others) for index, found in chosen.items()}
    assert math.prod(len(found) for found in every.values()) < 20_000
    best = cheapest(every, price, sizes_of("clang"))
    total = sum(p.cycles for p in best.values()) + price * flash_of(best.values(), sizes_of("clang"))
    assert total == pytest.approx(by_trying_all(every, price), rel=1e-9)


def spent(graph: QGraph, options: Options) -> tuple[float, int]:
    """(cycles, flash) of the choice."""
    best = [found.best for found in choose(graph, "dsp", options).values()]
    return sum(p.cycles for p in best), flash_of(best, sizes_of("clang"))


@pytest.mark.parametrize("name", NETS)
def test_flash_is_spared_where_flash_is_wanted(name: str) -> None:
    (fast, large), (slow, small) = (spent(net(name), Options(optimize=o)) for o in ("speed", "flash"))
    assert fast <= slow and small <= large
    assert fast < slow or small == large


def test_a_limit_of_flash_is_met_by_slower_kernels() -> None:
    graph = net("separable-chain")
    (fast, large), (slow, small) = (spent(graph, Options(optimize=o)) for o in ("speed", "flash"))
    limit = sizes_of("clang").image_bytes + small
    assert small < large
    assert spent(graph, Options(flash_bytes=limit)) == (slow, small)
    assert spent(graph, Options(flash_bytes=10 * limit)) == (fast, large)
    assert spent(graph, Options(flash_bytes=1))[1] == small  # the nearest


def test_a_limit_of_ram_is_met_by_kernels_of_less_scratch() -> None:
    graph = net("same")
    roomy, tight = generate(graph, "dsp"), generate(graph, "dsp", Options(ram_bytes=1))
    assert tight.arena_bytes < roomy.arena_bytes
    assert generate(graph, "dsp", Options(ram_bytes=roomy.arena_bytes)).arena_bytes == roomy.arena_bytes


def test_another_core_may_get_another_kernel() -> None:
    """Where multiplications cost nothing and loads much, or the reverse, totals follow the profile."""
    graph = net("separable")
    cheap, dear = (Options(cost=CostModel(load=load, pair=load)) for load in (1, 50))
    assert spent(graph, cheap)[0] < spent(graph, dear)[0]


def test_a_preferred_kernel_is_taken() -> None:
    layers = generate(net("separable-chain"), "dsp", Options(prefer=("pairs u16",))).layers
    assert [layer.kernel for layer in layers if layer.op == "CONV_2D"] == ["pairs u16"] * 3


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fast'; it must be one of speed, ram, flash, balanced"):
        Options(optimize="fast")


# ---- reports ----


def test_layers_name_their_kernel_and_the_runners_up() -> None:
    model = generate(net("same"), "dsp")
    rows = json.loads(model.files["layers.json"])
    assert rows[0]["kernel"].startswith("pairs") and rows[0]["cycles"] > rows[0]["instructions"] > 0
    others = rows[0]["others"]
    assert "portable" in {other["kernel"] for other in others}
    assert [other["cycles"] for other in others] == sorted(other["cycles"] for other in others)


def test_the_compiler_decides_what_c_costs() -> None:
    graph = small_net(np.random.default_rng(3))
    chosen = choose(graph, "portable", Options())
    works = [work_of(chosen[0].best.emission, compiler) for compiler in ("clang", "gcc")]
    assert all(works) and works[0] != works[1]
