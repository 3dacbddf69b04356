"""A plan told: the data are the plan's, what a change would win is what it wins, the picture shows it all."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.plan import Placed, Plan
from edgekd.mcu.plan_answer import alive_bytes, tell
from edgekd.mcu.plan_picture import plan_svg
from edgekd.report.plan import show_plan
from tests.graphs import Builder, small_net
from tests.random_graphs import wide_graph

SVG = "{http://www.w3.org/2000/svg}"


def told(model: GeneratedModel) -> dict:
    return json.loads(json.dumps(tell(model)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_answer_is_the_plan(seed: int) -> None:
    model = generate(wide_graph(np.random.default_rng(seed)), "dsp" if seed % 2 else "portable")
    answer = told(model)
    where, peak = model.plan, answer["peak"]
    assert answer["lower_bound_bytes"] == max(row["alive_bytes"] for row in answer["steps"]) == peak["bytes"]
    assert answer["proved_bytes"] <= answer["arena_bytes"] == where.arena_bytes
    assert sum(owner["bytes"] for owner in peak["owners"]) == peak["bytes"]
    assert len(answer["blocks"]) == len(where.blocks)
    assert [row["step"] for row in answer["steps"]] == list(range(-1, len(model.graph.ops) + 1))
    tops = [row["offset_bytes"] + row["size_bytes"] for row in answer["blocks"]]
    assert max(tops) == where.arena_bytes
    assert str(answer["words"]).count("bytes") == 1 and f"{peak['bytes']:,}" in answer["words"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_an_owner_wins_is_what_the_bound_falls_by(seed: int) -> None:
    model = generate(wide_graph(np.random.default_rng(seed)), "dsp")
    answer = told(model)
    step = answer["peak"]["step"]
    own = sorted(
        (block for block in model.plan.blocks if block.first <= step <= block.last),
        key=lambda block: (-block.size_bytes, block.offset_bytes),
    )
    for block, owner in zip(own, answer["peak"]["owners"], strict=True):
        rest = [other for other in model.plan.blocks if other is not block]
        fullest = max(alive_bytes(rest, at) for at in range(-1, len(model.graph.ops) + 1))
        assert owner["wins_bytes"] == answer["peak"]["bytes"] - fullest


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_picture_has_every_buffer_inside_its_frame(seed: int) -> None:
    answer = told(generate(wide_graph(np.random.default_rng(seed)), "dsp"))
    picture = plan_svg(answer)
    assert picture == plan_svg(answer)
    root = ET.fromstring(picture)
    groups = root.findall(f"{SVG}g")
    assert len(groups) == len(answer["blocks"])
    frame = next(rect for rect in root.findall(f"{SVG}rect") if rect.get("stroke") == "#444444")
    left, top, wide, high = (float(frame.get(key, "")) for key in ("x", "y", "width", "height"))
    for group, block in zip(groups, answer["blocks"], strict=True):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        x, y, w, h = (float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
        assert left - 0.1 <= x and x + w <= left + wide + 0.1
        assert top - 0.7 <= y and y + h <= top + high + 0.7
        title = group.find(f"{SVG}title")
        assert title is not None and f"{block['size_bytes']:,} bytes" in str(title.text)


def test_scratch_that_fills_the_peak_is_named_with_what_it_costs() -> None:
    b = Builder(np.random.default_rng(0))
    model = generate(b.graph(b.conv(b.input((1, 12, 12, 4)), 8, (3, 3))), "portable")
    answer = told(model)
    assert {owner["kind"] for owner in answer["peak"]["owners"]} == {"input", "output", "scratch"}
    assert any("kernel of less scratch" in line for line in answer["advice"])
    assert answer["advice"][0].startswith("the placement is optimal, proved")


def test_equal_peaks_are_all_named() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input((1, 8, 8, 4))
    for _ in range(3):
        x = b.depthwise(x, (3, 3))
    answer = told(generate(b.graph(x), "portable"))
    assert len(answer["peak"]["also"]) == 2
    assert answer["advice"][-1].startswith("as full: ")


def test_an_unproved_plan_says_how_far_it_is() -> None:
    model = generate(small_net(np.random.default_rng(0)), "portable")
    blocks = (Placed(0, 8, 0, 0, (model.graph.inputs[0],)), Placed(16, 8, 0, 0, scratch=0))
    unproved = replace(model, plan=Plan({}, {}, 24, 16, 20, blocks))
    assert tell(unproved)["advice"][0].startswith("the placement is 4 bytes above what is proved")


def test_the_table_names_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    answer = told(generate(small_net(np.random.default_rng(0)), "dsp"))
    show_plan({"target": "mcu-sim", "family": "dsp", **answer})
    said = capsys.readouterr().out
    assert "fullest" in said and "memory: the arena is fullest in" in said and "proved optimal" in said
