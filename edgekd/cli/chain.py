"""The tasks that make and judge models: the chain from teacher to bench, checks, reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekd.cli.command import COMMON, FIT, LIBRARY, SSH, advise, amount, command, make_request, print_json
from edgekd.errors import BudgetError, ConfigError


def _stage_task(stage: str, advice: str, given: dict[str, Any]) -> None:
    """Make one stage's artifact and show where it lies and what was measured on it."""
    from edgekd import api
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        request = make_request(view, given)
        artifact = api.make(request, stage)
        gate = api.gate(request, stage)
    if given["json"]:
        print_json(_stage_json(artifact) | {"gate": gate})
        return
    _show_stage(artifact)
    if gate:
        print(f"gate: {gate['outcome']}: {gate['reason']}")
    advise(advice)


def _stage_json(artifact: Any) -> dict[str, Any]:
    return {name: getattr(artifact, name) for name in ("stage", "key")} | {
        "path": str(artifact.path),
        "metrics": artifact.metrics,
    }


def _show_stage(artifact: Any) -> None:
    from edgekd.report.tables import show_layers, show_table

    rows = [
        (name, json.dumps(value) if isinstance(value, dict | list) else value)
        for name, value in artifact.metrics.items()
        if name != "layers"
    ]
    show_table(f"{artifact.stage} {artifact.key}", ("figure", "value"), rows, right=(1,))
    show_layers(artifact.metrics.get("layers", ()))
    print(f"files: {os.path.relpath(artifact.path)}")


@command(*COMMON)
def teacher(**given: Any) -> None:
    """Train the recipe's teacher, or each of its teachers."""
    from edgekd import api
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        found = api.teachers(make_request(view, given))
    if given["json"]:
        rows = [_stage_json(artifact) | {"gate": None} for artifact in found]
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    for artifact in found:
        _show_stage(artifact)
    advise("invoke knowledge")


@command(*COMMON)
def knowledge(**given: Any) -> None:
    """Store the teacher's predictions in a file."""
    _stage_task("knowledge", "invoke distill", given)


@command(*COMMON)
def distill(**given: Any) -> None:
    """Train the student from the stored predictions alone."""
    _stage_task("distill", "invoke compress", given)


@command(*COMMON, *FIT)
def compress(**given: Any) -> None:
    """Make the student smaller, as the recipe says; --to-fit finds out how."""
    if given["to_fit"]:
        _compress_to_fit(given)
        return
    for name in FIT[1:]:
        if given[name]:
            raise ConfigError(f"--{name.replace('_', '-')} limits what --to-fit tries; add --to-fit")
    _stage_task("compress", "invoke quantize", given)


def _compress_to_fit(given: dict[str, Any]) -> None:
    from edgekd import api
    from edgekd.report.fitting import show_fit
    from edgekd.report.screen import ProgressView

    limits = {name: amount(given[name], name) for name in FIT[1:]}
    with ProgressView() as view:
        answer = api.compress_to_fit(make_request(view, given), **limits)
    if given["json"]:
        print_json(answer)
    else:
        show_fit(answer)
    if answer["reason"]:
        raise BudgetError(answer["reason"])
    advise("write the table into the recipe, then: invoke bench --target " + given["target"])


@command(*COMMON)
def quantize(**given: Any) -> None:
    """Export to ONNX, simplify, and quantize to int8."""
    _stage_task("quantize", "invoke export --target mcu-sim", given)


@command(*COMMON, *LIBRARY)
def export(**given: Any) -> None:
    """Write what the target runs: generated C and a TFLite Micro array, or a Linux bundle."""
    _stage_task("export", f"invoke bench --target {given['target'] or 'mcu-sim'}", given)


@command(*COMMON, *LIBRARY)
def build(**given: Any) -> None:
    """Compile and link the firmware image for a microcontroller target."""
    _stage_task("build", f"invoke bench --target {given['target'] or 'mcu-sim'}", given)


@command(*COMMON, *SSH, *LIBRARY, "variant")
def bench(**given: Any) -> None:
    """Measure on the target: accuracy, instructions or latency, memory."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_record

    with ProgressView() as view:
        record = api.bench(make_request(view, given), given["to"])
    if given["json"]:
        print_json(record)
        return
    show_record(record)
    origin = (
        f"--model {given['model']}"
        if given["model"]
        else "--recipe " + (given["recipe"] or api.DEFAULT_RECIPE)
    )
    advise(
        f"invoke graph {origin} --target {given['target']}",
        "invoke report" if not given["model"] else "invoke targets",
    )


@command("model", "recipe", "target", "compiler", "optimize", "store", "json")
def check(**given: Any) -> None:
    """Does a model fit? Ops, flash and RAM on every microcontroller, without training or compiling."""
    from edgekd import api
    from edgekd.report.check import show_check

    answer = api.check(make_request(lambda *a: None, given))
    if given["json"]:
        print_json(answer)
        return
    show_check(answer)
    fitting = [row["target"] for row in answer["targets"] if row["fits"]]
    origin = f"--model {given['model']}" if given["model"] else "--recipe " + (given["recipe"] or "digits")
    if fitting:
        advise(f"invoke bench {origin} --target {fitting[0]}")


@command("model", "recipe", "data", "out", "store", "json", positional=("export",))
def weights(export: str, **given: Any) -> None:
    """Write a fine-tuned model's weights for firmware that was exported with --updatable."""
    from edgekd import api
    from edgekd.report.tables import show_table

    if not given["out"]:
        raise ConfigError("no file to write is named; add --out FILE.bin")
    found = api.weights(make_request(lambda *a: None, given), export, Path(given["out"]))
    if given["json"]:
        print_json(found)
    else:
        show_table("Weights", ("what", "value"), list(found.items()))


@command(
    *("model", "recipe", "target", "data", "samples", "compiler", "optimize", "store", "json"),
    positional=("a", "b"),
)
def diff(a: str, b: str, **given: Any) -> None:
    """Where do two executions of a model part? Each is reference, tflm, litert, ort, host or core."""
    from edgekd import api
    from edgekd.report.check import show_diff

    with_core = "core" in (a, b) and not given["target"]
    request = make_request(lambda *x: None, given | ({"target": "mcu-sim"} if with_core else {}))
    found = api.diff(request, a, b)
    if given["json"]:
        print_json(found)
    else:
        show_diff(found)


@command(*COMMON)
def evaluate(**given: Any) -> None:
    """How good each model of the chain is, what it lost on the way, and what the gate says."""
    from edgekd import api
    from edgekd.report.evaluation import show_evaluations
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        found = api.evaluations(make_request(view, given))
    if given["json"]:
        print_json(found)
        return
    show_evaluations(found)
    advise("invoke bench --target mcu-sim" if not given["model"] else "invoke targets")


@command(*COMMON)
def report(**given: Any) -> None:
    """What distillation brought: the student with each loss and without a teacher, over several seeds."""
    from edgekd import api
    from edgekd.report.learning import show_ablation
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        artifact = api.make(make_request(view, given), "ablation")
    if given["json"]:
        print_json(artifact.metrics)
        return
    show_ablation(artifact.metrics)
    advise("invoke bench --target mcu-sim")


@command(*COMMON, *LIBRARY)
def graph(**given: Any) -> None:
    """Show the stages: what is cached, what is to do, where the time went."""
    from edgekd import api
    from edgekd.report.tables import show_table

    states = api.states(make_request(lambda *a: None, given))
    rows = [
        (
            s.stage,
            ", ".join(s.inputs),
            "cached" if s.artifact else "to do",
            s.seconds,
            s.artifact.key if s.artifact else None,
        )
        for s in states
    ]
    if given["json"]:
        keys = ("stage", "inputs", "state", "seconds", "key")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    show_table("Stages", ("stage", "made from", "state", "seconds", "key"), rows, right=(3,))


@command("store", "json", positional=("artifact",))
def show(artifact: str, **given: Any) -> None:
    """Walk from an artifact (a key, or a file in the store) back to the data set's checksum."""
    from edgekd import api
    from edgekd.report.provenance import provenance_rows, show_provenance

    rows = provenance_rows(api.show(make_request(lambda *a: None, given), artifact))
    if given["json"]:
        print_json(rows)
    else:
        show_provenance(rows)
