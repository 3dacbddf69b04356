"""A firmware engineer's first question, answered without training or compiling: does this model fit?

`check` takes a model's bytes or graph and the profiles, and says which ops it holds, which of them cannot
run, what it takes of flash and RAM on every microcontroller profile, what stands in the way, and what
would make it fit. A pure function; footprint.py predicts the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgekd.errors import BudgetError, UnsupportedOpError
from edgekd.mcu import zeros
from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.dsp.family import family_of
from edgekd.mcu.footprint import ROUND_BYTES, Footprint, compilers, load_table, predict
from edgekd.mcu.options import Options, options_for
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.residual import KIND as RESIDUAL
from edgekd.qgraph.survey import SurveyedOp, survey_graph, survey_tflite
from edgekd.target import Memory, Target


def check_file(
    data: bytes, file_name: str, targets: Sequence[Target], kind: str, optimize: str = "speed"
) -> dict[str, Any]:
    """`check` for a model file's bytes; an op that edgekd cannot run is an answer, not an error.

    Raises ArtifactError for a file that is broken or no model.
    """
    try:
        return check(load_graph(data, file_name), targets, kind, optimize)
    except UnsupportedOpError as error:
        tflite = data[4:8] == b"TFL3"
        ops = survey_tflite(data, file_name) if tflite else []
        return _answer(file_name, ops, [str(error)], targets, kind)


def check(graph: QGraph, targets: Sequence[Target], kind: str, optimize: str = "speed") -> dict[str, Any]:
    """What `graph` needs on each of `targets` (those of kind mcu) when compiled by `kind`.

    optimize: as of Options. Latency is modelled cycles at the profile's clock, an estimate.

    Returns {"model", "compiler", "ops": [{op, count, macs, supported}], "unsupported": [{op, layer,
    inputs, outputs}], "obstacles": [sentence], "passes": [sentence], "peak": {layer, bytes}, "weights":
    [{layer, op, weights, bits, tables, stored}], "zeros": {zero, weights, saved: [{family, weight_bytes,
    macs}]}, "targets": [{target, core, family, fits, flash_need, flash_have, ram_need, ram_have,
    stack_bound, parts, instructions, cycles, latency_us, advice}]}; bytes. passes: what the passes over the
    graph saved. `bits` are those of the model's weights, `stored` is family -> the bits that a weight takes
    in the generated C. zeros: what zero weights save (edgekd.mcu.zeros), null where there are few. What
    cannot be told is null.
    """
    ops = survey_graph(graph)
    try:
        stripped = strip_float_edges(graph)
        generated = Generated(stripped, kind, optimize)
        models = [generated.on(target) for target in targets if target.core is not None]
    except UnsupportedOpError as error:
        return _answer(graph.name, ops, [str(error)], targets, kind)
    answer = _answer(graph.name, ops, [], (), kind)
    macs = Counter[str]()
    for layer in (models[0] if models else generate(stripped)).layers:
        macs["CONV_2D" if layer.op == RESIDUAL else layer.op] += layer.macs
    answer["ops"] = [row | {"macs": macs[row["op"]]} for row in answer["ops"]]
    answer["passes"] = list(dict.fromkeys(line for model in models for line in model.passes))
    answer["peak"] = peak_layer(stripped)
    answer["weights"] = weights_of_layers(stripped, generated.by_family())
    if zeros.is_sparse(stripped):
        answer["zeros"] = _zeros(
            stripped, generated, Generated(zeros.without_zeros(stripped), kind, optimize), targets
        )
    answer["targets"] = [
        _row(target, model, kind, answer["peak"])
        for target, model in zip((t for t in targets if t.core is not None), models, strict=True)
    ]
    return answer


def _zeros(graph: QGraph, sparse: Generated, dense: Generated, targets: Sequence[Target]) -> dict[str, Any]:
    """What the zeros of `graph` save; dense: the same one without them."""
    for target in targets:
        if target.core is not None:
            dense.on(target)
    zero, every = zeros.count_zeros(graph)
    both = sparse.by_family(), dense.by_family()
    return {"zero": zero, "weights": every, "saved": zeros.saved(*both)}


class Generated:
    """The C of one graph for several targets; those that would get the same share it."""

    def __init__(self, graph: QGraph, kind: str, optimize: str) -> None:
        self._graph, self._kind, self._optimize = graph, kind, optimize
        self._known: dict[tuple[str, Options], GeneratedModel] = {}

    def on(self, target: Target) -> GeneratedModel:
        """Within the target's limits where they can be met: without them first, for most models fit."""
        roomy = self._of(target, replace(options_for(target, self._optimize, self._kind), **NO_LIMITS))
        assert target.core is not None and target.memory is not None
        found, memory = predict(roomy, self._kind, cpu=target.core.cpu), target.memory
        flash = found.weights if found.flash_bytes is None else found.flash_bytes
        if flash <= memory.flash_bytes and found.arena + memory.stack_bytes <= memory.ram_bytes:
            return roomy
        return self._of(target, options_for(target, self._optimize, self._kind))

    def by_family(self) -> dict[str, GeneratedModel]:
        """One of the models of each family."""
        return {family: model for (family, _), model in self._known.items()}

    def _of(self, target: Target, options: Options) -> GeneratedModel:
        assert target.core is not None
        key = family_of(target.core.cpu), options
        if key not in self._known:
            try:
                self._known[key] = generate(self._graph, *key)
            except BudgetError:  # no two regions hold it: the answer says what one would need
                self._known[key] = generate(self._graph, key[0], replace(options, regions=None))
        return self._known[key]


NO_LIMITS: dict[str, Any] = {"flash_bytes": None, "ram_bytes": None}


def peak_layer(graph: QGraph) -> dict[str, Any]:
    """The op during which most activation bytes are alive: its layer, and those bytes."""
    first = dict.fromkeys(graph.inputs, -1)
    last = dict.fromkeys(graph.inputs, -1)
    for step, op in enumerate(graph.ops):
        first.update(dict.fromkeys(op.outputs, step))
        last.update({i: step for i in (*op.inputs, *op.outputs) if i in first})
    last.update(dict.fromkeys(graph.outputs, len(graph.ops)))
    alive = [
        sum(graph.tensors[i].nbytes for i in first if first[i] <= step <= last[i])
        for step in range(len(graph.ops))
    ]
    if not alive:
        return {"layer": None, "bytes": 0}
    step = alive.index(max(alive))
    return {"layer": graph.label(step), "bytes": alive[step]}


def weights_of_layers(graph: QGraph, generated: Mapping[str, GeneratedModel]) -> list[dict[str, Any]]:
    """How many bits the weights of each linear layer have, in the model and in each family's C."""
    stored = {family: _stored_bits(graph, model) for family, model in generated.items()}
    rows = []
    for op in graph.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights = graph.tensors[op.inputs[1]]
            rows.append({
                "layer": graph.tensors[op.outputs[0]].name,
                "op": op.kind,
                "weights": weights.elements,
                "bits": weights.encoding.bits if weights.encoding else 8,
                "tables": len(weights.encoding.tables) if weights.encoding else 0,
                "stored": {family: bits.get(op.outputs[0]) for family, bits in stored.items()},
            })  # fmt: skip
    return rows


def _stored_bits(graph: QGraph, model: GeneratedModel) -> dict[int, int]:
    """Output tensor of each op -> bits of a weight in flash; passes keep the tensors' numbers."""
    names = {array.name for array in model.weights.arrays}
    found = {}
    for index, op in enumerate(model.graph.ops):
        encoding = model.graph.tensors[op.inputs[1]].encoding if len(op.inputs) > 1 else None
        is_packed = encoding is not None and f"model_weights_{index:02d}_table" in names
        found[op.outputs[0]] = encoding.stored_bits if encoding and is_packed else 8
    together = {op.outputs[0] for op in model.graph.ops if op.kind == RESIDUAL}
    for op in graph.ops:  # what such an op adds up: its convolution's weights are not packed
        if op.outputs[0] in together:
            found |= {i: 8 for i in op.inputs if i not in found}
    return found


def _answer(
    name: str, ops: Sequence[SurveyedOp], obstacles: list[str], targets: Sequence[Target], kind: str
) -> dict[str, Any]:
    """The answer without figures: every profile's row is unknown."""
    counts = Counter(op.kind for op in ops)
    supported = {op.kind: op.is_supported for op in ops}
    return {
        "model": name,
        "compiler": compilers(load_table()).get(kind, kind),
        "ops": [
            {"op": op, "count": count, "macs": None, "supported": supported[op]}
            for op, count in sorted(counts.items())
        ],
        "unsupported": [
            {"op": op.kind, "layer": op.layer, "inputs": op.inputs, "outputs": op.outputs}
            for op in ops
            if not op.is_supported
        ],
        "obstacles": obstacles,
        "passes": [],
        "peak": None,
        "weights": [],
        "zeros": None,
        "targets": [_unknown(target) for target in targets if target.core is not None],
    }


def _unknown(target: Target) -> dict[str, Any]:
    assert target.core is not None and target.memory is not None
    return {
        "target": target.name,
        "core": target.core.cpu,
        "family": family_of(target.core.cpu),
        "fits": None,
        "flash_need": None,
        "flash_have": target.memory.flash_bytes,
        "ram_need": None,
        "ram_have": target.memory.ram_bytes,
        "stack_bound": None,
        "parts": None,
        "instructions": None,
        "cycles": None,
        "latency_us": None,
        "advice": ["the model cannot run yet: see what stands in the way"],
    }


def _row(target: Target, model: GeneratedModel, kind: str, peak: Mapping[str, Any]) -> dict[str, Any]:
    """One profile's answer. RAM is counted as the linker counts it: with the whole reserved stack."""
    assert target.core is not None and target.memory is not None
    memory = target.memory
    found = predict(model, kind, cpu=target.core.cpu)
    stack = -(-memory.stack_bytes // ROUND_BYTES) * ROUND_BYTES
    ram = found.arena + found.static + stack
    advice = _advice(found, memory, ram, peak)
    known = found.flash_bytes is not None or found.weights > memory.flash_bytes or ram > memory.ram_bytes
    return _unknown(target) | {
        "fits": not advice if known else None,
        "flash_need": found.flash_bytes,
        "ram_need": ram,
        "stack_bound": found.stack,
        **_latency(target, model),
        "parts": {
            "weights": found.weights,
            "constants": found.constants,
            "code": found.code,
            "arena": found.arena,
            "static": found.static,
            "stack_reserved": stack,
        },
        "advice": advice or list(found.missing),
    }


def _latency(target: Target, model: GeneratedModel) -> dict[str, Any]:
    """Predicted instructions, modelled cycles and their time at the profile's clock; null where unknown."""
    assert target.core is not None
    cycles = _sum(layer.cycles for layer in model.layers)
    instructions = _sum(layer.instructions for layer in model.layers)
    latency_us = None if cycles is None else cycles * 1e6 / target.core.clock_hz
    return {"instructions": instructions, "cycles": cycles, "latency_us": latency_us}


def _sum(values: Iterable[int | None]) -> int | None:
    found = list(values)
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def _advice(found: Footprint, memory: Memory, ram: int, peak: Mapping[str, Any]) -> list[str]:
    """What stands in the way on this profile, and what would make it fit; empty where all fits."""
    advice = []
    flash = found.weights if found.flash_bytes is None else found.flash_bytes
    if flash > memory.flash_bytes:
        over = flash - memory.flash_bytes
        room = memory.flash_bytes - (flash - found.weights)
        mend = (
            f"weights of at most {room:,} bytes ({100 * room // max(found.weights, 1)} % of today's) fit: "
            "compress the model"
            if room > 0
            else "the code alone does not fit"
        )
        advice.append(f"flash: {over:,} bytes too many; {mend}, or take a target with {flash:,} bytes")
    if ram > memory.ram_bytes:
        over = ram - memory.ram_bytes
        advice.append(
            f"RAM: {over:,} bytes too many; most are alive in {peak['layer']} ({peak['bytes']:,} bytes of "
            f"tensors): a smaller input or an earlier stride there, or a target with {ram:,} bytes"
        )
    if found.stack is not None and found.stack > memory.stack_bytes:
        advice.append(
            f"stack: up to {found.stack:,} bytes, {memory.stack_bytes:,} are reserved; raise "
            "memory.stack_bytes in the profile"
        )
    return advice


def fitting(answer: Mapping[str, Any]) -> list[str]:
    """The names of the targets that the model fits."""
    return [row["target"] for row in answer["targets"] if row["fits"]]
