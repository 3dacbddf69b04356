"""Looking at a model without making anything: `check` (does it fit?) and `diff` (where do two runs part?)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.declaration import suggest
from edgekd.errors import ConfigError
from edgekd.pipeline.graph import kept, make
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import MODEL_FILES, mcu_options
from edgekd.target import Target

if TYPE_CHECKING:
    from edgekd.mcu.diff import Execution
    from edgekd.mcu.diff_sums import Array
    from edgekd.qgraph.ir import QGraph

EXECUTIONS = ("reference", "tflm", "litert", "ort", "host", "core")
DIFF_SAMPLES = 8


def int8_model(request: Request) -> tuple[bytes, str]:
    """(bytes, file name) of the request's int8 model: the user's own file, or the store's for a recipe.

    Raises ConfigError where it would first have to be made: looking never trains.
    """
    if request.model is not None:
        if request.model.form == "float":
            raise ConfigError(
                f"{request.model.path.name} is a float model; give its int8 form (.tflite or QDQ .onnx), "
                f"which `invoke quantize --model {request.model.path.name} --data FILE.npz` makes"
            )
        return request.model.path.read_bytes(), request.model.path.name
    recipe = request.need_recipe().name
    artifact = kept(request, "quantize")
    if artifact is None:
        raise ConfigError(
            f"recipe {recipe} has no int8 model in the store yet, and this task makes none; "
            f"run `invoke quantize --recipe {recipe}` first"
        )
    return (artifact.path / MODEL_FILES["qdq"]).read_bytes(), MODEL_FILES["qdq"]


def check_model(request: Request, targets: Sequence[Target]) -> dict[str, Any]:
    """The answer of edgekd.mcu.check for the request's model on its target, or on every one of kind mcu."""
    from edgekd.mcu.check import check_file

    chosen = [request.need_target("mcu")] if request.target else [t for t in targets if t.kind == "mcu"]
    return check_file(*int8_model(request), chosen, request.compiler, request.optimize)


def diff_model(request: Request, a: str, b: str) -> dict[str, Any]:
    """Run the request's model through executions `a` and `b`; the first layer where they part.

    Returns the comparison (edgekd.mcu.diff) with "model", "a" and "b". Raises ConfigError for an
    execution that does not exist.
    """
    from edgekd.mcu.codegen import CHANNEL_MULTIPLE
    from edgekd.mcu.diff import compare
    from edgekd.pipeline.samples import graph_inputs, probe_inputs, test_samples
    from edgekd.qgraph.edges import strip_float_edges
    from edgekd.qgraph.loader import load_graph
    from edgekd.qgraph.passes.constant_channels import remove_constant_channels

    for name in (a, b):
        if name not in EXECUTIONS:
            raise ConfigError(f"execution {name!r} does not exist{suggest(name, EXECUTIONS)}")
    data, file_name = int8_model(request)
    if "ort" in (a, b) and file_name.endswith(".tflite"):
        raise ConfigError(
            f"ort runs a QDQ .onnx by ONNX Runtime and {file_name} is a .tflite; give the .onnx that it was "
            "made from, or compare two of reference, tflm, litert, host and core"
        )
    graph = strip_float_edges(load_graph(data, file_name))
    if {"host", "core"} & {a, b}:  # as the generator sees it, so that all layers have the same channels
        graph = remove_constant_channels(graph, CHANNEL_MULTIPLE).graph
    if request.data:
        samples = test_samples(make(request, "userdata"), request.samples or DIFF_SAMPLES)
        inputs = graph_inputs(graph, samples, not file_name.endswith(".tflite"))
    else:
        inputs = probe_inputs(graph, request.samples or DIFF_SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        model = (data, file_name)
        one, other = (_execution(request, name, graph, model, Path(folder) / name) for name in (a, b))
        found = compare(graph, inputs, one, other)
    return {"model": file_name, "a": a, "b": b, **found.as_json()}


def _execution(request: Request, name: str, graph: QGraph, model: tuple[bytes, str], work: Path) -> Execution:
    from edgekd.mcu import diff

    if name == "reference":
        return diff.by_reference
    if name == "ort":
        from edgekd.export.onnx_layers import run_onnx_layers

        return diff.Execution(lambda graph, inputs: run_onnx_layers(*model, graph, inputs))
    if name in ("tflm", "litert"):
        return interpreted(name)
    work.mkdir(parents=True)
    return _generated(request, name, graph, work)


def interpreted(name: str) -> Execution:
    """A runtime that takes any graph, tflm or litert: its layers, and its sums by probing a layer alone."""
    from edgekd.mcu.diff import Execution
    from edgekd.mcu.diff_sums import probed_sum
    from edgekd.qgraph.litert import run_litert

    layers = _by_tflm if name == "tflm" else run_litert

    def run(graph: QGraph, inputs: list[Array]) -> Array:
        return layers(graph, inputs)[0]

    return Execution(layers, lambda *place: probed_sum(run, *place))


def _generated(request: Request, name: str, graph: QGraph, work: Path) -> Execution:
    from edgekd.mcu import diff_code
    from edgekd.mcu.codegen import generate
    from edgekd.mcu.dsp.family import family_of
    from edgekd.mcu.options import Options
    from edgekd.mcu.toolchain import find_compiler

    cache = request.store.work("compiler")
    if name == "host":
        core = request.target.core if request.target else None
        family = family_of(core.cpu) if core else "portable"
        options = mcu_options(request) if core else Options(optimize=request.optimize)
        return diff_code.by_host(generate(graph, family, options), find_compiler("clang", cache), work)
    target = request.need_target("mcu")
    assert target.core is not None
    model = generate(graph, family_of(target.core.cpu), mcu_options(request))
    return diff_code.by_core(model, find_compiler(request.compiler, cache), target, work)


def _by_tflm(graph: QGraph, inputs: list[Array]) -> dict[int, Array]:
    """TFLite Micro on the written file, with every op's output among the graph's."""
    from edgekd.export.tflm_run import run_tflm
    from edgekd.qgraph.tflite_writer import write_tflite

    every = tuple(op.outputs[0] for op in graph.ops)
    model = write_tflite(replace(graph, outputs=every))
    return dict(enumerate(run_tflm(model, inputs, len(every))))
