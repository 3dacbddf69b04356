"""What zero weights save: nothing where they are scattered, whole channels where a column is zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.mcu import zeros
from edgekd.mcu.check import check
from edgekd.qgraph.ir import QGraph
from edgekd.report.check import show_check
from edgekd.target import load_target
from tests.graphs import Builder

ROOT = Path(__file__).resolve().parents[2]


def two_layers() -> QGraph:
    """A 3 x 3 convolution to 16 channels and a 1 x 1 one to 16, without zeros."""
    b = Builder(np.random.default_rng(5))
    inner = b.conv(b.input((1, 6, 6, 4)), 16)
    return zeros.without_zeros(b.graph(b.conv(inner, 16, kernel=(1, 1))))


def with_weights(graph: QGraph, op: int, mask: np.ndarray) -> QGraph:
    tensors = list(graph.tensors)
    index = graph.ops[op].inputs[1]
    data = np.asarray(tensors[index].data)
    tensors[index] = replace(tensors[index], data=(data * mask).astype(np.int8))
    return replace(graph, tensors=tuple(tensors))


def answer(graph: QGraph) -> dict[str, Any]:
    return check(graph, [load_target("mcu-sim", [ROOT / "targets"])], "clang")


def two_of_four(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.arange(shape[-1]) % 4 < 2, shape) ^ (np.arange(shape[0]) % 2 == 1).reshape(
        -1, *[1] * (len(shape) - 1)
    )


def test_without_zeros_nothing_is_said() -> None:
    graph = two_layers()
    assert zeros.count_zeros(graph) == (0, 16 * 36 + 16 * 16)
    assert answer(graph)["zeros"] is None


def test_two_of_four_saves_nothing_and_the_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    graph = two_layers()
    for op in (0, 1):
        shape = graph.tensors[graph.ops[op].inputs[1]].shape
        graph = with_weights(graph, op, two_of_four(shape))
    found = answer(graph)
    assert found["zeros"]["zero"] * 2 == found["zeros"]["weights"] == 832
    assert [(row["weight_bytes"], row["macs"]) for row in found["zeros"]["saved"]] == [(0, 0)]
    show_check(found)
    assert "50 % of 832: saves nothing on this target" in capsys.readouterr().out


def test_columns_of_zeros_take_the_channels_in_front_along(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight of 16 columns: 16 * 8 weights of the reader, and 8 filters of 36 with bias and multipliers."""
    graph = with_weights(two_layers(), 1, np.arange(16) % 2 == 0)
    found = answer(graph)["zeros"]
    (row,) = found["saved"]
    assert row["macs"] == 36 * (16 * 8 + 8 * 36) == 14_976
    assert row["weight_bytes"] >= 16 * 8 + 8 * 36 + 8 * 4
    show_check(answer(graph))
    assert f"saves {row['weight_bytes']:,} bytes of weights and 14,976 multiply" in capsys.readouterr().out
