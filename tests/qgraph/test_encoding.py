"""Packed weights: indices and tables round-trip, what cannot be is one sentence, passes keep the encoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UnsupportedOpError
from edgekd.qgraph import encoding, reference
from edgekd.qgraph.codebook import round_to_tables, share_weights
from edgekd.qgraph.encoding import Encoding, encode, uniform
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.constant_channels import remove_constant_channels
from edgekd.qgraph.validate import validate
from tests import graphs
from tests.graphs import inputs_for

Array = npt.NDArray[Any]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from((2, 4, 8)), st.lists(st.integers(0, 255), max_size=40))
def test_packed_indices_come_back(bits: int, values: list[int]) -> None:
    indices = np.array(values, np.int64) % (1 << bits)
    packed = encoding.pack(indices, bits)
    assert len(packed) == -(-len(values) * bits // 8)
    assert encoding.unpack(packed, len(values), bits).tolist() == indices.tolist()


def test_the_first_index_lies_in_the_lowest_bits() -> None:
    assert encoding.pack(np.array([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert encoding.pack(np.array([1, 2, 3, 0, 1]), 2).tolist() == [0b00111001, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 3), st.sampled_from((2, 3, 4, 16, 40)))
def test_tables_and_indices_give_the_weights_back(
    seed: int, channels: int, groups: int, entries: int
) -> None:
    rng = np.random.default_rng(seed)
    for axis, shape in ((0, (channels, 2, 3, 4)), (3, (1, 3, 2, channels))):
        tables = rng.integers(-128, 128, (groups, entries))
        of_channel = rng.integers(0, groups, channels)
        picked = rng.integers(0, entries, (channels, int(np.prod(shape)) // channels))
        rows = tables[of_channel[:, None], picked]
        moved = [channels, *(n for i, n in enumerate(shape) if i != axis)]
        data = np.moveaxis(rows.reshape(moved), 0, axis).astype(np.int8)
        found = encode(data, tables, of_channel, axis)
        indices = found.indices(found.rows(data))
        assert np.array_equal(found.tables[of_channel[:, None], indices], found.rows(data))
        assert 1 << found.bits >= entries and found.stored_bits == found.bits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((2, 4, 16, 256)), st.integers(1, 3))
def test_k_means_gives_few_values_that_are_near(seed: int, entries: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    data = np.clip(rng.normal(0, 30, (6, 3, 3, 4)), -127, 127).astype(np.int8)
    rounded, found = round_to_tables(data, entries, groups)
    assert found.holds(rounded) and (found.tables == 0).any(axis=1).all()
    error = np.abs(rounded.astype(int) - data)
    assert error.mean() <= 140 / entries


def test_a_group_reads_its_own_table() -> None:
    data = np.array([[5, 5], [7, 7]], np.int8)
    found = encode(data, np.array([[5, 0], [7, 0]]), np.array([0, 1]))
    assert found.holds(data) and not found.holds(data[::-1])


def test_uniform_int4_is_a_fixed_table() -> None:
    found = uniform(4, 3)
    assert found.is_uniform_int4 and found.tables.tolist() == [list(range(-8, 8))]
    assert uniform(2, 1).tables.tolist() == [[-2, -1, 0, 1]]
    assert not encode(np.zeros((2, 2), np.int8), np.arange(16)).is_uniform_int4


WEIGHTS = np.zeros((3, 4), np.int8)


@pytest.mark.parametrize(
    ("tables", "groups", "words"),
    [
        (np.zeros((1, 0)), None, "no table of int8 values"),
        (np.zeros((1, 257)), None, "do not fit indices of 8 bits"),
        (np.zeros((0, 16)), None, "no table of int8 values"),
        (np.zeros((257, 2)), None, "1 to 256"),
        (np.array([0, 200]), None, "no table of int8 values"),
        (np.array([1, 2]), None, "does not stand in its channel's table"),
        (np.zeros((1, 4)), np.array([0, 0, 1]), "a channel has table 1, but there are 1"),
        (np.zeros((1, 4)), np.array([0, 0, 256]), "numbered 0 to 255"),
        (np.zeros((1, 4)), np.array([0, 0]), "2 channels have a table"),
    ],
)
def test_a_codebook_that_cannot_be_is_refused(tables: Array, groups: Array | None, words: str) -> None:
    with pytest.raises(UnsupportedOpError, match=words) as caught:
        encode(WEIGHTS, tables, groups, where="layer conv1")
    assert str(caught.value).startswith("layer conv1: ")


def changed(graph: QGraph, position: int, **fields: Any) -> QGraph:
    """`graph` with fields of the tensor at an input `position` of its first op replaced."""
    tensors, index = list(graph.tensors), graph.ops[0].inputs[position]
    tensors[index] = replace(tensors[index], **fields)
    return replace(graph, tensors=tuple(tensors))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": uniform(4, 5)}, "does not stand in its channel's table"),
        ({"encoding": uniform(8, 4)}, "4 channels have a table"),
        ({"encoding": Encoding(3, uniform(2, 1).tables, np.zeros(5, np.uint8))}, "indices of 3 bits"),
        ({"encoding": uniform(8, 3, axis=3)}, "tables are for channels on axis 3, not 0"),
        ({"encoding": uniform(8, 5), "data": None}, "only constant int8 weights"),
    ],
)
def test_validate_refuses_an_unsound_encoding(fields: dict[str, Any], words: str) -> None:
    graph = graphs.conv_graph(np.random.default_rng(1))
    validate(changed(graph, 1, encoding=uniform(8, 5)))
    with pytest.raises(UnsupportedOpError, match=words):
        validate(changed(graph, 1, **fields))


def test_only_weights_may_be_packed() -> None:
    b = graphs.Builder(np.random.default_rng(1))
    x = b.input((1, 2, 2, 3))
    graph = b.graph(
        b.binary("ADD", x, b.constant(np.ones((1, 2, 2, 3), np.int8), np.array([0.1], np.float32)))
    )
    validate(graph)
    with pytest.raises(UnsupportedOpError, match="its input 1 is packed; only the weights of CONV_2D"):
        validate(changed(graph, 1, encoding=uniform(8, 1)))


def with_dead_channels(seed: int) -> QGraph:
    """A net in which half of the first convolution's channels never change."""
    rng = np.random.default_rng(seed)
    b = graphs.Builder(rng)
    x = b.conv(b.input((1, 5, 5, 4)), 8, (1, 1), activation="RELU")
    graph = b.graph(b.conv(x, 4, (1, 1)))
    bias = graph.ops[0].inputs[2]
    tensors = list(graph.tensors)
    low = np.array(tensors[bias].data)
    low[::2] = -(1 << 24)
    tensors[bias] = replace(tensors[bias], data=low)
    return replace(graph, tensors=tuple(tensors))


@pytest.mark.parametrize("entries", (4, 16, 256))
def test_removed_channels_keep_the_encoding(entries: int) -> None:
    graph = share_weights(with_dead_channels(entries), entries, groups=2)
    result = remove_constant_channels(graph, 4)
    assert result.changed
    assert all(result.graph.tensors[op.inputs[1]].encoding for op in result.graph.ops)
    inputs = inputs_for(graph, np.random.default_rng(2))
    assert np.array_equal(reference.run(graph, inputs)[0], reference.run(result.graph, inputs)[0])


def test_zeros_take_a_free_entry_or_the_weights_become_plain() -> None:
    tables = np.arange(1, 4)[None]
    found = encode(np.ones((2, 2), np.int8), tables)
    kept = np.array([True, True])
    more = found.narrowed(np.array([[1, 2], [0, 0]], np.int8), kept)
    assert more is not None and more.tables.tolist() == [[1, 2, 3, 0]]
    full = encode(np.ones((2, 2), np.int8), np.arange(1, 5)[None])
    assert full.narrowed(np.zeros((2, 2), np.int8), kept) is None
