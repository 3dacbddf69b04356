"""What a linear layer of generated C sums up, shown byte by byte: a variant of its requantization.

The layer runs seven times on the same arena: four times each output is one byte of the 32-bit sum that goes
into its requantization, once the complement of the first byte, once 0 (so that what is added to each byte
behind it, a zero point, is known), once as it always is. In C this is a switch
in k_common.h's and k_dsp.h's rounding functions; an assembly leaf gets copies of its own text in which the
multiplication is left out and the saturation is a shift. Everything that makes the sum stays as it is.
Where complement and byte do not agree, the outputs do not come through these functions: then nothing is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.diff_sums import Array
from edgekd.mcu.diff_text import LayerText, call, keep, keeping, layer_texts
from edgekd.mcu.dsp.depthwise import CHANNEL_BYTES, sum_of_record
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.passes.intervals import bias_of

BYTES = 4
COMPLEMENT, NOTHING = BYTES, BYTES + 1
ROUNDS = BYTES + 2
CARRIED_BITS = 8  # of the DSP family's sums: their factor is 2**8

_STATE = """
/* 0: as always; 1 to 4: outputs are that byte of the sum; 5: the complement of the first; 6: zero. */
extern volatile int32_t k_exposed;
extern volatile uint32_t k_exposed_sum;

static inline int32_t k_exposed_byte(uint32_t word)
{
    if (k_exposed > 4) {
        return k_exposed > 5 ? 0 : (int32_t)(~word & 255u);
    }
    return (int32_t)(word >> (8 * (k_exposed - 1)) & 255u);
}

"""
_DEFINED = """
volatile int32_t k_exposed;
volatile uint32_t k_exposed_sum;
static uint8_t arena_before[MODEL_ARENA_BYTES];

static void arena_copy(uint8_t *to, const uint8_t *from)
{
    for (int i = 0; i < MODEL_ARENA_BYTES; i++) {
        to[i] = from[i];
    }
}

"""
# Header -> function -> what it does first while a layer is exposed.
_SWITCHES = {
    "k_common.h": {
        "int32_t k_requantize": "return k_exposed_byte((uint32_t)value);",
        "int8_t k_clamp": "return (int8_t)(uint8_t)((uint32_t)value & 255u);",
    },
    "k_dsp.h": {
        "int32_t k_smmla": "k_exposed_sum = (uint32_t)a;",
        "int8_t k_ssat8": "return (int8_t)(uint8_t)k_exposed_byte(k_exposed_sum);",
        "int8_t k_round_twice": "return (int8_t)(uint8_t)k_exposed_byte(sum << 8);",
    },
}
_STRUCT = re.compile(r"static const (k_\w+_t) layer")
_SATURATION = re.compile(r"^    ssat (r\d+), #8, (r\d+), asr #\d+$", re.MULTILINE)


@dataclass(frozen=True)
class Exposed:
    """`files`: the directory whose model gives the layer's bytes of all rounds, then its own output's.

    `_sum`: (the four bytes as int32, channel) -> the sum, or None where it cannot be told.
    """

    files: Mapping[str, str]
    layer_bytes: int
    _sum: Callable[[int, int], int | None]

    def sum_at(self, row: Array, at: int, channel: int) -> int | None:
        """row: uint8, the model's output; at: the element of the layer, as its bytes lie in the arena."""
        rounds = row[: ROUNDS * self.layer_bytes].reshape(ROUNDS, self.layer_bytes)[:, at]
        values = [(int(v) - int(rounds[NOTHING])) & 255 for v in rounds]
        if values[0] ^ values[COMPLEMENT] != 255:
            return None
        word = sum(v << (8 * i) for i, v in enumerate(values[:BYTES]))
        return self._sum(word - ((word >> 31) << 32), channel)

    def output(self, row: Array) -> Array:
        """What the layer gives: uint8 [bytes]."""
        return row[ROUNDS * self.layer_bytes :]


def expose(model: GeneratedModel, graph: QGraph, index: int) -> Exposed | None:
    """The variant for op `index`; None for a layer whose kernel's sum this module does not know."""
    layer = dict(layer_texts(model, graph)).get(index)
    if layer is None:
        return None
    function = _function(model.files["model.c"], layer.symbol)
    struct = _STRUCT.search(function)
    decoder = _DECODERS.get(struct[1]) if struct else None
    headers = {name: _switched(name, model.files[name]) for name in _SWITCHES if name in model.files}
    if decoder is None or None in headers.values():
        return None
    assembly = model.files.get("model_dsp.S", "")
    names = re.findall(r"^([A-Za-z_]\w*):$", assembly, re.MULTILINE)
    leaves = [
        name
        for name in names
        if re.search(rf"\b{name}\b", function) and _SATURATION.search(_leaf(assembly, name))
    ]
    files = dict(model.files) | {name: text for name, text in headers.items() if text}
    if leaves:
        files |= _leaf_copies(model, leaves)
    source = _source(model.files["model.c"], layer, function, leaves)
    files |= keeping(model, source, (ROUNDS + 1) * layer.bytes_)
    return Exposed(files, layer.bytes_, decoder(model, layer.number))


def _function(source: str, symbol: str) -> str:
    """The text of a layer's function."""
    begin = source.index(f"\nvoid {symbol}(model_t *model)\n{{") + 1
    return source[begin : source.index("\n}\n", begin) + 3]


def _switched(name: str, text: str) -> str | None:
    """A header whose rounding functions look at k_exposed; None where one of them is not there."""
    for function, first in _SWITCHES[name].items():
        found = re.search(rf"static inline {re.escape(function)}\([^)]*\)\n\{{\n", text)
        if found is None:
            return None
        switch = f"    if (k_exposed != 0) {{\n        {first}\n    }}\n"
        text = text[: found.end()] + switch + text[found.end() :]
    if name == "k_common.h":
        text = text.replace("#include <stdint.h>\n", f"#include <stdint.h>\n{_STATE}", 1)
    return text


def _source(source: str, layer: LayerText, function: str, leaves: list[str]) -> str:
    """model.c that runs the layer once a round, and once more as it is."""
    copies, lines = "", "    arena_copy(arena_before, model->bytes);\n"
    for number in range(ROUNDS):
        symbol = f"{layer.symbol}_exposed{number}"
        text = "static " + function.replace(layer.symbol, symbol)
        for leaf in leaves:
            text = re.sub(rf"\b{leaf}\b", f"{leaf}_exposed{number}", text)
        copies += "\n" + text
        lines += f"    k_exposed = {number + 1};\n{call(symbol)}    k_exposed = 0;\n"
        lines += keep(number * layer.bytes_, layer) + "    arena_copy(model->bytes, arena_before);\n"
    lines += call(layer.symbol) + keep(ROUNDS * layer.bytes_, layer)
    declared = "extern volatile int32_t k_exposed;\nextern volatile uint32_t k_exposed_sum;\n"
    source = source.replace(call(layer.symbol), lines)
    return source.replace(
        "void model_init(", declared + _DEFINED.lstrip() + copies.lstrip() + "\nvoid model_init(", 1
    )


# ---- assembly ----


def _leaf(assembly: str, name: str) -> str:
    """The text of one generated function, its section line included."""
    begin = assembly.index(f"\n    .section .text.{name},")
    end = f"    .size {name}, . - {name}\n"
    return assembly[begin : assembly.index(end, begin) + len(end)]


def _leaf_copies(model: GeneratedModel, leaves: list[str]) -> dict[str, str]:
    """model_dsp.S and model_dsp.h with each leaf once more a round."""
    assembly, header = model.files["model_dsp.S"], model.files["model_dsp.h"]
    copies = ""
    for leaf in leaves:
        for number in range(ROUNDS):
            text = exposed_leaf(_leaf(assembly, leaf), number)
            copies += re.sub(rf"\b{leaf}\b", f"{leaf}_exposed{number}", text)
        names = [f"{leaf}_exposed{number}" for number in range(ROUNDS)]
        declared, defined = (
            re.search(rf"^{line}\n", header, re.MULTILINE)
            for line in (rf"(\w+_function) {leaf};", rf"#define {leaf} (\w+)")
        )
        assert declared and defined, f"model_dsp.h does not declare {leaf}"
        header = header.replace(declared[0], declared[0] + "".join(f"{declared[1]} {n};\n" for n in names))
        header = header.replace(
            defined[0], defined[0] + "".join(f"#define {n} {defined[1]}\n" for n in names)
        )
    place = assembly.rindex("#endif")
    return {"model_dsp.S": assembly[:place] + copies + assembly[place:], "model_dsp.h": header}


def exposed_leaf(text: str, number: int) -> str:
    """A leaf whose outputs are byte `number` of the sum with its factor, or COMPLEMENT or NOTHING."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        found = _SATURATION.match(line)
        if found is None:
            continue
        total = found[1]
        _without_rounding(lines, at, total)
        shift = f"lsr {total}, {total}, #{8 * number}" if number else "nop"
        special = {COMPLEMENT: f"mvn {total}, {total}", NOTHING: f"eor {total}, {total}, {total}"}
        lines[at] = f"    {special.get(number, shift)}"
    return "\n".join(lines)


def _without_rounding(lines: list[str], at: int, total: str) -> None:
    """Between the sum and line `at`: SMMLA and SMMUL go; SMMLAR's doubled sum is shifted by 7."""
    for before in range(at - 1, -1, -1):
        line = lines[before].strip()
        if not line.startswith(
            (f"smmla {total}, {total},", f"smmlar {total}, {total},", f"smmul {total}, {total},")
        ):
            if line.startswith(f"asr {total}, {total}, r"):
                lines[before] = "    nop"
            continue
        doubled = line.startswith("smmlar")
        lines[before] = f"    lsl {total}, {total}, #{CARRIED_BITS - 1}" if doubled else "    nop"
        return


# ---- from the word to the sum ----


def _plain(model: GeneratedModel, number: int) -> Callable[[int, int], int | None]:
    return lambda word, channel: word


def _carried(model: GeneratedModel, number: int) -> Callable[[int, int], int | None]:
    """A sum times 2**CARRIED_BITS."""

    def found(word: int, channel: int) -> int | None:
        return None if word % (1 << CARRIED_BITS) else word >> CARRIED_BITS

    return found


def _folded(model: GeneratedModel, number: int) -> Callable[[int, int], int | None]:
    """A depthwise plane: the factor and what the rounding added to the bias are in the channel's record."""
    name = f"model_weights_{number:02d}_filter"
    records = next(array.values for array in model.weights.arrays if array.name == name).astype(np.int64)
    graph, op = model.graph, model.graph.ops[number]
    x, weights = graph.tensors[op.inputs[0]], np.asarray(graph.tensors[op.inputs[1]].data, np.int64)
    taps = weights.reshape(9, -1).T
    bias = bias_of(graph, op, len(taps)) - x.zero_point * taps.sum(axis=1)

    def found(word: int, channel: int) -> int | None:
        if CHANNEL_BYTES * len(taps) != records.size:
            return None
        return sum_of_record(
            word, records.reshape(-1, CHANNEL_BYTES), channel, taps[channel], int(bias[channel])
        )

    return found


_DECODERS: dict[str, Callable[[GeneratedModel, int], Callable[[int, int], int | None]]] = {
    "k_conv_2d_packed_s8_t": _plain,
    "k_conv_2d_s8_t": _plain,
    "k_depthwise_conv_2d_s8_t": _plain,
    "k_gemm_packed_s8_t": _plain,
    "k_gemm_s8_t": _plain,
    "k_dsp_conv_s8_t": _carried,
    "k_dsp_dense_s8_t": _carried,
    "k_dsp_depthwise_s8_t": _folded,
    "k_dsp_packed_s8_t": _carried,
}
