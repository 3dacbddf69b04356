"""The space: what a point is, which points are one student, and what cannot be searched."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edgekd.errors import ConfigError
from edgekd.recipe import load_recipe
from edgekd.recipe.search import SearchParams
from edgekd.search.fit import described
from edgekd.search.space import Space, candidate_of
from tests.search.projects import project

SPACE = Space(
    SearchParams(kinds=("residual", "inverted"), shrinks=(2, 1), depths=(1, 2), channels=(16, 8), bits=(8, 4))
)
POINT = {name: choices[-1] for name, choices in SPACE.dimensions.items()} | {"depth": 1, "shrink": 1}


def test_a_point_and_its_student() -> None:
    candidate = SPACE.candidate(POINT | {"kind1": "inverted", "bits1": 4})
    assert described(candidate) == "conv 24 /2, inverted 16 e4 /2 x2 (4 bits)"
    assert candidate_of(candidate.name) == candidate
    layers = candidate.structure((3, 16, 16), 5).layers
    assert set(candidate.layer_bits(3)) == {i for i, layer in enumerate(layers) if layer.weights} - {0, 9}
    assert set(candidate.layer_bits(3).values()) == {4}
    shrunk = SPACE.candidate(POINT | {"shrink": 2, "bits1": 4})
    assert shrunk.structure((3, 16, 16), 5).sizes[0] == (8, 8) and min(shrunk.layer_bits(3)) == 2


def test_numbers_are_in_order_and_counted() -> None:
    assert SPACE.dimensions["shrink"] == (1, 2) and SPACE.dimensions["channels2"] == (8, 16)
    assert SPACE.size == len(list(itertools.product(*SPACE.dimensions.values())))


@pytest.mark.parametrize("changed", [{"channels2": 8}, {"expansion1": 2}, {"bits2": 4}])
def test_what_a_student_does_not_read_makes_no_other_one(changed: dict[str, int]) -> None:
    one = SPACE.candidate(POINT | {"kind1": "residual"})
    assert SPACE.candidate(POINT | {"kind1": "residual"} | changed).name == one.name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('kinds = ["residul"]', "did you mean residual"),
        ("chanels = [8]", "unknown key search.chanels; did you mean channels"),
        ("strides = []", "search.strides is empty"),
        ("kernels = [3, 3]", "search.kernels repeats a choice"),
        ("bits = [8, 3]", "3 bits cannot be stored; take 2, 4 or 8"),
        ('sampler = "tpee"', "did you mean tpe"),
        ('strides = ["1"]', r"search.strides\[0\] must be int"),
    ],
)
def test_spaces_that_cannot_be(tmp_path: Path, line: str, said: str) -> None:
    project(tmp_path, line)
    with pytest.raises(ConfigError, match=said):
        load_recipe("small", [tmp_path / "recipes"])
