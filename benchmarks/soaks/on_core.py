"""Many random graphs in one image of the emulated core: their generated C, assembly included, on all samples.

The harness takes up to four inputs and outputs; here all of them follow each other in one of each, which the
generated model_invoke copies into and out of the arena.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.target import Target
from tests.mcu.generated import Array

ROOM_BYTES = 16 << 20  # of flash and of RAM, so that a batch of graphs fits

_EDGES = re.compile(r"^#define MODEL_(INPUT|OUTPUT)(?:\d+|S)?_\w+ .*\n", re.MULTILINE)
_GIVEN = "edge_copy(model->bytes + {place}, edge_input + {at}"
_GIVES = "edge_copy(edge_output + {at}, model->bytes + {place}"
_COPY = """static void edge_copy(uint8_t *to, const uint8_t *from, int count)
{
    for (int i = 0; i < count; i++) {
        to[i] = from[i];
    }
}

"""


def run_on_core(
    model: GeneratedModel, graph: QGraph, rows: Array, target: Target, compiler: Compiler, folder: Path
) -> Array:
    """rows: uint8 [N, all inputs' bytes] -> uint8 [N, all outputs' bytes]."""
    generated = folder / "generated"
    generated.mkdir(parents=True)
    for name, text in (model.files | one_edge(model, graph)).items():
        (generated / name).write_text(text, encoding="utf-8")
    assert target.memory is not None
    roomy = replace(target, memory=replace(target.memory, flash_bytes=ROOM_BYTES, ram_bytes=ROOM_BYTES))
    build_image(generated, roomy, compiler, folder / "image")
    elf = folder / "image" / "firmware.elf"
    return run_image(elf, generated / "layers.json", roomy, rows, counted=0, watched=1).outputs


def one_edge(model: GeneratedModel, graph: QGraph) -> dict[str, str]:
    """model.h and model.c with one input and one output: all of the graph's, one after the other."""
    source, text = model.files["model.c"], _EDGES.sub("", model.files["model.h"])
    given, given_bytes = _copies(model, graph, graph.inputs, _GIVEN)
    gives, gives_bytes = _copies(model, graph, graph.outputs, _GIVES)
    held = f"static uint8_t edge_input[{given_bytes}];\nstatic uint8_t edge_output[{gives_bytes}];\n\n"
    for name, buffer in (("void *model_input(", "edge_input"), ("const void *model_output(", "edge_output")):
        begin = source.index(name)
        body, end = source.index("\n{", begin), source.index("\n}\n", begin)
        source = (
            source[:body] + f"\n{{\n    (void)model;\n    (void)index;\n    return {buffer};" + source[end:]
        )
    source = source.replace("void *model_input(", held + "void *model_input(", 1)
    begin = source.index("void model_invoke(")
    body, end = source.index("{\n", begin) + 2, source.index("\n}\n", begin) + 1
    invoke = source[begin:body] + given + source[body:end] + gives + source[end:]
    defined = _macros("INPUT", given_bytes) + _macros("OUTPUT", gives_bytes)
    header = text.replace("#include <stdint.h>\n", f"#include <stdint.h>\n\n{defined}", 1)
    return {"model.c": source[:begin] + _COPY + invoke, "model.h": header}


def _copies(model: GeneratedModel, graph: QGraph, edge: tuple[int, ...], line: str) -> tuple[str, int]:
    """The lines that copy each tensor of an edge, and the bytes of all."""
    text, at = "", 0
    for index in edge:
        count = graph.tensors[index].nbytes
        text += f"    {line.format(place=model.plan.offsets[index], at=at)}, {count});\n"
        at += count
    return text, at


def _macros(side: str, count: int) -> str:
    names = ("COUNT 1", f"BYTES {count}")
    lines = "".join(f"#define MODEL_{side}_{name}\n" for name in names)
    return lines + f"#define MODEL_{side}0_BYTES {count}\n"
