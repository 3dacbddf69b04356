"""Rows streamed through a chain of layers: which rows each stage makes when, and what that needs to be held.

A chain is a run of ops, each a stage. A stage turns the rows that its input holds into the output rows that
they allow, at most `most` at a time; then the stage behind it is tried, and where that cannot run, the one
before. Nothing is computed twice: a window keeps the rows that some reader still needs. k_stream.c does this
on the core; `simulate` does the very same steps here, and so finds exactly how many rows are held at most.

Of a stage with a filter of k rows, a stride s and runs of n rows the window settles at
(n - 1) s + k rows, of which k - s stay from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# How a stage came to be tried: because one behind it could not run, because the one before it has just run
# (its rows lie in the window), or because the one before it was passed over.
UP, FRESH, PASSED = 0, 1, 2


@dataclass(frozen=True)
class Stage:
    """One layer of a chain, in rows of its first input and its output.

    op: index in the graph. other: a second operand of the same rows as the output, -1 for none.
    most: output rows that one run makes at most.
    """

    op: int
    input: int
    output: int
    in_rows: int
    out_rows: int
    filter_h: int = 1
    stride: int = 1
    pad_top: int = 0
    most: int = 1
    other: int = -1

    @property
    def inputs(self) -> tuple[int, ...]:
        return (self.input,) if self.other < 0 else (self.input, self.other)

    def possible(self, end: int) -> int:
        """Output rows that the first `end` rows of the input allow."""
        if end >= self.in_rows:
            return self.out_rows
        below = end + self.pad_top - self.filter_h
        return 0 if below < 0 else min(below // self.stride + 1, self.out_rows)

    def needed(self, made: int) -> int:
        """The first input row that the output rows from `made` on need."""
        return max(made * self.stride - self.pad_top, 0)


@dataclass
class Held:
    """What a tensor's window holds over a whole inference.

    window_rows: the most at a time; parked_rows: the most that wait between runs of its two stages.
    live: the stages (positions in the chain) that run while it holds rows.
    """

    window_rows: int = 0
    parked_rows: int = 0
    live: set[int] = field(default_factory=set)


@dataclass
class Trace:
    """What `simulate` saw.

    runs: (position of the stage, first row, rows), in order. moved: tensor -> rows that were moved.
    lag_bytes: see `simulate`. is_whole: whether every row of the last output was made.
    """

    held: dict[int, Held]
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    moved: dict[int, int] = field(default_factory=dict)
    lag_bytes: int = 0
    is_whole: bool = False


@dataclass(frozen=True)
class Rows:
    """How one tensor's rows lie: NHWC rows, or [pieces][rows][row_bytes] of planes of four channels.

    window_rows: rows of room (all of them where is_whole); parked_rows: room beside it for rows that wait, 0:
    they stay in the window. by_row: a whole tensor as [rows][pieces][row_bytes], written and read one row at
    a time. first, last: the ops between which the window is used.
    """

    tensor: int
    rows: int
    row_bytes: int
    pieces: int
    window_rows: int
    first: int
    last: int
    parked_rows: int = 0
    is_whole: bool = False
    is_source: bool = False
    by_row: bool = False

    @property
    def step_bytes(self) -> int:
        """From a row to the next within a piece."""
        return self.row_bytes * self.pieces if self.by_row else self.row_bytes

    @property
    def piece_bytes(self) -> int:
        """From a piece to the next."""
        return self.row_bytes if self.by_row else self.row_bytes * self.window_rows

    @property
    def window_bytes(self) -> int:
        return self.row_bytes * self.pieces * self.window_rows

    @property
    def parked_bytes(self) -> int:
        return self.row_bytes * self.pieces * self.parked_rows


@dataclass(frozen=True)
class Chain:
    """Ops first .. last by rows.

    tensors: each one's rows, in the order of the chain's state. sums_bytes: what an average keeps.
    lag_bytes: not negative where the output lies over the input that is used up: the input begins so many
    bytes behind it.
    """

    stages: tuple[Stage, ...]
    tensors: Mapping[int, Rows]
    trace: Trace = field(compare=False)
    scratch: Mapping[int, int]
    sums_bytes: int = 0
    lag_bytes: int = -1

    @property
    def first(self) -> int:
        return self.stages[0].op

    @property
    def last(self) -> int:
        return self.stages[-1].op

    @property
    def source(self) -> int:
        return self.stages[0].input

    @property
    def output(self) -> int:
        return self.stages[-1].output

    @property
    def state_words(self) -> int:
        return 2 + len(self.tensors)

    @property
    def inside(self) -> dict[int, Rows]:
        """The tensors that never exist as a whole."""
        return {t: rows for t, rows in self.tensors.items() if not rows.is_whole}


def parkable(stages: Sequence[Stage]) -> set[int]:
    """The tensors inside the chain whose only reader is the stage right behind the one that makes them."""
    found = set()
    for at, stage in enumerate(stages[:-1]):
        readers = [s for s in stages if stage.output in s.inputs]
        if readers == [stages[at + 1]] and readers[0].input == stage.output:
            found.add(stage.output)
    return found


def passes(stages: Sequence[Stage]) -> list[bool]:
    """For each stage whether its input is not what the one before it makes: it may wait while others run."""
    return [at > 0 and stage.input != stages[at - 1].output for at, stage in enumerate(stages)]


def simulate(
    stages: Sequence[Stage],
    parked: frozenset[int] = frozenset(),
    over: tuple[int, int] = (0, 0),
    fed: int = 0,
) -> Trace:
    """Run the chain. parked: the tensors whose rows wait elsewhere between runs (within `parkable`).

    over: bytes of a row of the first stage's input and of the last one's output; lag_bytes then says how far
    the input must begin behind the output where the output's rows overwrite the input's that are not needed
    any more. fed: 0 where the first input is there as a whole; else so many of its rows come at a time.
    """
    run = _Run(stages, parked, over)
    if fed:
        run.feed(fed)
    else:
        run.go()
    trace = run.trace
    trace.is_whole = run.end[stages[-1].output] == stages[-1].out_rows
    return trace


class _Run:
    """The state of a chain: the rows of each tensor, begin (included) to end (not included)."""

    def __init__(self, stages: Sequence[Stage], parked: frozenset[int], over: tuple[int, int]) -> None:
        self.stages, self.parked, self.over = stages, parked, over
        made = {stage.output for stage in stages}
        self.tensors = [*dict.fromkeys(t for s in stages for t in (*s.inputs, s.output))]
        self.source = stages[0].input
        self.passes = passes(stages)
        self.readers = {t: [s for s in stages if t in s.inputs] for t in self.tensors}
        rows = {t: next(_rows(s, t) for s in self.readers[t]) for t in self.tensors if t not in made}
        self.begin = dict.fromkeys(self.tensors, 0)
        self.end = {t: rows.get(t, 0) for t in self.tensors}
        self.trace = Trace({t: Held() for t in self.tensors})

    def go(self) -> None:
        """From the first stage until nothing can run."""
        at, went, last = 0, UP, len(self.stages) - 1
        while at >= 0:
            if self._step(at, went == FRESH):
                at, went = (at + 1, FRESH) if at < last else (at, UP)
            elif went != UP and at < last and self.passes[at]:
                at, went = at + 1, PASSED
            else:
                at, went = at - 1, UP

    def feed(self, rows: int) -> None:
        total, self.end[self.source] = self.end[self.source], 0
        while self.end[self.source] < total:
            self.begin[self.source] = self._first_needed(self.source)
            self.end[self.source] = min(total, self.end[self.source] + rows)
            held = self.trace.held[self.source]
            held.window_rows = max(held.window_rows, self.end[self.source] - self.begin[self.source])
            self.go()

    def _first_needed(self, tensor: int) -> int:
        found = self.end[tensor]
        for stage in self.readers[tensor]:
            made = self.end[stage.output]
            found = min(found, stage.needed(made) if tensor == stage.input else made)
        return found

    def _step(self, at: int, is_fresh: bool) -> bool:
        stage = self.stages[at]
        made = self.end[stage.output]
        can = stage.possible(self.end[stage.input])
        if stage.other >= 0:
            can = min(can, self.end[stage.other])
        rows = min(can - made, stage.most)
        if rows <= 0:
            if is_fresh and stage.input in self.parked:
                self._keep(stage.input, True)
            return False
        if not is_fresh and stage.input in self.parked:
            self._count(stage.input, self.end[stage.input] - self.begin[stage.input])
        if stage.output in self.parked:
            self._count(stage.output, self.end[stage.output] - self.begin[stage.output])
        else:
            self._keep(stage.output, False)
        before = self._first_needed(self.source)
        self._live(at)
        self.end[stage.output] += rows
        held = self.trace.held[stage.output]
        held.window_rows = max(held.window_rows, self.end[stage.output] - self.begin[stage.output])
        self._live(at)
        if at == len(self.stages) - 1:
            lag = self.end[stage.output] * self.over[1] - before * self.over[0]
            self.trace.lag_bytes = max(self.trace.lag_bytes, lag)
        if stage.input in self.parked:
            self._keep(stage.input, True)
        self.trace.runs.append((at, made, rows))
        return True

    def _live(self, at: int) -> None:
        for tensor in self.tensors:
            if self.end[tensor] > self._first_needed(tensor) or tensor in self.stages[at].inputs:
                self.trace.held[tensor].live.add(at)
        self.trace.held[self.stages[at].output].live.add(at)

    def _keep(self, tensor: int, is_parking: bool) -> None:
        """Drop what no reader needs; what is left moves."""
        if not self.readers[tensor]:
            return
        needed = self._first_needed(tensor)
        left = self.end[tensor] - needed
        if is_parking:
            held = self.trace.held[tensor]
            held.parked_rows = max(held.parked_rows, left)
        if is_parking or needed > self.begin[tensor]:
            self._count(tensor, left)
        self.begin[tensor] = needed

    def _count(self, tensor: int, rows: int) -> None:
        self.trace.moved[tensor] = self.trace.moved.get(tensor, 0) + rows


def _rows(stage: Stage, tensor: int) -> int:
    return stage.in_rows if tensor == stage.input else stage.out_rows
