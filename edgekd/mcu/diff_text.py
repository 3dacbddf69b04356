"""Generated C with a model_invoke that keeps bytes: what of model.c and model.h is rewritten for `diff`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.diff_sums import Array
from edgekd.qgraph.ir import QGraph

_LAYER = re.compile(
    r"^/\* .*? -> ([\dx]+), \d+ multiply-accumulates\. \*/\nvoid (model_layer_(\d+)_\w+)\(", re.MULTILINE
)
_OUTPUTS = re.compile(r"^#define MODEL_OUTPUT\w* .*\n", re.MULTILINE)
_COPY = """static void kept_copy(int at, const uint8_t *from, int count)
{
    for (int i = 0; i < count; i++) {
        kept[at + i] = from[i];
    }
}

"""
_OUTPUT = "{\n    (void)model;\n    (void)index;\n    return kept;\n}\n"


@dataclass(frozen=True)
class KeptBytes:
    """`files`: the directory whose model gives kept bytes; `parts`: op index -> (offset, bytes)."""

    files: Mapping[str, str]
    parts: Mapping[int, tuple[int, int]]

    def split(self, rows: Array) -> dict[int, Array]:
        """uint8 [N, all bytes] -> op index -> uint8 [N, bytes]."""
        return {index: rows[:, at : at + count] for index, (at, count) in self.parts.items()}


@dataclass(frozen=True)
class LayerText:
    """A layer whose output lies whole in the arena: C function, op in the model's graph, place."""

    symbol: str
    number: int
    offset: int
    bytes_: int


def layer_texts(model: GeneratedModel, graph: QGraph) -> Iterator[tuple[int, LayerText]]:
    """(op index, its layer), for those that write their tensor's bytes and no others.

    Layers and ops of `graph` are matched by the tensor that they write, whose index no pass changes.
    """
    written = {op.outputs[0]: index for index, op in enumerate(graph.ops)}
    for shape, symbol, number in _LAYER.findall(model.files["model.c"]):
        output = model.graph.ops[int(number)].outputs[0]
        index, offset = written.get(output), model.plan.offsets.get(output)
        if index is None or offset is None:
            continue
        tensor = graph.tensors[output]
        if int(np.prod([int(n) for n in shape.split("x")])) == tensor.elements:
            yield index, LayerText(symbol, int(number), offset, tensor.nbytes)


def keep_layers(model: GeneratedModel, graph: QGraph) -> KeptBytes:
    """The generated files with a model_invoke that keeps a copy of each layer's output right after it.

    A layer that writes other than its tensor's bytes (dead channels left out) is not kept.
    """
    source, parts, end = model.files["model.c"], dict[int, tuple[int, int]](), 0
    for index, layer in layer_texts(model, graph):
        parts[index] = (end, layer.bytes_)
        source = source.replace(call(layer.symbol), call(layer.symbol) + keep(end, layer))
        end += layer.bytes_
    if not parts:
        raise ArtifactError(f"{graph.name}: its generated C has no layer to look at; generate it again")
    return KeptBytes(dict(model.files) | keeping(model, source, end), parts)


def call(symbol: str) -> str:
    """The line of model_invoke that runs a layer."""
    return f"    {symbol}(model);\n"


def keep(at: int, layer: LayerText) -> str:
    """A line that keeps the layer's bytes from `at` on."""
    return f"    kept_copy({at}, model->bytes + {layer.offset}, {layer.bytes_});\n"


def keeping(model: GeneratedModel, source: str, kept_bytes: int) -> dict[str, str]:
    """model.c (as `source`, which calls kept_copy) and model.h, with what was kept as the only output."""
    head = f"static uint8_t kept[{kept_bytes}];\n\n"
    begin = source.index("const void *model_output(")
    body, stop = source.index("\n{", begin) + 1, source.index("\n}\n", begin) + 3
    source = source[:begin] + head + source[begin:body] + _OUTPUT + source[stop:]
    source = source.replace("void model_invoke(", _COPY + "void model_invoke(", 1)
    return {"model.c": source, "model.h": _header(model, kept_bytes)}


def _header(model: GeneratedModel, kept_bytes: int) -> str:
    """model.h with one output: everything that was kept."""
    text = _OUTPUTS.sub("", model.files["model.h"])
    lines = {"_COUNT": "1", "_BYTES": str(kept_bytes), "0_BYTES": str(kept_bytes)}
    lines |= {"0_SCALE": "1", "0_ZERO_POINT": "0"}
    defined = "".join(f"#define MODEL_OUTPUT{name} {value}\n" for name, value in lines.items())
    return text.replace("#define MODEL_INPUT_COUNT", defined + "#define MODEL_INPUT_COUNT", 1)
