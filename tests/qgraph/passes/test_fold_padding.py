"""PAD in front of windows: every byte stays, and only exact foldings happen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fold_padding import fold_padding
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.qgraph.validate import validate
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds


def padded(
    widths: list[list[int]], kind: str, seed: int = 1, zero_point: int = 9, **options: object
) -> QGraph:
    """input, PAD, one window op of 3 x 3."""
    b = Builder(np.random.default_rng(seed))
    x = b.pad(b.input((1, 7, 6, 4), zero_point=zero_point), [[0, 0], *widths])
    if kind == "CONV_2D":
        return b.graph(b.conv(x, 5, **options))
    if kind == "DEPTHWISE_CONV_2D":
        return b.graph(b.depthwise(x, **options))
    return b.graph(b.pool(x, kind, (3, 3), **options))


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize(
    "widths", [[[1, 1], [1, 1], [0, 0]], [[0, 1], [0, 1], [0, 0]], [[1, 0], [0, 0], [0, 0]]]
)
def test_a_convolution_pads_for_itself(
    kind: str, padding: str, stride: tuple[int, int], widths: list[list[int]]
) -> None:
    graph = padded(widths, kind, padding=padding, stride=stride)
    changed = fold_padding(graph)
    assert changed.changed and set(kinds(changed.graph)) == {kind}
    assert not differ(graph, changed.graph)
    assert changed.report.startswith("1 PAD (")


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_dilations_reach_further(kind: str) -> None:
    graph = padded([[2, 3], [4, 1], [0, 0]], kind, padding="VALID", dilation=(2, 2))
    changed = fold_padding(graph)
    assert changed.changed and not differ(graph, changed.graph)


@pytest.mark.parametrize(
    ("widths", "kind", "options"),
    [
        ([[1, 1], [1, 1], [0, 1]], "CONV_2D", {}),  # more channels
        ([[3, 0], [0, 0], [0, 0]], "CONV_2D", {}),  # a window of padding alone
        ([[2, 0], [0, 0], [0, 0]], "CONV_2D", {"padding": "SAME"}),  # 2 + 1 pixels: the same
        ([[1, 0], [0, 0], [0, 0]], "CONV_2D", {"kernel": (1, 1)}),
        ([[1, 1], [1, 1], [0, 0]], "AVERAGE_POOL_2D", {"padding": "VALID"}),  # divides by all nine
        ([[1, 1], [1, 1], [0, 0]], "MAX_POOL_2D", {"padding": "VALID"}),  # values below the zero point
    ],
)
def test_what_is_not_exact_stays(widths: list[list[int]], kind: str, options: dict[str, object]) -> None:
    graph = padded(widths, kind, **options)
    changed = fold_padding(graph)
    assert not changed.changed and changed.graph is graph


def test_a_maximum_pads_for_itself_where_nothing_lies_below_the_zero_point() -> None:
    lowest = padded([[1, 1], [1, 1], [0, 0]], "MAX_POOL_2D", zero_point=-128, padding="VALID")
    b = Builder(np.random.default_rng(2))
    x = b.conv(b.input((1, 6, 6, 3)), 4, activation="RELU")
    behind_relu = b.graph(b.pool(b.pad(x, [[0, 0], [1, 1], [0, 1], [0, 0]]), "MAX_POOL_2D", (3, 3)))
    for graph in (lowest, behind_relu):
        changed = fold_padding(graph)
        assert changed.changed and kinds(changed.graph)["PAD"] == 0
        assert not differ(graph, changed.graph)


def test_a_pad_that_another_op_needs_stays() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.pad(b.input((1, 5, 5, 2)), [[0, 0], [1, 1], [1, 1], [0, 0]])
    both = b.graph(b.conv(x, 3, padding="VALID"), b.unary("TANH", x))
    assert not fold_padding(both).changed
    b = Builder(np.random.default_rng(3))
    x = b.pad(b.input((1, 5, 5, 2)), [[0, 0], [1, 1], [1, 1], [0, 0]])
    y = b.binary("ADD", b.conv(x, 2, padding="VALID"), b.depthwise(x, padding="VALID"))
    shared = b.graph(y)
    changed = fold_padding(shared)
    assert changed.changed and kinds(changed.graph)["PAD"] == 0 and not differ(shared, changed.graph)


def test_the_writer_refuses_what_no_file_can_hold() -> None:
    changed = fold_padding(padded([[0, 1], [0, 1], [0, 0]], "CONV_2D", padding="VALID"))
    with pytest.raises(UnsupportedOpError, match=r"CONV_2D \(t\d\) was made by a pass and has no form"):
        write_tflite(changed.graph)


@pytest.mark.parametrize("pads", [(3, 0, 0, 0), (0, 0, 0, -1), (1, 1, 1), "1111"])
def test_pads_that_reach_past_the_window_are_refused(pads: object) -> None:
    graph = fold_padding(padded([[0, 1], [0, 1], [0, 0]], "CONV_2D", padding="VALID")).graph
    graph.ops[0].attrs["pads"] = pads  # type: ignore[index]
    with pytest.raises(UnsupportedOpError, match="pads"):
        validate(graph)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    widths=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    kind=st.sampled_from(("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D")),
    same=st.booleans(),
)
def test_random_pads_keep_every_byte(seed: int, widths: list[int], kind: str, same: bool) -> None:
    options = {"padding": "SAME" if same else "VALID", "stride": (1 + seed % 3, 1 + seed % 2)}
    graph = padded([widths[:2], widths[2:], [0, 0]], kind, seed, -128 if seed % 2 else 3, **options)
    assert not differ(graph, fold_padding(graph).graph, 6)
