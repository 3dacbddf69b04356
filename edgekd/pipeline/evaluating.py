"""Evaluation of the models along a chain, and the gate behind each stage that makes one.

An evaluation is a stage of its own (evaluation.json, answers.npz), paired with the student's as it was
distilled. The gate is no stage: it reads the figures and lets the chain go on, or stops it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.errors import BudgetError
from edgekd.pipeline.request import Job, Request, versions
from edgekd.pipeline.shipping import MODEL_FILES, float_inputs, int8_stage, sample_inputs
from edgekd.store import Artifact

RECORD, ANSWERS = "evaluation.json", "answers.npz"


@dataclass(frozen=True)
class Judged:
    """The gate behind one stage: who evaluates its model, which input stays the last good one, what helps."""

    by: str
    keeps: str
    remedy: str


GATES = {
    "distill": Judged(
        "evaluate-student",
        "knowledge",
        "more distill.epochs, more knowledge.views, a larger student, or a lower gate.min_accuracy",
    ),
    "compress": Judged(
        "evaluate-compressed",
        "student",
        "more compress.energy, rank_share, keep, entries or epochs, fewer methods, or a higher "
        "gate.max_accuracy_drop",
    ),
    "quantize": Judged(
        "evaluate-int8",
        "model",
        'more data.calibration_samples, quantize.ranges = "percentile", quantize.method = "qat", or a higher '
        "gate.max_accuracy_drop",
    ),
}


def judge_of(request: Request, stage_name: str) -> Judged | None:
    """The gate behind a stage of a recipe's chain; a user's own model has none."""
    return GATES.get(stage_name) if request.recipe and not request.model else None


def verdict_of(request: Request, evaluation: Artifact) -> Any:
    """The gate's Verdict on an evaluation."""
    from edgekd.evaluate.gate import Budget, judge

    gate = request.need_recipe().gate
    return judge(evaluation.metrics, Budget(gate.max_accuracy_drop, gate.min_accuracy))


def gate_of(request: Request, evaluation: Artifact) -> dict[str, str] | None:
    """The verdict as JSON has it; None where the model is the user's own."""
    if not request.recipe or request.model:
        return None
    verdict = verdict_of(request, evaluation)
    return {"outcome": verdict.outcome, "reason": verdict.reason}


def check(request: Request, stage_name: str, made: Artifact, evaluation: Artifact) -> None:
    """Raise BudgetError where the gate says no: what fell, by how much, what is still good, what to try."""
    from edgekd.evaluate.gate import FAILED, UNDECIDED

    judged, verdict = GATES[stage_name], verdict_of(request, evaluation)
    stops = (FAILED, UNDECIDED) if request.need_recipe().gate.undecided == "fail" else (FAILED,)
    if verdict.outcome not in stops:
        return
    good = made.manifest["inputs"].get(judged.keeps)
    kept = f"{good['stage']} {good['key']} stays the last good artifact" if good else "nothing was replaced"
    if verdict.outcome == FAILED:
        said, more = "failed the gate", ""
    else:
        said, more = "is undecided at the gate, where this recipe stops", "a larger split, "
    raise BudgetError(f"{stage_name} {made.key} {said}: {verdict.reason}; {kept}; try {more}{judged.remedy}")


def chain(request: Request) -> tuple[str, ...]:
    """The evaluations of a request's chain, in order."""
    if request.recipe and not request.model:
        return tuple(judged.by for judged in GATES.values())
    return ("evaluate-float", "evaluate-int8") if float_inputs(request) else ("evaluate-int8",)


def student_inputs(stage_name: str, paired: bool) -> Any:
    """The inputs of the evaluation of a student; `paired`: with the one that was distilled."""
    inputs = {"model": stage_name, "samples": "dataset"}
    return lambda request: inputs | ({"reference": "evaluate-student"} if paired else {})


def float_model_inputs(request: Request) -> dict[str, str]:
    return {"model": float_inputs(request)["float"]} | _samples(request)


def int8_inputs(request: Request) -> dict[str, str]:
    """The int8 model, its samples, and the evaluation that it is compared with, where there is one."""
    inputs = {"model": int8_stage(request)} | _samples(request)
    if request.recipe and not request.model:
        return inputs | {"reference": "evaluate-student"}
    return inputs | ({"reference": "evaluate-float"} if float_inputs(request) else {})


def params(request: Request) -> dict[str, Any]:
    """The split and the metric: the recipe's; all of a user's data by accuracy."""
    gate = request.recipe.gate if request.recipe else None
    return {"metric": gate.metric, "split": gate.split} if gate else {"metric": "accuracy", "split": "test"}


def student_params(request: Request) -> dict[str, Any]:
    return params(request) | {"threads": request.need_recipe().threads}


def int8_tools(request: Request) -> dict[str, str]:
    return versions("numpy")


def float_tools(request: Request) -> dict[str, str]:
    return versions("numpy", "onnxruntime")


def run_student(job: Job) -> dict[str, Any]:
    """A student in torch, as it was trained or compressed."""
    from edgekd.learn.student import load_student
    from edgekd.learn.torch_tools import deterministic, predict

    samples = _split(job)
    student = load_student(job.path("model"))
    with deterministic(job.request.need_recipe().threads):
        return _write(job, samples, samples.floats(), predict(student.net, samples.floats()))


def run_float(job: Job) -> dict[str, Any]:
    """A float ONNX model, by ONNX Runtime on this machine."""
    from edgekd.export.onnx_session import run_onnx

    samples = _split(job)
    model = (job.path("model") / MODEL_FILES["float"]).read_bytes()
    return _write(job, samples, samples.floats(), run_onnx(model, samples.floats()))


def run_int8(job: Job) -> dict[str, Any]:
    """The int8 graph, by the integer reference: the definition of what the device answers."""
    import numpy as np

    from edgekd.pipeline.samples import graph_inputs
    from edgekd.pipeline.shipping import graph_of
    from edgekd.qgraph.edges import dequantize_output, strip_float_edges
    from edgekd.qgraph.reference import run

    samples = _split(job)
    graph = strip_float_edges(graph_of(job.inputs["model"]))
    channels_first = not (job.request.model and job.request.model.form == "tflite")
    inputs, chunk = graph_inputs(graph, samples, channels_first), 256
    parts = []
    for start in range(0, len(samples.y), chunk):
        parts.append(run(graph, [each[start : start + chunk] for each in inputs])[0])
        job.request.progress("evaluate int8", min(start + chunk, len(samples.y)), len(samples.y))
    output = graph.tensors[graph.outputs[0]]
    probabilities = graph.ops[-1].kind == "SOFTMAX"
    outputs = dequantize_output(np.concatenate(parts), output)
    if channels_first and outputs.ndim == 4:
        outputs = np.moveaxis(outputs, -1, 1)
    x = (
        dequantize_output(inputs[0], graph.tensors[graph.inputs[0]])
        if samples.x.dtype.kind != "f"
        else samples.x
    )
    return _write(job, samples, x, outputs, probabilities)


def evaluation_of(artifact: Artifact) -> dict[str, Any]:
    """The whole record of an evaluation."""
    record: dict[str, Any] = json.loads((artifact.path / RECORD).read_text("utf-8"))
    return record


def _samples(request: Request) -> dict[str, str]:
    """A recipe is judged on its own data, whatever samples a device is to be checked with."""
    return {"samples": "dataset"} if request.recipe and not request.model else sample_inputs(request)


def _split(job: Job) -> Any:
    from edgekd.errors import ConfigError
    from edgekd.pipeline.samples import test_samples

    if "samples" not in job.inputs:
        raise ConfigError("an evaluation needs samples with labels; add --data FILE.npz with x and y")
    return test_samples(job.inputs["samples"], None, params(job.request)["split"])


def _write(job: Job, samples: Any, x: Any, outputs: Any, probabilities: bool = False) -> dict[str, Any]:
    """Fill `job.out` with the record and the answers behind it; returns the headline."""
    from edgekd.data.npz import write_npz
    from edgekd.evaluate import evaluation
    from edgekd.evaluate.metrics import top1
    from edgekd.evaluate.roc import anomaly_scores

    if params(job.request)["metric"] == "auc":
        score = anomaly_scores(x, outputs)
        answers = evaluation.Answers(samples.y, score=score)
        figures = evaluation.of_scores(samples.y, score)
    else:
        flat = outputs.reshape(len(outputs), -1)
        answers = evaluation.Answers(samples.y, top1=top1(flat))
        figures = evaluation.of_classes(samples.y, flat, samples.classes, probabilities=probabilities)
    figures["drop"] = _drop(job, answers)
    record = evaluation.new_evaluation(
        model=job.inputs["model"].stage, split=samples.split, samples=len(samples.y), **figures
    )
    (job.out / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    write_npz(job.out / ANSWERS, answers.arrays())
    return evaluation.headline(record)


def _drop(job: Job, answers: Any) -> Mapping[str, Any] | None:
    from edgekd.data.npz import read_npz
    from edgekd.evaluate.evaluation import Answers, drop_between

    if "reference" not in job.inputs:
        return None
    found = read_npz(job.path("reference") / ANSWERS)
    before = Answers(found["y"], found.get("top1"), found.get("score"))
    return drop_between(before, answers, evaluation_of(job.inputs["reference"])["model"])
