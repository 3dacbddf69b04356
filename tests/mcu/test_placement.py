"""Placement of blocks: what lives together never overlaps, the bound is a bound, and a proof is a proof."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.mcu.placement import ALIGNMENT_BYTES, Buffer, lower_bound, place, settle


def buffers(most: int, sizes: int = 40) -> st.SearchStrategy[list[Buffer]]:
    return st.lists(
        st.builds(
            lambda size, first, length: Buffer(4 * size, first, first + length),
            st.integers(1, sizes),
            st.integers(0, 12),
            st.integers(0, 6),
        ),
        min_size=1,
        max_size=most,
    )


# Seven blocks that no placement puts into the 40 bytes alive at the fullest step.
GAP = ((12, 2, 5), (8, 4, 5), (12, 0, 3), (20, 0, 1), (20, 6, 8), (20, 5, 7), (12, 3, 4))
# Fourteen that orders and local search place in 284 bytes, and that fit into 280.
HARD = (
    *((24, 9, 10), (68, 1, 3), (76, 9, 13), (80, 1, 5), (24, 5, 7), (60, 4, 7), (24, 6, 9)),
    *((48, 1, 3), (20, 4, 5), (44, 7, 7), (48, 5, 7), (48, 2, 5), (28, 3, 4), (76, 7, 11)),
)


def least(blocks: list[Buffer]) -> int:
    """The optimum, by every order: each block on top of what it meets."""
    totals = []
    for order in permutations(range(len(blocks))):
        ends: dict[int, int] = {}
        for i in order:
            below = [ends[j] for j in ends if blocks[j].meets(blocks[i])]
            ends[i] = max(below, default=0) + blocks[i].size_bytes
        totals.append(max(ends.values()))
    return min(totals)


@settings(max_examples=150, deadline=None)
@given(blocks=buffers(14))
def test_buffers_that_meet_never_overlap(blocks: list[Buffer]) -> None:
    found = settle(blocks)
    ends = [offset + block.size_bytes for offset, block in zip(found.offsets, blocks, strict=True)]
    for i, block in enumerate(blocks):
        assert found.offsets[i] >= 0 and found.offsets[i] % ALIGNMENT_BYTES == 0
        for j in range(i):
            if block.meets(blocks[j]):
                assert ends[i] <= found.offsets[j] or ends[j] <= found.offsets[i]
    assert lower_bound(blocks) <= found.bound_bytes <= found.total_bytes == max(ends)
    assert found.total_bytes <= sum(block.size_bytes for block in blocks)


@settings(max_examples=100, deadline=None)
@given(blocks=buffers(14))
def test_lower_bound_is_the_fullest_step(blocks: list[Buffer]) -> None:
    steps = range(20)
    fullest = max(sum(b.size_bytes for b in blocks if b.first <= step <= b.last) for step in steps)
    assert lower_bound(blocks) == fullest


@settings(max_examples=60, deadline=None)
@given(blocks=buffers(6, sizes=6))
def test_the_exact_search_finds_the_optimum(blocks: list[Buffer]) -> None:
    found = settle(blocks, rounds=0)
    assert found.is_optimal and found.total_bytes == least(blocks)


def test_a_gap_that_cannot_be_closed_is_proved() -> None:
    blocks = [Buffer(*row) for row in GAP]
    found = settle(blocks)
    assert (lower_bound(blocks), found.total_bytes, found.bound_bytes) == (40, 44, 44)
    assert least(blocks) == 44


def test_the_search_beats_the_heuristics_and_says_when_it_gave_up() -> None:
    blocks = [Buffer(*row) for row in HARD]
    before, found, cut_off = settle(blocks, nodes=0), settle(blocks), settle(blocks, nodes=3)
    assert (before.total_bytes, before.bound_bytes, before.is_optimal) == (284, 280, False)
    assert (found.total_bytes, found.is_optimal) == (280, True)
    assert (cut_off.total_bytes, cut_off.is_optimal) == (284, False)


def test_groups_apart_in_time_are_proved_apart() -> None:
    """Two copies of what has a gap, the second later: each is searched alone."""
    later = [Buffer(size, first + 20, last + 20) for size, first, last in GAP]
    found = settle([*(Buffer(*row) for row in GAP), *later])
    assert (found.total_bytes, found.is_optimal) == (44, True)


@settings(max_examples=100, deadline=None)
@given(blocks=buffers(14))
def test_a_placement_at_the_bound_is_left_as_the_heuristics_made_it(blocks: list[Buffer]) -> None:
    bound = lower_bound(blocks)
    offsets = place(blocks, bound)
    if max(at + b.size_bytes for at, b in zip(offsets, blocks, strict=True)) == bound:
        assert settle(blocks).offsets == tuple(offsets)


@pytest.mark.parametrize("blocks", [[], [Buffer(8, 0, 0)]], ids=["nothing", "one"])
def test_small_cases(blocks: list[Buffer]) -> None:
    assert settle(blocks).total_bytes == sum(block.size_bytes for block in blocks)
    assert settle(blocks).is_optimal
