"""The stage that makes integers of a float model: measured on calibration samples, or trained."""

from __future__ import annotations

from typing import Any

from edgekd.declaration import told
from edgekd.errors import ConfigError
from edgekd.pipeline import learning
from edgekd.pipeline.request import Job, Request, versions
from edgekd.pipeline.shipping import MODEL_FILES, float_inputs, sample_inputs
from edgekd.recipe import QuantizeParams


def quantize_params(request: Request) -> QuantizeParams:
    return request.recipe.quantize if request.recipe else QuantizeParams()


def trains(request: Request) -> bool:
    """Whether the integers are trained: a recipe's, for a user's own model has none."""
    return quantize_params(request).method == "qat"


def shares(request: Request) -> bool:
    """Whether the student brings tables of its weights along."""
    return request.recipe is not None and not request.model and "share" in request.recipe.compress.methods


def quantize_inputs(request: Request) -> dict[str, str]:
    """The float model and samples; the student and what it learns from, too, where it is trained."""
    if request.model and not request.data:
        raise ConfigError(
            f"{request.model.path.name}: a float model needs samples to calibrate its int8 ranges; "
            "add --data FILE.npz with an array x_calibration"
        )
    inputs = {"model": float_inputs(request)["float"]} | sample_inputs(request)
    taught = {"student": "compress", "data": "dataset", "knowledge": "knowledge"}
    inputs |= taught if trains(request) else {}
    return inputs | ({"student": "compress"} if shares(request) else {})


def stage_params(request: Request) -> dict[str, Any]:
    """[quantize]; with training what it is trained by."""
    table = told(quantize_params(request))
    return table | (learning.seeded(request, "distill") if trains(request) else {})


def stage_tools(request: Request) -> dict[str, str]:
    tools = versions("onnx", "onnxruntime", "numpy")
    more = learning.training_tools(request) | versions("onnxscript", "onnxsim") if trains(request) else {}
    return tools | more


def run_quantize(job: Job) -> dict[str, Any]:
    from edgekd.pipeline.samples import calibration_samples
    from edgekd.quantize.ptq import quantize_onnx

    model = (job.path("model") / MODEL_FILES["float"]).read_bytes()
    if trains(job.request):
        return _run_trained(job, model)
    calibration = calibration_samples(job.inputs["samples"])
    params, progress = quantize_params(job.request), job.request.progress
    return quantize_onnx(model, calibration, params, job.out, progress=progress, shared=_tables(job))


def _tables(job: Job) -> Any:
    """The grids of shared weights, by their name."""
    if not shares(job.request):
        return {}
    from edgekd.compress.share import load_tables

    return load_tables(job.path("student"))


def _run_trained(job: Job, model: bytes) -> dict[str, Any]:
    """Bits from the float model as it is, then training, then the integers of what was trained."""
    from edgekd.export.torch_to_onnx import export_net
    from edgekd.learn.qat import tune_quantized
    from edgekd.pipeline.samples import calibration_samples
    from edgekd.quantize.ptq import checked, find_bits, quantize_onnx
    from edgekd.quantize.trained import Trained

    recipe, params = job.request.need_recipe(), quantize_params(job.request)
    calibration = calibration_samples(job.inputs["data"])
    bits = find_bits(checked(model, calibration), calibration, params, job.out)
    paths = job.path("student"), job.path("data"), job.path("knowledge")
    tuned = tune_quantized(*paths, recipe, bits, watch=learning.watch(job))
    trained = Trained(tuned.grids, tuned.activations)
    exported = export_net(tuned.net, tuned.net.structure.input_shape)
    progress = job.request.progress
    made = quantize_onnx(
        exported, calibration, params, job.out, progress=progress, trained=trained, bits=bits
    )
    return made | {"loss": tuned.loss}
