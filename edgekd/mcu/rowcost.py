"""What running by rows costs beside whole layers: instructions, estimated from a chain's runs.

Nothing is computed twice, but a block of three pixels may be filled up at the end of a run, a depthwise
kernel unpacks its weights and spreads two rows anew in each, and rows move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.mcu.choice import Chosen
from edgekd.mcu.dsp import conv
from edgekd.mcu.stream import Chain, Stage
from edgekd.qgraph.ir import QGraph

# Instructions, about: of a run and of a try that fails; of a byte that moves, and of a piece of rows.
_RUN, _TRY, _MOVED_BYTE, _MOVED_PIECE = 260, 60, 0.9, 35
# Of a depthwise run, for four channels: around the loop; of a pair of rows that is spread; of its columns.
_PLANE, _SPREAD, _COLUMN = 190, 25, 14
_PADDING = 4  # a column of the padding
_CYCLES = 1.45  # of an instruction, modelled: the mean of whole models


def extra_instructions(graph: QGraph, chosen: Mapping[int, Chosen], chain: Chain) -> float:
    """Of one inference."""
    return sum(extra_by_op(graph, chosen, chain).values())


def extra_by_op(graph: QGraph, chosen: Mapping[int, Chosen], chain: Chain) -> dict[int, float]:
    """Op index -> what its stage costs beside the whole layer; rows that move count where they were made."""
    runs: dict[int, list[int]] = {}
    for at, _, rows in chain.trace.runs:
        runs.setdefault(at, []).append(rows)
    found: dict[int, float] = {}
    for at, rows_of_runs in runs.items():
        stage = chain.stages[at]
        found[stage.op] = (_RUN + 2 * _TRY) * len(rows_of_runs)
        kind = graph.ops[stage.op].kind
        if kind == "CONV_2D":
            found[stage.op] += _more_blocks(graph, chosen[stage.op], stage, rows_of_runs)
        elif kind == "DEPTHWISE_CONV_2D":
            found[stage.op] += _more_spreading(graph, stage, rows_of_runs)
        lie = chain.tensors[stage.output]
        times = len(rows_of_runs) * (2 if lie.parked_rows else 1)
        moved = chain.trace.moved.get(stage.output, 0)
        found[stage.op] += (
            moved * lie.row_bytes * lie.pieces * _MOVED_BYTE + _MOVED_PIECE * lie.pieces * times
        )
    return found


def _more_blocks(graph: QGraph, chosen: Chosen, stage: Stage, runs: list[int]) -> float:
    width = graph.tensors[stage.output].shape[2]
    whole = -(-stage.out_rows * width // conv.BLOCK_PIXELS)
    blocks = sum(-(-rows * width // conv.BLOCK_PIXELS) for rows in runs)
    work = chosen.best.work
    return (blocks - whole) * (work.instructions if work else 0.0) / whole


def _more_spreading(graph: QGraph, stage: Stage, runs: list[int]) -> float:
    shape = graph.tensors[stage.input].shape
    rows_a_step = 3 - stage.stride
    steps = sum(-(-rows // rows_a_step) + 1 for rows in runs) - -(-stage.out_rows // rows_a_step) - 1
    spread = steps * (_SPREAD + _COLUMN * shape[2])
    return shape[3] // 4 * (spread + (len(runs) - 1) * _PLANE) + (len(runs) - 1) * _PADDING * shape[2]


def with_rows(figures: dict[str, Any], extra: float) -> dict[str, Any]:
    """A layer's figures (Priced.figures) with what rows cost besides."""
    times = {"instructions": 1.0, "cycles": _CYCLES}
    return {
        key: round(value + extra * times[key]) if key in times and value is not None else value
        for key, value in figures.items()
    }
