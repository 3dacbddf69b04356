"""The builds of a model: none of the front is beaten, limits are kept, estimates are what the core runs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.mcu.front import AXES, Build, best, front
from edgekd.mcu.front_measure import measure
from edgekd.mcu.front_picture import front_svg
from edgekd.mcu.options import OPTIMIZE
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.report.front import show_front
from edgekd.target import Target, load_target
from tests.graphs import Builder, inputs_for

ROOT = Path(__file__).resolve().parents[2]
POINTS = st.lists(st.tuples(*(st.integers(0, 6) for _ in AXES)) | st.none(), max_size=12)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("mcu-sim", [ROOT / "targets"])


@pytest.fixture(scope="module")
def graph() -> QGraph:
    """Two 3 x 3 convolutions that Winograd may run, and a dense layer: speed, RAM and flash pull apart."""
    b = Builder(np.random.default_rng(3), "front")
    x = b.input((1, 12, 12, 8), scale=1 / 16, zero_point=-128)
    for _ in range(2):
        x = b.conv(x, 16, (3, 3), activation="RELU")
        b.tensors[x] = b.tensors[x].__class__(**(vars(b.tensors[x]) | {"zero_point": -128}))
    return b.graph(b.dense(b.reshape(b.pool(x, kernel=(12, 12), stride=(12, 12)), (1, 16)), 10))


@pytest.fixture(scope="module")
def found(graph: QGraph, target: Target) -> tuple[list[Build], list[int]]:
    return front(graph, target, "clang")


@given(points=POINTS)
def test_nobody_on_the_front_is_beaten_and_nobody_off_it_is_needed(
    points: list[tuple[int, ...] | None],
) -> None:
    places = best(points)
    known = [point for point in points if point is not None]
    chosen = [points[i] for i in places]
    assert len(set(chosen)) == len(chosen)
    for point in known:
        below = [c for c in chosen if c and all(a <= b for a, b in zip(c, point, strict=True))]
        assert below and (point not in chosen or below == [point])


def test_the_modes_are_among_the_builds_and_limits_are_kept(
    found: tuple[list[Build], list[int]], target: Target
) -> None:
    builds, places = found
    assert len(builds) > 1 and places
    figures = [build.figures for build in builds]
    assert len(set(figures)) == len(figures)
    assert {build.optimize for build in builds} <= set(OPTIMIZE)
    assert any(build.winograd for build in builds)
    fastest = min(build.cycles or 0 for build in builds)
    assert builds[places[0]].cycles == fastest
    assert target.memory is not None
    for build in builds:
        assert build.max_flash is None or (build.flash_bytes or 0) <= build.max_flash
        reserved = build.model.arena_bytes + target.memory.stack_bytes
        assert build.max_ram is None or reserved <= build.max_ram


def test_same_model_same_front(found: tuple[list[Build], list[int]], graph: QGraph, target: Target) -> None:
    builds, places = front(graph, target, "clang")
    assert [b.label for b in builds] == [b.label for b in found[0]] and places == found[1]


def test_what_was_estimated_is_what_runs(
    graph: QGraph,
    target: Target,
    compiler: Compiler,
    tmp_path: Path,
) -> None:
    builds, places = front(graph, target, compiler.kind)
    for at in (places[0], places[-1]):
        folder = tmp_path / str(at)
        folder.mkdir()
        inputs = inputs_for(graph, np.random.default_rng(1), 2)
        ran = measure(builds[at].model, graph, inputs, target, compiler, folder)
        cycles, ram_bytes, flash_bytes = builds[at].figures or (0, 0, 0)
        assert ran["cycles"] == pytest.approx(cycles, rel=0.08)
        assert ran["ram_bytes"] <= ram_bytes <= ran["ram_bytes"] + 72
        assert ran["flash_bytes"] <= flash_bytes <= 1.05 * ran["flash_bytes"]


def rows(builds: list[Build], places: list[int]) -> dict:
    names = ("label", "cycles", "ram_bytes", "flash_bytes")
    table = [{"number": None, **{name: getattr(b, name) for name in names}} for b in builds]
    for at, row in enumerate(table):
        row |= {"on_front": at in places, "measured": None}
    for number, at in enumerate(places, 1):
        table[at]["number"] = number
    return {"model": "front", "target": "mcu-sim", "builds": table, "notes": ["est.: x"]}


def test_the_picture_has_every_build_in_three_panels(found: tuple[list[Build], list[int]]) -> None:
    picture = front_svg(rows(*found))
    root = ET.fromstring(picture)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3 * len(found[0])
    assert all(builds.label in picture for builds in (found[0][i] for i in found[1]))


def test_the_table_has_the_front_alone(
    found: tuple[list[Build], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    show_front(rows(*found))
    said = capsys.readouterr().out
    assert "cycles, est." in said and "cycles, run" not in said and "est.: x" in said
    assert f"{len(found[1])} of {len(found[0])} builds" in said
