"""Chains of functions of one byte: one look-up, equal for all 256 values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.fuse_tables import fuse_tables
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.qgraph.validate import validate
from tests.graphs import Builder
from tests.qgraph.passes.same_bytes import differ, kinds

LINKS = ("LOGISTIC", "TANH", "RELU", "RELU6", "int8", "uint8", "ADD", "SUB", "MUL", "self")


def link(b: Builder, x: int, kind: str) -> int:
    """One function of one byte; "self" multiplies a tensor with itself."""
    if b.tensors[x].dtype == "uint8":
        return b.quantize(x)
    if kind in ("int8", "uint8"):
        return b.quantize(x, kind)
    if kind == "self":
        return b.binary("MUL", x, x)
    if kind in ("ADD", "SUB", "MUL"):
        data = b.rng.integers(-128, 128, (1,) * int(b.rng.integers(0, 3))).astype(np.int8)
        number = b.constant(data, np.array([b.scale()], np.float32), int(b.rng.integers(-128, 128)))
        pair = (number, x) if b.rng.random() < 0.5 else (x, number)
        return b.binary(kind, *pair, activation=str(b.rng.choice(["NONE", "RELU", "RELU6"])))
    return b.unary(kind, x)


def chain(links: tuple[str, ...], seed: int = 1) -> QGraph:
    b = Builder(np.random.default_rng(seed))
    x = b.input((1, 256))
    for kind in links:
        x = link(b, x, kind)
    return b.graph(x)


def equal_everywhere(a: QGraph, b: QGraph) -> bool:
    """On every value of the input's dtype."""
    info = np.iinfo(a.tensors[a.inputs[0]].dtype)
    every = np.arange(info.min, info.max + 1).astype(info.dtype)[None]
    return np.array_equal(reference.run(a, [every])[0], reference.run(b, [every])[0])


@pytest.mark.parametrize("first", LINKS)
@pytest.mark.parametrize("second", LINKS)
def test_two_functions_are_one_table(first: str, second: str) -> None:
    graph = chain((first, second))
    changed = fuse_tables(graph)
    assert changed.report == "2 functions of one byte: 1 look-up"
    assert kinds(changed.graph) == {"TABLE": 1}
    assert equal_everywhere(graph, changed.graph)


@pytest.mark.parametrize("kind", LINKS)
def test_one_function_alone_is_a_table_where_its_own_kernel_is_slower(kind: str) -> None:
    graph = chain((kind,))
    changed = fuse_tables(graph)
    assert changed.changed == (kind in ("ADD", "SUB", "MUL", "self"))
    assert equal_everywhere(graph, changed.graph)


def test_a_value_that_others_read_stays_between_two_tables() -> None:
    b = Builder(np.random.default_rng(2))
    x = b.unary("TANH", b.unary("RELU", b.input((1, 40))))
    y = b.binary("ADD", b.unary("LOGISTIC", b.quantize(x)), x)
    graph = b.graph(y)
    changed = fuse_tables(graph)
    assert kinds(changed.graph) == {"TABLE": 2, "ADD": 1}
    assert not differ(graph, changed.graph)
    b = Builder(np.random.default_rng(2))
    x = b.unary("TANH", b.input((1, 40)))
    assert not fuse_tables(b.graph(x, b.unary("RELU", x))).changed


def test_a_number_of_more_axes_is_no_function_of_one_byte() -> None:
    b = Builder(np.random.default_rng(3))
    x = b.input((1, 5))
    number = b.constant(np.full((1, 1, 1), 3, np.int8), np.array([0.1], np.float32))
    graph = b.graph(b.binary("ADD", x, number))  # its output has three axes
    assert not fuse_tables(graph).changed


def test_the_writer_refuses_a_table() -> None:
    with pytest.raises(UnsupportedOpError, match=r"TABLE .* was made by a pass"):
        write_tflite(fuse_tables(chain(("RELU", "TANH"))).graph)


@pytest.mark.parametrize("role", ["size", "dtype", "shape"])
def test_a_table_that_does_not_fit_is_refused(role: str) -> None:
    graph = fuse_tables(chain(("RELU", "TANH"))).graph
    position = graph.ops[0].inputs[1] if role != "shape" else graph.ops[0].outputs[0]
    tensor = graph.tensors[position]
    data = np.zeros(255, np.int8) if role == "size" else np.zeros(256, np.uint8)
    broken = replace(tensor, data=data, shape=data.shape, dtype=str(data.dtype))
    if role == "shape":
        broken = replace(tensor, shape=(1, 16, 16))
    tensors = tuple(broken if t is tensor else t for t in graph.tensors)
    with pytest.raises(UnsupportedOpError, match=r"table|shape"):
        validate(replace(graph, tensors=tensors))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), links=st.lists(st.sampled_from(LINKS), min_size=1, max_size=6))
def test_random_chains_are_equal_for_every_byte(seed: int, links: list[str]) -> None:
    graph = chain(tuple(links), seed)
    found = fuse_tables(graph).graph
    assert len(found.ops) == 1
    assert equal_everywhere(graph, found)
