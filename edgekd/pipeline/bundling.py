"""The export stage for a Linux device: a bundle with every variant that applies, and what it is held to."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ConfigError, MissingDependencyError, UnsupportedOpError
from edgekd.pipeline.request import Job, Request
from edgekd.pipeline.samples import Samples, finds_anomalies, test_samples
from edgekd.store import Artifact
from edgekd.target import VARIANTS, Target

BUNDLE = "bundle"  # the directory of a Linux bundle in its artifact
GOLDEN_SAMPLES = 32
MAX_ACCURACY_DROP = 0.02  # where neither the target nor the recipe says: the recipes' own default
OWN_NAMES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7"}  # others are called as they are
# What makes or checks a variant on this machine.
MAKERS = {"litert": "ai_edge_litert", "native": "ziglang"}
PREPROCESSING = {"layout": "NCHW", "dtype": "float32", "scaling": "as the samples are: none on the device"}


def linux_params(request: Request) -> dict[str, Any]:
    """What the bundle depends on beside its inputs."""
    target = request.need_target("linux")
    if target.runtime is None:
        raise ConfigError(f"target {target.name} has no table [runtime]; add it")
    if request.is_updatable or request.prefix != "model":
        raise ConfigError(
            f"target {target.name} takes a bundle, not C; leave --updatable and --prefix out, "
            "or take a target of kind mcu (`invoke targets` lists them)"
        )
    drop = target.limits.max_accuracy_drop
    if drop is None:
        drop = request.recipe.gate.max_accuracy_drop if request.recipe else MAX_ACCURACY_DROP
    return {
        "kind": "linux",
        "name": request.recipe.name if request.recipe else request.need_model().path.stem,
        "samples": request.samples,
        "activation": target.runtime.activation,
        "variants": list(wanted_variants(request)),
        "are_required": bool(target.runtime.variants),
        "architectures": architectures_of(target),
        "max_accuracy_drop": drop,
    }


def architectures_of(target: Target) -> list[str]:
    """What the C is compiled for: the profile's list, and for this machine as the device its own alone."""
    assert target.runtime is not None
    named = list(target.runtime.architectures)
    if target.connection is None or target.connection.transport != "local":
        return named
    own = platform.machine().lower()
    own = OWN_NAMES.get(own, own)
    return [own] if own in named else named


def wanted_variants(request: Request) -> tuple[str, ...]:
    """The profile's variants, or all that this machine can make of the model.

    Raises MissingDependencyError where the profile names one whose maker is not installed, ConfigError for
    one that the model does not have.
    """
    runtime = request.need_target("linux").runtime
    named = runtime.variants if runtime else ()
    of_model = ("int8", "litert", "native") if _form(request) == "qdq" else VARIANTS
    for variant in named:
        if variant not in of_model:
            raise ConfigError(
                f"runtime.variants names {variant!r}, which this model has not ({', '.join(of_model)}); "
                "take it out of the target"
            )
        if not _can_make(variant):
            raise MissingDependencyError(
                f"the variant {variant} needs the package {MAKERS[variant]}; install it: "
                f"pip install 'edgekd[mcu]', or take it out of runtime.variants"
            )
    return named or tuple(variant for variant in of_model if _can_make(variant))


def _form(request: Request) -> str:
    return request.model.form if request.model else ""


def _can_make(variant: str) -> bool:
    return variant not in MAKERS or importlib.util.find_spec(MAKERS[variant]) is not None


def export_linux(
    job: Job, params: Mapping[str, Any], graph: Any, models: Mapping[str, bytes]
) -> dict[str, Any]:
    """Fill `bundle/`. graph: the int8 QGraph; models: by "float" and "qdq" the ONNX files that there are.

    Returns the stage's metrics; `left_out` says why a variant that was not asked for by name is not there.
    """
    from edgekd.export.linux import bundle_name, write_bundle
    from edgekd.export.variants import IntegerModel
    from edgekd.quantize.activation import uint8_variant

    if "samples" not in job.inputs:
        raise ConfigError(
            "a bundle holds samples to be checked with on the device; add --data FILE.npz with x and y"
        )
    variants = set(params["variants"])
    samples = test_samples(job.inputs["samples"], job.request.samples)
    anomalies = finds_anomalies(graph, samples.y)
    x = channels_first(job, samples, graph)
    native, left_out = _native(job, params, graph)
    models = {**models, **_written(job, params, graph, left_out)}
    int8, floating = models.get("qdq"), models.get("float")
    if int8 is not None and params["activation"] == "uint8":
        int8 = uint8_variant(int8)
    trained = None if _form(job.request) == "tflite" else floating  # else the int8 graph is the truth
    reference, judged = reference_answers(trained, graph, x, anomalies=anomalies)
    write_bundle(
        job.out / BUNDLE,
        name=bundle_name(params["name"]),
        float_onnx=floating if "float" in variants else None,
        int8_onnx=int8 if "int8" in variants else None,
        activation=params["activation"],
        labels=None if anomalies else (samples.classes or None),
        samples_x=x,
        samples_y=samples.y,
        split=samples.split,
        golden_count=min(GOLDEN_SAMPLES, len(x)),
        preprocessing=PREPROCESSING,
        integer=IntegerModel(graph, "litert" in variants, native),
        reference=reference,
        max_accuracy_drop=params["max_accuracy_drop"],
        progress=job.request.progress,
    )
    metrics: dict[str, Any] = {
        "samples": len(x),
        "accuracy_float": None,
        "bundle_bytes": sum(p.stat().st_size for p in (job.out / BUNDLE).iterdir()),
        "left_out": left_out,
    }
    return metrics | (judged(samples.y) if trained else {})


def _written(job: Job, params: Mapping[str, Any], graph: Any, left_out: dict[str, str]) -> dict[str, bytes]:
    """The ONNX files of a .tflite, by "qdq" and "float"; `left_out` is told why there are none."""
    wanted = {"float", "int8"} & set(params["variants"])
    if _form(job.request) != "tflite" or not wanted:
        return {}
    from edgekd.qgraph.onnx_writer import write_onnx

    try:
        return {"qdq": write_onnx(graph, quantized=True), "float": write_onnx(graph, quantized=False)}
    except UnsupportedOpError as error:
        if params["are_required"]:
            raise
        left_out.update(dict.fromkeys(sorted(wanted), str(error)))
        return {}


def channels_first(job: Job, samples: Samples, graph: Any) -> npt.NDArray[np.float32]:
    """The samples as a bundle holds them: float32, NCHW. Integers of a .tflite's own become real numbers."""
    from edgekd.qgraph.edges import dequantize_output, strip_float_edges

    if samples.x.dtype.kind == "f":
        x = samples.floats()
    else:
        stripped = strip_float_edges(graph)
        x = dequantize_output(samples.x, stripped.tensors[stripped.inputs[0]])
    is_last = _form(job.request) == "tflite" and x.ndim == 4
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if is_last else x


def reference_answers(floating: bytes | None, graph: Any, x: Any, *, anomalies: bool) -> tuple[Any, Any]:
    """What a device's answers are held to, ("float" or "int8", classes or anomaly scores), and the function
    that makes metrics of labels. x: float32 [N, ...] in NCHW."""
    from edgekd.evaluate.roc import anomaly_scores, auc

    outputs = _float_outputs(floating, x) if floating else _integer_outputs(graph, x)
    if anomalies:
        scores = anomaly_scores(x, outputs)
        return (_kind(floating), scores), lambda y: {"auc_float": auc(y, scores).value}
    classes = outputs.reshape(len(outputs), -1).argmax(axis=1).astype(np.int64)
    return (_kind(floating), classes), lambda y: {"accuracy_float": float((classes == y).mean())}


def _kind(floating: bytes | None) -> str:
    return "float" if floating else "int8"


def _float_outputs(floating: bytes, x: Any) -> Any:
    from edgekd.export.onnx_session import run_onnx

    return run_onnx(floating, x)


def _integer_outputs(graph: Any, x: Any) -> Any:
    """Of the integer reference, as real numbers."""
    from edgekd.export.native import exact_answers
    from edgekd.export.variants import to_channels_last
    from edgekd.qgraph.edges import dequantize_output, strip_float_edges

    stripped = strip_float_edges(graph)
    integers = exact_answers(stripped, to_channels_last(x))[1]
    return dequantize_output(integers, stripped.tensors[stripped.outputs[0]])


def _native(job: Job, params: Mapping[str, Any], graph: Any) -> tuple[dict[str, bytes], dict[str, str]]:
    """The shared objects by architecture, and why there are none where nobody asked for them by name."""
    if "native" not in params["variants"]:
        return {}, {}
    from edgekd.export.native import build_native, native_graph
    from edgekd.mcu.toolchain import find_compiler

    compiler = find_compiler("clang", job.request.store.work("compiler"))
    job.request.progress("compile for Linux", 0, 1)
    try:
        return build_native(native_graph(graph), params["architectures"], compiler), {}
    except UnsupportedOpError as error:
        if params["are_required"]:
            raise
        return {}, {"native": str(error)}


def accuracy_metrics(artifact: Artifact) -> dict[str, float | None]:
    """What a bench record says of the float model: accuracy, or the area under the ROC curve."""
    found: dict[str, float | None] = {"accuracy_float": artifact.metrics.get("accuracy_float")}
    if "auc_float" in artifact.metrics:
        found["auc_float"] = artifact.metrics["auc_float"]
    return found
