"""Measuring the current release: load time, latency, memory, accuracy, and the golden outputs."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time
from pathlib import Path
from typing import Any

from .files import read_table, verify_files
from .install import find_release
from .machine import machine, memory_bytes
from .measure import percentiles, time_runs
from .messages import AgentError, Ticker, emit


def import_runtime() -> tuple[Any, Any]:
    """numpy and onnxruntime; AgentError `runtime` with the line that installs them."""
    try:
        return importlib.import_module("numpy"), importlib.import_module("onnxruntime")
    except ImportError as error:
        reason, hint = str(error).strip().split("\n")[0], f"{sys.executable} -m pip install onnxruntime"
        raise AgentError("runtime", f"the runtime does not load ({reason}); install it: {hint}") from None


def predict(numpy: Any, session: Any, samples: Any, count: int) -> Any:
    """Outputs [count, ...] of the first samples, one at a time, as the latency was measured."""
    name, outputs, say = session.get_inputs()[0].name, [], Ticker("accuracy", count)
    for index in range(count):
        outputs.append(session.run(None, {name: numpy.ascontiguousarray(samples[index : index + 1])})[0])
        say(index + 1)
    return numpy.concatenate(outputs)


def compare_golden(numpy: Any, outputs: Any, golden: Any, rule: dict[str, Any]) -> dict[str, Any]:
    """Differences from the host's outputs in quantization steps, held to the bundle's tolerance."""
    flat, expected = outputs.reshape(len(golden), -1), golden.reshape(len(golden), -1)
    steps = numpy.abs(flat.astype("float64") - expected.astype("float64")) / rule["step"]
    finite = bool(numpy.isfinite(steps).all())
    worst = float(steps.max()) if finite else None
    within = worst is not None and worst <= rule["tolerance_steps"] + 1e-6
    agreement = float((flat.argmax(1) == expected.argmax(1)).mean())
    told = {"samples": len(golden), "step": rule["step"], "tolerance_steps": rule["tolerance_steps"]}
    return {**told, "max_difference_steps": worst, "within_tolerance": within, "agreement": agreement}


def score(numpy: Any, session: Any, directory: Path, bundle: Any, variant: str, limit: int) -> dict[str, Any]:
    """Golden check and accuracy on the bundle's samples (the first `limit`, 0: all)."""
    files, rule = bundle["samples"], bundle["variants"][variant]["golden"]
    samples = numpy.load(directory / files["x"], mmap_mode="r")
    golden = numpy.load(directory / rule["file"])
    count = max(len(golden), min(limit or len(samples), len(samples)))
    outputs = predict(numpy, session, samples, count)
    accuracy = None
    if files["y"]:
        truth = numpy.load(directory / files["y"])[:count]
        accuracy = float((outputs.reshape(count, -1).argmax(1) == truth).mean())
    golden_result = compare_golden(numpy, outputs[: len(golden)], golden, rule)
    return {"samples": count, "accuracy": accuracy, "golden": golden_result}


def bench(arguments: argparse.Namespace) -> None:
    """Verify the release, load the model, and measure it; emits one result."""
    directory, bundle, release = find_bundle(arguments)
    idle_bytes = memory_bytes("VmRSS")
    numpy, runtime = import_runtime()
    tools = {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": runtime.__version__,
    }
    emit("progress", label="load", done=0, total=1)
    model = directory / bundle["variants"][arguments.variant]["file"]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = arguments.threads, 1
    options.log_severity_level = 3
    start = time.perf_counter_ns()
    session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    load_us = (time.perf_counter_ns() - start) / 1000
    first = numpy.ascontiguousarray(numpy.load(directory / bundle["samples"]["x"], mmap_mode="r")[:1])
    feed = {session.get_inputs()[0].name: first}
    times = time_runs(
        lambda: session.run(None, feed), arguments.warmup, arguments.runs, arguments.max_seconds
    )
    peak_bytes = memory_bytes("VmHWM")  # before the samples are loaded
    rise_bytes = None if peak_bytes is None or idle_bytes is None else peak_bytes - idle_bytes
    sizes = {"peak_rss_bytes": peak_bytes, "rss_rise_bytes": rise_bytes, "model_bytes": model.stat().st_size}
    scores = score(numpy, session, directory, bundle, arguments.variant, arguments.samples)
    facts = {"release": release, "split": bundle["split"], "machine": machine(), "tools": tools}
    emit("result", **facts, **sizes, **scores, latency_us=percentiles(times), load_us=load_us)


def find_bundle(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any], str | None]:
    """The bundle asked for, its every byte verified: a directory's, or that of the current release."""
    release = None if arguments.bundle else find_release(Path(arguments.root))
    inside = Path(arguments.root, "releases", release, "bundle") if release else Path(arguments.bundle)
    bundle = read_table(inside / "bundle.json")
    verify_files(inside, bundle["files"])
    if arguments.variant not in bundle["variants"]:
        known = ", ".join(sorted(bundle["variants"]))
        raise AgentError("config", f"the bundle has no variant {arguments.variant!r}; it has {known}")
    return inside, bundle, release
