"""Two executions of one graph side by side: the first layer, channel and pixel where they part.

An execution is a function from inputs to the value of every layer. The integer reference gives all of
them by itself; generated C is instrumented: the same layer functions and kernels, with a model_invoke
that keeps each layer's bytes, which host and core then return as the model's output. Never in the fast
path: nothing here is used by a build or a bench.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.bench import pack
from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run_all
from edgekd.target import Target

Array = npt.NDArray[Any]
Layers = Mapping[int, Array]  # op index -> its output [N, ...] (or bytes in another layout), where known
Execution = Callable[[QGraph, list[Array]], Layers]
PLANE = 4  # channels of a plane, where a kernel family keeps tensors as [C / 4][H * W][4]
DEBUG_RAM_BYTES = 64 << 20  # the emulated core's, so that every layer's bytes can be kept

_LAYER = re.compile(
    r"^/\* .*? -> ([\dx]+), \d+ multiply-accumulates\. \*/\nvoid (model_layer_(\d+)_\w+)\(", re.MULTILINE
)
_OUTPUTS = re.compile(r"^#define MODEL_OUTPUT\w* .*\n", re.MULTILINE)


@dataclass(frozen=True)
class Difference:
    """Where two executions part first. position: NHWC without the batch; values: what each has there.

    differing: elements of that layer that differ, in all samples. accumulator: the exact sum of a linear
    layer there, from the inputs that both agree on (what generated C sums up cannot be read from outside).
    """

    op: int
    kind: str
    layer: str
    sample: int
    position: tuple[int, ...]
    a: int
    b: int
    differing: int
    elements: int
    accumulator: int | None


@dataclass(frozen=True)
class Comparison:
    """All layers that both executions know, and the first difference (None: there is none)."""

    samples: int
    compared: tuple[str, ...]
    first: Difference | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(graph: QGraph, inputs: list[Array], a: Execution, b: Execution) -> Comparison:
    """Run `inputs` ([N, ...] each) through both and find where they part, in the order of the ops.

    Raises ArtifactError where they have no layer in common.
    """
    one, other = a(graph, inputs), b(graph, inputs)
    both = [index for index in range(len(graph.ops)) if index in one and index in other]
    if not both:
        raise ArtifactError(f"{graph.name}: the two executions have no layer in common; compare two others")
    first = None
    for index in both:
        tensor = graph.tensors[graph.ops[index].outputs[0]]
        shape = (len(inputs[0]), *tensor.shape[1:])
        x, y = (_values(values[index], tensor.dtype, shape) for values in (one, other))
        y = _same_layout(x, y)
        if not np.array_equal(x, y):
            first = _describe(graph, inputs, index, x, y)
            break
    return Comparison(len(inputs[0]), tuple(graph.label(index) for index in both), first)


def by_reference(graph: QGraph, inputs: list[Array]) -> Layers:
    """The integer reference."""
    values = run_all(graph, inputs)
    return {index: values[op.outputs[0]] for index, op in enumerate(graph.ops)}


def by_host(model: GeneratedModel, compiler: Compiler, work: Path) -> Execution:
    """Generated C on this machine."""

    def run(graph: QGraph, inputs: list[Array]) -> Layers:
        kept = instrument(model, graph)
        host = HostModel(_write(kept.files, work / "c"), compiler, work / "host")
        return kept.split(host.run(pack(inputs)).view(np.uint8))

    return run


def by_core(model: GeneratedModel, compiler: Compiler, target: Target, work: Path) -> Execution:
    """Generated C on the target's emulated core, with as much RAM as keeping every layer takes."""
    if target.memory is None:
        raise ConfigError(f"target {target.name} has no core to emulate; take one of kind mcu")
    roomy = replace(target, memory=replace(target.memory, ram_bytes=DEBUG_RAM_BYTES))

    def run(graph: QGraph, inputs: list[Array]) -> Layers:
        kept = instrument(model, graph)
        generated = _write(kept.files, work / "c")
        build_image(generated, roomy, compiler, work / "image")
        elf, layers = work / "image" / "firmware.elf", generated / "layers.json"
        result = run_image(elf, layers, roomy, pack(inputs), engine="unicorn", counted=0, watched=0)
        return kept.split(result.outputs)

    return run


@dataclass(frozen=True)
class Instrumented:
    """`files`: the directory whose model gives every layer's bytes; `parts`: op index -> (offset, bytes)."""

    files: Mapping[str, str]
    parts: Mapping[int, tuple[int, int]]

    def split(self, rows: Array) -> Layers:
        """uint8 [N, all bytes] -> op index -> uint8 [N, bytes]."""
        return {index: rows[:, at : at + count] for index, (at, count) in self.parts.items()}


def instrument(model: GeneratedModel, graph: QGraph) -> Instrumented:
    """The generated files with a model_invoke that keeps a copy of each layer's output right after it.

    Layers and ops of `graph` are matched by the tensor that they write, whose index no pass changes. A
    layer that writes other than that tensor's bytes (dead channels left out) is not kept.
    """
    source, parts, end = model.files["model.c"], dict[int, tuple[int, int]](), 0
    written = {op.outputs[0]: index for index, op in enumerate(graph.ops)}
    for shape, symbol, number in _LAYER.findall(source):
        written_tensor = model.graph.ops[int(number)].outputs[0]
        index, offset = written.get(written_tensor), model.plan.offsets.get(written_tensor)
        if index is None or offset is None:
            continue
        tensor = graph.tensors[written_tensor]
        if int(np.prod([int(n) for n in shape.split("x")])) != tensor.elements:
            continue
        parts[index] = (end, tensor.nbytes)
        keep = f"    kept_copy({end}, model->bytes + {offset}, {tensor.nbytes});\n"
        source = source.replace(f"    {symbol}(model);\n", f"    {symbol}(model);\n{keep}")
        end += tensor.nbytes
    if not parts:
        raise ArtifactError(f"{graph.name}: its generated C has no layer to look at; generate it again")
    head = (
        f"static uint8_t kept[{end}];\n\nstatic void kept_copy(int at, const uint8_t *from, int count)\n{{\n"
        "    for (int i = 0; i < count; i++) {\n        kept[at + i] = from[i];\n    }\n}\n\n"
        "void model_invoke("
    )
    output = "{\n    (void)model;\n    (void)index;\n    return kept;\n}\n"
    source = source.replace("void model_invoke(", head, 1)
    begin = source.index("const void *model_output(")
    body, stop = source.index("\n{", begin) + 1, source.index("\n}\n", begin) + 3
    declared = head.split("static void")[0]
    source = source.replace(declared, "", 1)
    source = source[:begin] + declared + source[begin:body] + output + source[stop:]
    return Instrumented(dict(model.files) | {"model.c": source, "model.h": _header(model, end)}, parts)


def _header(model: GeneratedModel, kept_bytes: int) -> str:
    """model.h with one output: everything that was kept."""
    text = _OUTPUTS.sub("", model.files["model.h"])
    lines = {"_COUNT": "1", "_BYTES": str(kept_bytes), "0_BYTES": str(kept_bytes)}
    lines |= {"0_SCALE": "1", "0_ZERO_POINT": "0"}
    defined = "".join(f"#define MODEL_OUTPUT{name} {value}\n" for name, value in lines.items())
    return text.replace("#define MODEL_INPUT_COUNT", defined + "#define MODEL_INPUT_COUNT", 1)


def _write(files: Mapping[str, str], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def _values(found: Array, dtype: str, shape: Sequence[int]) -> Array:
    """Bytes or values as the tensor's integers; ArtifactError where their number is another."""
    values = np.ascontiguousarray(found)
    if values.dtype != dtype:
        values = values.view(dtype)
    if values.size != int(np.prod(shape)):
        raise ArtifactError(f"an execution gives {values.size} elements where the layer has {tuple(shape)}")
    return values.reshape(shape)


def _same_layout(x: Array, y: Array) -> Array:
    """`y` in the layout of `x`: as it is, or from planes of channels, whichever differs less."""
    if x.ndim != 4 or x.shape[3] % PLANE:
        return y
    samples, h, w, c = x.shape
    planes = y.reshape(samples, c // PLANE, h * w, PLANE).transpose(0, 2, 1, 3).reshape(x.shape)
    return planes if (planes != x).sum() < (y != x).sum() else y


def _describe(graph: QGraph, inputs: list[Array], index: int, x: Array, y: Array) -> Difference:
    op = graph.ops[index]
    apart = np.argwhere(x != y)
    where = tuple(int(n) for n in apart[0])
    return Difference(
        op=index,
        kind=op.kind,
        layer=graph.tensors[op.outputs[0]].name,
        sample=where[0],
        position=where[1:],
        a=int(x[where]),
        b=int(y[where]),
        differing=len(apart),
        elements=x.size,
        accumulator=accumulator(graph, inputs, index, where),
    )


def accumulator(graph: QGraph, inputs: list[Array], index: int, where: tuple[int, ...]) -> int | None:
    """The exact sum behind one output of a linear layer, bias included, as the integer reference has it.

    where: sample and position. None for other layers.
    """
    op = graph.ops[index]
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    values = run_all(graph, [x[where[0] : where[0] + 1] for x in inputs])
    source, weights = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    x = values[op.inputs[0]].astype(np.int64)[0] - source.zero_point
    w = np.asarray(weights.data, np.int64)
    channel = where[-1]
    total = 0
    if op.inputs[2:] not in ((), (-1,)):
        total = int(np.asarray(graph.tensors[op.inputs[2]].data, np.int64)[channel])
    if op.kind == "FULLY_CONNECTED":
        rows = x.reshape(-1, w.shape[1])
        row = int(np.ravel_multi_index(where[1:], graph.tensors[op.outputs[0]].shape[1:])) // w.shape[0]
        return total + int(rows[row] @ w[channel])
    return total + _window_sum(graph, index, x, w, where)


def _window_sum(graph: QGraph, index: int, x: Array, w: Array, where: tuple[int, ...]) -> int:
    from edgekd.qgraph.reference.values import before

    op, (_, oy, ox, channel) = graph.ops[index], where
    total, attrs = 0, {k: int(v) for k, v in op.attrs.items() if isinstance(v, int)}
    top = before(op, x.shape[0], w.shape[1], "h")
    left = before(op, x.shape[1], w.shape[2], "w")
    for ky in range(w.shape[1]):
        for kx in range(w.shape[2]):
            iy = oy * attrs["stride_h"] - top + ky * attrs["dilation_h"]
            ix = ox * attrs["stride_w"] - left + kx * attrs["dilation_w"]
            if not (0 <= iy < x.shape[0] and 0 <= ix < x.shape[1]):
                continue
            if op.kind == "CONV_2D":
                total += int(x[iy, ix] @ w[channel, ky, kx])
            else:
                total += int(x[iy, ix, channel // attrs["depth_multiplier"]] * w[0, ky, kx, channel])
    return total
