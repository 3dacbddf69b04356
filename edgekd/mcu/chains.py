"""Chains of layers that run by rows: which layers can, and what a chain needs of the arena.

A Chain is ops first .. last, all of them stages of stream.py, together with how each tensor's rows lie. The
memory plan places its windows beside everything else: as long as one of a chain's stages runs, in whatever
order, the steps first .. last are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekd.mcu.codegen_case import Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import add, average, conv, depthwise
from edgekd.mcu.stream import Chain, Rows, Stage, Trace, parkable, simulate
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference.values import before

CONVS = (conv.DRIVER, conv.POINTWISE)
LEAST_PIXELS = conv.BLOCK_PIXELS
_READERS = 2
_LARGEST = (1 << 15) - 1


def stage_of(graph: QGraph, index: int, emission: Emission, most: int) -> Stage | None:
    """The layer as a stage; None where its kernel cannot work on rows."""
    kind = emission.struct[0] if emission.struct else ""
    op = graph.ops[index]
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if len(x.shape) != 4 or len(y.shape) != 4 or x.shape[0] != 1 or max(*x.shape, *y.shape) > _LARGEST:
        return None
    heights = x.shape[1], y.shape[1]
    if kind in (f"{conv.DRIVER}_t", f"{depthwise.DRIVER}_t") and emission.calls[0].kernel in (
        *CONVS,
        depthwise.DRIVER,
    ):
        filter_h, stride = graph.tensors[op.inputs[1]].shape[1], Case(graph, index).number("stride_h")
        top = before(op, heights[0], filter_h, "h")
        return Stage(
            index, op.inputs[0], op.outputs[0], *heights, filter_h, stride, top, min(most, heights[1])
        )
    if kind == f"{add.KERNEL}_t" and op.inputs[0] != op.inputs[1]:
        return Stage(
            index, op.inputs[0], op.outputs[0], *heights, most=min(most, heights[1]), other=op.inputs[1]
        )
    if kind == f"{average.DRIVER}_t" and heights[0] > 1:
        return Stage(index, op.inputs[0], op.outputs[0], heights[0], heights[0], most=min(most, heights[0]))
    return None


def in_planes(emission: Emission, *, output: bool) -> bool:
    """Whether a stage's first input, or its output, lies in planes of four channels."""
    assert emission.struct is not None
    kind, fields = emission.struct
    if kind == f"{depthwise.DRIVER}_t":
        return True
    if kind == f"{conv.DRIVER}_t":
        matrix = fields["pairs"]
        assert isinstance(matrix, Mapping)
        if output:
            return matrix["planes"] == 1
        return any(leaf.name == fields["gather"] and "planes" in leaf.facts for leaf in emission.assembly)
    if kind == f"{average.DRIVER}_t" and not output:
        return fields["step_bytes"] == 4 != fields["channels"]
    return False


def make_chain(
    graph: QGraph,
    emissions: Mapping[int, Emission],
    first: int,
    last: int,
    most: int,
    *,
    parks: bool = False,
    from_rows: bool = False,
    to_rows: bool = False,
) -> Chain | None:
    """Ops first .. last as a chain; None where they are none.

    most: rows of a run. parks: whether windows are shared and rows wait beside them. from_rows, to_rows:
    whether the first tensor lies, and the last one shall lie, row by row though it is in planes.
    """
    stages = _stages(graph, emissions, first, last, most, from_rows, to_rows)
    if stages is None:
        return None
    trace = simulate(stages)
    if parks:
        pays = {
            t
            for t in parkable(stages)
            if len(trace.held[t].live) > 2 or trace.held[t].window_rows > stages[-1].most
        }
        trace = simulate(stages, frozenset(pays))
    tensors = _tensors(graph, emissions, stages, trace, from_rows, to_rows)
    if not trace.is_whole or not _runs_fit(graph, stages, trace):
        return None
    lag = _lag(graph, stages, tensors)
    if to_rows and lag < 0:
        return None
    sums = sum(2 * graph.tensors[s.input].shape[3] for s in stages if _is_average(graph, s))
    scratch = {s.op: _scratch_bytes(emissions[s.op], s) for s in stages}
    return Chain(stages, tensors, trace, scratch, sums, lag)


def _is_average(graph: QGraph, stage: Stage) -> bool:
    return graph.ops[stage.op].kind == "AVERAGE_POOL_2D"


def _stages(
    graph: QGraph,
    emissions: Mapping[int, Emission],
    first: int,
    last: int,
    most: int,
    from_rows: bool,
    to_rows: bool,
) -> tuple[Stage, ...] | None:
    stages: list[Stage] = []
    for index in range(first, last + 1):
        by_row = (from_rows and index == first) or (to_rows and index == last)
        found = (
            stage_of(graph, index, emissions[index], 1 if by_row else most) if index in emissions else None
        )
        if found is None or (_is_average(graph, found) and index != last):
            return None
        known = {tensor for stage in stages for tensor in (*stage.inputs, stage.output)}
        if stages and not known & set(found.inputs):
            return None
        stages.append(found)
    return tuple(stages) if _is_closed(graph, stages) else None


def _is_closed(graph: QGraph, stages: Sequence[Stage]) -> bool:
    """Whether nobody outside needs a tensor inside, and every tensor has few readers."""
    ops = {stage.op for stage in stages}
    for stage in stages[:-1]:
        readers = [i for i, op in enumerate(graph.ops) if stage.output in op.inputs]
        if stage.output in graph.outputs or not readers or not ops.issuperset(readers):
            return False
        if len(readers) > _READERS:
            return False
    return True


def _tensors(
    graph: QGraph,
    emissions: Mapping[int, Emission],
    stages: Sequence[Stage],
    trace: Trace,
    from_rows: bool,
    to_rows: bool,
) -> dict[int, Rows]:
    ops = [stage.op for stage in stages]
    planes = {s.input: in_planes(emissions[s.op], output=False) for s in stages}
    planes |= {s.output: in_planes(emissions[s.op], output=True) for s in stages}
    made = {stage.output for stage in stages}
    found = {}
    for tensor, held in trace.held.items():
        shape = graph.tensors[tensor].shape
        last = tensor == stages[-1].output
        average = last and _is_average(graph, stages[-1])
        whole = tensor not in made or last
        parked = held.parked_rows
        live = sorted(held.live)
        if parked:  # only the two stages that it lies between use the window
            live = [at for at, stage in enumerate(stages) if tensor in (stage.input, stage.output)]
        found[tensor] = Rows(
            tensor,
            rows=stages[-1].out_rows if average else shape[1],
            row_bytes=0 if average else 4 * shape[2] if planes.get(tensor) else shape[2] * shape[3],
            pieces=shape[3] // 4 if planes.get(tensor) else 1,
            window_rows=shape[1] if whole else held.window_rows,
            first=ops[0] if whole else ops[live[0]],
            last=ops[-1] if whole else ops[live[-1]],
            parked_rows=parked,
            is_whole=whole,
            is_source=tensor not in made,
            by_row=bool(planes.get(tensor))
            and ((last and to_rows) or (from_rows and tensor == stages[0].input)),
        )
    return found


def _runs_fit(graph: QGraph, stages: Sequence[Stage], trace: Trace) -> bool:
    """A convolution computes three pixels at a time: every run has as many."""
    for at, _, rows in trace.runs:
        stage = stages[at]
        is_convolution = graph.ops[stage.op].kind == "CONV_2D"
        if is_convolution and rows * graph.tensors[stage.output].shape[2] < LEAST_PIXELS:
            return False
    return True


def _lag(graph: QGraph, stages: Sequence[Stage], tensors: Mapping[int, Rows]) -> int:
    """Where the output may lie over the input, how far the input begins behind it; else -1."""
    source, output = tensors[stages[0].input], tensors[stages[-1].output]
    sources = [rows for rows in tensors.values() if rows.is_source]
    readers = [i for i, op in enumerate(graph.ops) if source.tensor in op.inputs]
    inside = {stage.op for stage in stages}
    if len(sources) > 1 or not inside.issuperset(readers) or source.tensor in graph.outputs:
        return -1
    if output.row_bytes == 0 or not all(rows.pieces == 1 or rows.by_row for rows in (source, output)):
        return -1
    lag = simulate(stages, over=(source.step_bytes, output.step_bytes)).lag_bytes
    lag = -(-lag // 4) * 4
    return lag if lag < output.window_bytes else -1


def _scratch_bytes(emission: Emission, stage: Stage) -> int:
    """Of one run: a convolution's band is that of its rows."""
    assert emission.struct is not None
    fields = emission.struct[1]
    if emission.struct[0] != f"{conv.DRIVER}_t" or not fields["band_rows"]:
        return emission.scratch_bytes
    rows = (stage.most - 1) * stage.stride + stage.filter_h
    return 4 * _number(fields["block_words"]) + rows * _number(fields["pitch_bytes"])


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value
