"""`plan` through the API: the picture is written whole or not at all, and nothing is built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd import api
from edgekd.errors import ConfigError
from edgekd.mcu.codegen import generate
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import small_net


@pytest.fixture
def request_(tmp_path: Path) -> api.Request:
    model = tmp_path / "net.tflite"
    model.write_bytes(write_tflite(small_net(np.random.default_rng(0))))
    return api.request(model=str(model), target="mcu-sim", store=str(tmp_path / "store"))


def test_the_plan_of_a_file_with_its_picture(request_: api.Request, tmp_path: Path) -> None:
    found = api.plan(request_, tmp_path / "plan.svg")
    assert found["arena_bytes"] == generate(small_net(np.random.default_rng(0)), "dsp").arena_bytes
    assert (found["target"], found["family"]) == ("mcu-sim", "dsp") and "picture" not in found
    assert (tmp_path / "plan.svg").read_text("utf-8").startswith("<svg")
    assert list(request_.store.all()) == []


@pytest.mark.parametrize(
    ("name", "message"), [("plan.png", "ends in .svg"), ("no/plan.svg", "no such folder")]
)
def test_a_picture_that_cannot_be_written(
    request_: api.Request, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        api.plan(request_, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_front_of_a_file_with_its_picture(request_: api.Request, tmp_path: Path) -> None:
    found = api.front(request_, tmp_path / "front.svg")
    best = [row for row in found["builds"] if row["on_front"]]
    assert [row["number"] for row in best] == list(range(1, len(best) + 1)) and best
    assert all(row["measured"] is None and row["cycles"] for row in found["builds"])
    assert (tmp_path / "front.svg").read_text("utf-8").startswith("<svg")
    assert found["notes"][0].startswith("est.: ") and list(request_.store.all()) == []
