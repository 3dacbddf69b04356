"""The bench stage: samples through every execution of the graph, written as a bench record."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.evaluate.record import OF_AUTOENCODERS, new_record
from edgekd.mcu.bench import bench_image
from edgekd.mcu.toolchain import find_compiler
from edgekd.pipeline.request import Job
from edgekd.pipeline.samples import (
    Samples,
    finds_anomalies,
    float_accuracy,
    float_auc,
    graph_inputs,
    int8_auc,
    probe_inputs,
    test_samples,
    top1,
)
from edgekd.pipeline.shipping import MODEL_FILES, graph_of
from edgekd.qgraph.edges import strip_float_edges
from edgekd.store import write_atomically

_SOURCE = "every output of the core and the host build of the same C"


def bench_emulated(job: Job, engine: str, identity: dict[str, Any]) -> dict[str, Any]:
    """Fill `job.out` with record.json and outputs.bin (each output of all samples).

    Returns the record's headline figures.
    """
    request = job.request
    graph = strip_float_edges(graph_of(job.inputs["int8"]))
    samples = test_samples(job.inputs["samples"], request.samples) if "samples" in job.inputs else None
    channels_first = not (request.model and request.model.form == "tflite")
    inputs = graph_inputs(graph, samples, channels_first) if samples else probe_inputs(graph, request.samples)
    with tempfile.TemporaryDirectory() as scratch:
        pieces, outputs = bench_image(
            job.path("image"),
            job.path("export") / "c",
            graph,
            inputs,
            request.need_target("mcu"),
            find_compiler("clang", request.store.work("compiler")),
            Path(scratch),
            engine=engine,
            progress=request.progress,
        )
    record = new_record(
        **pieces,
        **identity,
        **_accuracy(job, samples, outputs, graph),
        samples=len(inputs[0]),
        memory_plan=_memory_plan(job),
    )
    write_atomically(job.out / "record.json", (json.dumps(record, indent=1) + "\n").encode())
    with (job.out / "outputs.bin").open("wb") as file:
        for output in outputs:
            file.write(np.ascontiguousarray(output).tobytes())
    shown = ("accuracy", *OF_AUTOENCODERS, "samples", "bit_exact", "estimated_latency_us")
    return {key: record[key] for key in shown if key in record}


def _memory_plan(job: Job) -> dict[str, Any]:
    """The plan of the export without its steps and blocks: the artifact of `export` has those."""
    plan: dict[str, Any] = json.loads((job.path("export") / "plan.json").read_text("utf-8"))
    return {key: value for key, value in plan.items() if key not in ("model", "steps", "blocks")}


def _accuracy(job: Job, samples: Samples | None, outputs: list[Any], graph: Any) -> dict[str, Any]:
    if samples is None:
        return {}
    found: dict[str, Any] = {"split": samples.split, "accuracy_source": _SOURCE, "agreement": 1.0}
    floating = (job.path("float") / MODEL_FILES["float"]).read_bytes() if "float" in job.inputs else None
    if finds_anomalies(graph, samples.y):
        found["auc"] = int8_auc(graph, samples.x, outputs[0], samples.y)
        if floating:
            found["auc_float"] = float_auc(floating, samples)
        return found
    found["accuracy"] = float((top1(graph, outputs) == samples.y).mean())
    if floating:
        found["accuracy_float"] = float_accuracy(floating, samples)
    return found
