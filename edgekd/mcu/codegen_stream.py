"""The C of chains that run by rows: each stage's struct, the tables of rows, the loop in model_invoke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekd.mcu.chains import in_planes
from edgekd.mcu.codegen_case import Call, Emission
from edgekd.mcu.codegen_text import Value, initialiser
from edgekd.mcu.dsp import add, average, conv, depthwise
from edgekd.mcu.plan import Plan
from edgekd.mcu.stream import Chain, Rows, Stage, passes

HEADER = "k_stream"
_WORD = 4
_FIRST_HELD = 2  # words of a chain's state before those of its tensors
_READERS = 2

_START = """
/* The stages of a chain, tried in turn until none can run; where its state lies is a constant. */
{rows}
void {start}(model_t *model)
{{
    k_stream_start({name}, {count}, {state}, model->words);
}}
"""


def streamed(emission: Emission, chain: Chain, at: int, where: Plan) -> Emission:
    """The emission of stage `at` of a chain: the same leaves and weights, run by rows."""
    assert emission.struct is not None
    kind, fields = emission.struct
    stage = chain.stages[at]
    inner = {
        f"{conv.DRIVER}_t": _conv,
        f"{depthwise.DRIVER}_t": _depthwise,
        f"{add.KERNEL}_t": _add,
        f"{average.DRIVER}_t": _average,
    }[kind](emission, fields, chain, stage, where)
    kernel = {
        f"{conv.DRIVER}_t": "k_stream_conv_s8",
        f"{depthwise.DRIVER}_t": "k_stream_depthwise_s8",
        f"{add.KERNEL}_t": "k_stream_add_s8",
        f"{average.DRIVER}_t": "k_stream_average_s8",
    }[kind]
    driver = (emission.calls[0].kernel,) if kind == f"{conv.DRIVER}_t" else ()
    return replace(
        emission,
        calls=(Call(kernel, ("&layer", "model->words")),),
        struct=(f"{kernel}_t", {"stage": _stage(chain, at, where), **inner}),
        scratch_bytes=chain.scratch[stage.op],
        helpers=(*emission.helpers, *driver),
    )


def rows_name(chain: Chain) -> str:
    return f"model_rows_{chain.first:02d}"


def start_name(chain: Chain) -> str:
    return f"model_start_{chain.first:02d}"


def _stage(chain: Chain, at: int, where: Plan) -> dict[str, Value]:
    stage, last = chain.stages[at], len(chain.stages) - 1
    place = list(chain.tensors).index

    def pointer(tensor: int) -> str:
        return f"&{rows_name(chain)}[{place(tensor)}]"

    return {
        "state": where.states[chain.first] // _WORD,
        "in": pointer(stage.input),
        "other": pointer(stage.other) if stage.other >= 0 else "0",
        "out": pointer(stage.output),
        "index": at,
        "next": min(at + 1, last),
        "filter_h": stage.filter_h,
        "stride": stage.stride,
        "pad_top": stage.pad_top,
        "most": stage.most,
        "passes": int(at < last and passes(chain.stages)[at]),
    }


def _scratch(stage: Stage, where: Plan) -> int:
    return where.scratch.get(stage.op, 0) // _WORD


def _conv(
    emission: Emission, fields: Mapping[str, Value], chain: Chain, stage: Stage, where: Plan
) -> dict[str, Value]:
    inner = dict(fields)
    if in_planes(emission, output=False):
        inner["widen"] = _with(fields["widen"], step_bytes=chain.tensors[stage.input].piece_bytes)
    if in_planes(emission, output=True):
        inner["pairs"] = _with(fields["pairs"], step_bytes=chain.tensors[stage.output].piece_bytes)
    run = emission.calls[0].kernel
    return {"scratch": _scratch(stage, where), "run": run, "conv": inner}


def _depthwise(
    emission: Emission, fields: Mapping[str, Value], chain: Chain, stage: Stage, where: Plan
) -> dict[str, Value]:
    return {"scratch": _scratch(stage, where), "planes": fields}


def _add(
    emission: Emission, fields: Mapping[str, Value], chain: Chain, stage: Stage, where: Plan
) -> dict[str, Value]:
    row = chain.tensors[stage.output].row_bytes
    return {"leaf": emission.assembly[0].name, "sum": {**fields, "elements": row}}


def _average(
    emission: Emission, fields: Mapping[str, Value], chain: Chain, stage: Stage, where: Plan
) -> dict[str, Value]:
    rows, pixels = chain.tensors[stage.input], fields["pixels"]
    assert isinstance(pixels, int)
    four = rows.piece_bytes if rows.pieces > 1 or in_planes(emission, output=False) else 4
    return {
        "sums": where.states[chain.first] // _WORD + chain.state_words,
        "out_w": pixels // rows.rows,
        "average": {**fields, "four_bytes": four},
    }


def _with(value: Value, **more: int) -> dict[str, Value]:
    assert isinstance(value, Mapping)
    return {**value, **more}


def tables(chains: Sequence[Chain], where: Plan) -> str:
    """The constants and the start of each chain, for model.c."""
    text = ""
    for chain in chains:
        entries = "".join(
            f"    {initialiser(_rows(chain, rows, where))},\n" for rows in chain.tensors.values()
        )
        count = len(chain.tensors)
        text += _START.format(
            rows=f"static const k_stream_rows_t {rows_name(chain)}[{count}] = {{\n{entries}}};\n",
            start=start_name(chain),
            name=rows_name(chain),
            count=count,
            state=where.states[chain.first] // _WORD,
        )
    return text


def _rows(chain: Chain, rows: Rows, where: Plan) -> dict[str, Value]:
    held = {tensor: _FIRST_HELD + at for at, tensor in enumerate(chain.tensors)}
    readers: list[Value] = []
    for stage in chain.stages:
        if stage.input == rows.tensor:
            readers.append({"held": held[stage.output], "stride": stage.stride, "pad_top": stage.pad_top})
        if stage.other == rows.tensor:
            readers.append({"held": held[stage.output], "stride": 1, "pad_top": 0})
    fields: dict[str, Value] = {
        "window": where.offsets[rows.tensor],
        "parked": where.parked.get(rows.tensor, -1),
        "row_bytes": rows.step_bytes,
        "piece_bytes": rows.piece_bytes,
        "parked_bytes": rows.row_bytes * rows.parked_rows,
        "pieces": rows.pieces,
        "rows": rows.rows,
        "whole": 0 if not rows.is_whole else 2 if rows.is_source else 1,
        "held": held[rows.tensor],
    }
    if not rows.is_whole:
        fields |= {f"reader[{i}]": reader for i, reader in enumerate(readers[:_READERS])}
    return fields


def invoke(chain: Chain, where: Plan, symbols: Sequence[str], before: str = "", behind: str = "") -> str:
    """The lines of model_invoke (or of another function with `model`) that run a chain.

    symbols: the stages' functions. before, behind: statements around each; {stage} in them is its position.
    """
    state = f"model->words[{where.states[chain.first] // _WORD}]"
    names = "".join(f"            {symbol},\n" for symbol in symbols)
    around = [line.format(stage="stage") for line in (before, behind)]
    return (
        f"    {{\n        static void (*const stages[])(model_t *) = {{\n{names}        }};\n\n"
        f"        {start_name(chain)}(model);\n        while ({state} >= 0) {{\n"
        f"            int32_t stage = {state};\n{around[0]}            stages[stage](model);\n{around[1]}"
        "        }\n    }\n"
    )
