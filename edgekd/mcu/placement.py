"""Blocks of bytes that live for an interval of steps, placed in one memory, and how tight that is.

This is dynamic storage allocation, NP-hard in general (Garey and Johnson, SR2). `settle` therefore goes in
three stages and says how far it came: heuristic orders, each block into the tightest gap; a seeded local
search over the order; and, where the result is still above the lower bound, a branch and bound that either
finds better or proves that there is nothing. docs/memory-plan.md has the mathematics. Pure functions: the
effort is counted in nodes, not in seconds, so the same blocks give the same placement everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT_BYTES = 4
SEARCH_ROUNDS = 200
EXACT_NODES = 5_000
EXACT_BLOCKS = 300  # the search goes as deep as there are blocks


@dataclass(frozen=True)
class Buffer:
    """Bytes that live from step `first` to step `last`, both included; size_bytes: a multiple of 4.

    fixed: the offset that it must have, where that is not negative; two that meet may not overlap.
    """

    size_bytes: int
    first: int
    last: int
    fixed: int = -1

    def meets(self, other: Buffer) -> bool:
        """Whether both live at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Placement:
    """offsets: one a block, in bytes. total_bytes: where the last block ends.

    bound_bytes: what no placement of these blocks can undercut: the most bytes alive at one step, or
    total_bytes where the search has ruled out every smaller one.
    """

    offsets: tuple[int, ...]
    total_bytes: int
    bound_bytes: int

    @property
    def is_optimal(self) -> bool:
        """Proved: nothing smaller exists."""
        return self.total_bytes == self.bound_bytes


def lower_bound(blocks: Sequence[Buffer]) -> int:
    """The most bytes alive at one step: reached at a step where some buffer begins."""
    return max((sum(b.size_bytes for b in blocks if b.first <= a.first <= b.last) for a in blocks), default=0)


def settle(blocks: Sequence[Buffer], rounds: int = SEARCH_ROUNDS, nodes: int = EXACT_NODES) -> Placement:
    """An offset for each block so that no two that meet overlap.

    rounds: of the local search; nodes: that the exact search may open. Either is spent only where the lower
    bound is not met before. The exact search replaces the heuristics' placement only by a smaller one.
    """
    bound = lower_bound(blocks)
    offsets = place(blocks, bound, rounds)
    total = _height(blocks, offsets)
    if total == bound or not nodes or any(block.fixed >= 0 for block in blocks):
        return Placement(tuple(offsets), total, bound)
    offsets, is_proved = _improved(blocks, offsets, bound, nodes)
    total = _height(blocks, offsets)
    return Placement(tuple(offsets), total, total if is_proved else bound)


def _height(blocks: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max((at + block.size_bytes for at, block in zip(offsets, blocks, strict=True)), default=0)


# ---- heuristics ----


def place(blocks: Sequence[Buffer], bound: int, rounds: int = SEARCH_ROUNDS) -> list[int]:
    """An offset for each block so that no two that meet overlap; stops early at `bound`.

    Tries some orders known to work well, then `rounds` of a seeded local search over the best of them.
    """
    best_order, best, best_bytes = list(range(len(blocks))), list[int](), -1
    for order in _orders(blocks):
        offsets, total = _place_in_order(blocks, order)
        if best_bytes < 0 or total < best_bytes:
            best_order, best, best_bytes = order, offsets, total
        if best_bytes <= bound:
            return best
    generator = random.Random(0)
    current = best_order
    for _ in range(rounds):
        order = list(current)
        order.insert(generator.randrange(len(order)), order.pop(generator.randrange(len(order))))
        offsets, total = _place_in_order(blocks, order)
        if total <= best_bytes:
            current, best, best_bytes = order, offsets, total
        if best_bytes <= bound:
            break
    return best


def _orders(blocks: Sequence[Buffer]) -> list[list[int]]:
    """Largest first, longest first, by time, and by bytes alive around the block."""
    everyone = range(len(blocks))
    crowd = [
        max(sum(b.size_bytes for b in blocks if b.first <= step <= b.last) for step in (a.first, a.last))
        for a in blocks
    ]
    rules: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (-blocks[i].size_bytes, blocks[i].first),
        lambda i: (-crowd[i], -blocks[i].size_bytes),
        lambda i: (blocks[i].first - blocks[i].last, -blocks[i].size_bytes),
        lambda i: (blocks[i].first, -blocks[i].size_bytes),
    ]
    return [sorted(everyone, key=lambda i: (*rule(i), i)) for rule in rules]


def _place_in_order(blocks: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    """Each block in turn into the tightest gap among those placed that it meets (or behind them)."""
    offsets = [max(block.fixed, 0) for block in blocks]
    done = [index for index, block in enumerate(blocks) if block.fixed >= 0]
    total = max((offsets[index] + blocks[index].size_bytes for index in done), default=0)
    for index in order:
        block = blocks[index]
        if block.fixed >= 0:
            continue
        taken = sorted(
            (offsets[i], offsets[i] + blocks[i].size_bytes) for i in done if blocks[i].meets(block)
        )
        offsets[index] = _best_gap(taken, block.size_bytes)
        total = max(total, offsets[index] + block.size_bytes)
        done.append(index)
    return offsets, total


def _best_gap(taken: Sequence[tuple[int, int]], size_bytes: int) -> int:
    """The offset of the smallest gap between sorted `taken` ranges that holds the block."""
    end, best, best_gap = 0, -1, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size_bytes and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best < 0 else best


# ---- branch and bound ----


def _improved(
    blocks: Sequence[Buffer], offsets: Sequence[int], bound: int, nodes: int
) -> tuple[list[int], bool]:
    """Better offsets where the search finds some, and whether it has ruled out every smaller total.

    Blocks that no chain of meetings joins do not touch each other: each such group is searched alone.
    """
    best = list(offsets)
    is_proved = True
    for group in _groups(blocks):
        members = [blocks[i] for i in group]
        height = _height(members, [best[i] for i in group])
        if height <= bound:
            continue
        search = _Search(members, height, bound, nodes)
        is_proved &= search.run()
        if search.best is not None:
            for i, offset in zip(group, search.best, strict=True):
                best[i] = offset
    return best, is_proved


def _groups(blocks: Sequence[Buffer]) -> list[list[int]]:
    groups: list[list[int]] = []
    end = None
    for index in sorted(range(len(blocks)), key=lambda i: (blocks[i].first, i)):
        if end is None or blocks[index].first > end:
            groups.append([])
            end = blocks[index].last
        groups[-1].append(index)
        end = max(end, blocks[index].last)
    return groups


class _Search:
    """Depth first over placements, block by block in the order of their offsets.

    Of the placements of least total one has the least sum of offsets: in it no block can be moved to a lower
    place. It is enough to look for that one. Steps between two births are one section (who lives there at all
    lives at its beginning); a section's skyline is where its next block may begin.

    A branch is left when
    * in some section skyline and the blocks to come exceed what is allowed;
    * another block would fit below the next one: it could be moved there;
    * two blocks that never meet begin at one offset in the wrong order: the same placement twice.
    """

    def __init__(self, blocks: Sequence[Buffer], height: int, bound: int, nodes: int) -> None:
        """height: of the placement to beat; bound: where to stop; nodes: how many may be opened."""
        self._blocks = blocks
        self._bound, self._nodes = bound, nodes
        self._allowed = height - ALIGNMENT_BYTES
        self.best: list[int] | None = None
        begins = sorted({block.first for block in blocks})
        self._spans = [
            range(begins.index(block.first), sum(begin <= block.last for begin in begins)) for block in blocks
        ]
        self._offsets = [0] * len(blocks)
        self._skyline = [0] * len(begins)
        self._ahead = [sum(b.size_bytes for b in blocks if b.first <= at <= b.last) for at in begins]

    def run(self) -> bool:
        """Whether every placement smaller than the best was ruled out."""
        if len(self._blocks) > EXACT_BLOCKS:
            return False
        areas = [-block.size_bytes * len(span) for block, span in zip(self._blocks, self._spans, strict=True)]
        waiting = sorted(range(len(self._blocks)), key=lambda i: (areas[i], i))
        self._descend(waiting, 0, -1)
        return self._nodes > 0 or self._is_done()

    def _is_done(self) -> bool:
        return self._allowed < self._bound

    def _descend(self, waiting: list[int], floor: int, previous: int) -> None:
        """waiting: the blocks to place; floor: the offset of `previous`, the block placed last."""
        if not waiting:
            self.best = list(self._offsets)
            self._allowed = _height(self._blocks, self.best) - ALIGNMENT_BYTES
            return
        self._nodes -= 1
        for offset, block in self._next(waiting, floor, previous):
            if self._nodes <= 0 or self._is_done():
                return
            self._try(waiting, block, offset)

    def _next(self, waiting: list[int], floor: int, previous: int) -> list[tuple[int, int]]:
        """(offset, block) of each block that may come next, the lowest offset first; [] for a dead end."""
        skyline, blocks = self._skyline, self._blocks
        starts = [max(floor, *[skyline[at] for at in self._spans[i]]) for i in waiting]
        lowest: dict[int, int] = {}
        for i, start in zip(waiting, starts, strict=True):
            for at in self._spans[i]:
                if start < lowest.get(at, start + 1):
                    lowest[at] = start
        if any(start + self._ahead[at] > self._allowed for at, start in lowest.items()):
            return []
        limit = min([start + blocks[i].size_bytes for i, start in zip(waiting, starts, strict=True)])
        found = [
            (start, rank)
            for rank, (i, start) in enumerate(zip(waiting, starts, strict=True))
            if start < limit and not self._is_repeated(i, start, floor, previous)
        ]
        return [(start, waiting[rank]) for start, rank in sorted(found)]

    def _is_repeated(self, block: int, start: int, floor: int, previous: int) -> bool:
        """Whether the other order of `previous` and `block` gives the same placement, and is tried too."""
        if previous < 0 or start != floor or block > previous:
            return False
        return not self._blocks[block].meets(self._blocks[previous])

    def _try(self, waiting: list[int], block: int, offset: int) -> None:
        span, size_bytes = self._spans[block], self._blocks[block].size_bytes
        before = [self._skyline[at] for at in span]
        for at in span:
            self._skyline[at] = offset + size_bytes
            self._ahead[at] -= size_bytes
        self._offsets[block] = offset
        self._descend([i for i in waiting if i != block], offset, block)
        for at, height in zip(span, before, strict=True):
            self._skyline[at] = height
            self._ahead[at] += size_bytes
