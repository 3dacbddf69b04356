"""The command line: an Invoke collection (`ns`) and the console script's Program.

Tasks parse, call `edgekd.api` and print. Results go to stdout, progress and advice to stderr.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from invoke import Collection, Program, Task
from invoke.exceptions import Exit, ParseError

from edgekd import __version__
from edgekd.errors import ConfigError, EdgekdError

# Every option, once: its default (a bool is a flag) and what it means.
OPTIONS: dict[str, tuple[str | bool, str]] = {
    "recipe": ("", "what to learn: a file of recipes/ (default: digits)"),
    "target": ("", "the device: a file of targets/ (`invoke targets` lists them)"),
    "model": ("", "your own .tflite or .onnx file, in place of a recipe"),
    "data": ("", "your own .npz with x and y (and x_calibration for a float model)"),
    "source": ("", "where the recipe's samples lie: a folder or .zip of images"),
    "log": ("", "a .csv that trainings append a line an epoch to, or a folder for TensorBoard"),
    "samples": ("", "use only the first N samples"),
    "compiler": ("", "clang (default, from PyPI) or gcc"),
    "optimize": ("", "speed (default) or flash: what the generated C is to spare"),
    "winograd": (False, "3 x 3 convolutions may take 3.6 times their weights' flash for speed"),
    "engine": ("", "unicorn or qemu (default: the target's)"),
    "to": ("", "user@host:port of a Linux device, where the target's own is not meant"),
    "key": ("", "SSH key file (default: the agent's and ~/.ssh/config's)"),
    "ssh_config": ("", "SSH config file (default: ~/.ssh/config)"),
    "store": ("", "where artifacts are kept (default: .edgekd/ of the project)"),
    "shared": ("", "a team's cache of artifacts: a folder or any fsspec URL"),
    "json": (False, "print the result as JSON"),
    "again": (False, "make the result anew although it is there"),
    "prefix": ("", "what the C's files and names begin with (default: model)"),
    "updatable": (False, "C whose weights can be replaced apart from its code, at a cost"),
    "out": ("", "the file to write"),
    "part": ("", "only these parts of the tests, a comma between them"),
    "no_skips": (False, "a skipped test is a failed test"),
    "seed": ("", "of a soak's random inputs"),
    "count": ("", "of a soak's inputs"),
}
MADE_FROM = ("recipe", "target", "model", "data", "source", "log", "samples")
COMMON = (*MADE_FROM, "compiler", "optimize", "winograd", "engine", "store", "shared", "json", "again")
LIBRARY = ("prefix", "updatable")
SSH = ("to", "key", "ssh_config")
UPLOADED = ("uploaded_bytes", "resumed_bytes", "upload_s", "free_bytes")
DEPLOY_ROWS = ("release", "root", "releases", "removed", *UPLOADED)

Body = Callable[..., None]
ns = Collection()


def command(*options: str, positional: tuple[str, ...] = ()) -> Callable[[Body], Body]:
    """Make a task of a function: its options from OPTIONS, its errors as one line and an exit code."""

    def register(body: Body) -> Body:
        @functools.wraps(body)
        def run(context: Any, **given: Any) -> None:
            if context.config.run.dry:
                _fail(
                    ConfigError(
                        "--dry would run the task all the same; leave it out (`invoke graph` shows the plan)"
                    )
                )
            guarded(lambda: body(**given))

        parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        for name in positional:
            parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD))
        for name in options:
            default = OPTIONS[name][0]
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            )
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        texts = {name: OPTIONS[name][1] for name in options}
        ns.add_task(Task(run, name=body.__name__, auto_shortflags=False, positional=positional, help=texts))
        return body

    return register


def guarded(work: Callable[[], None]) -> None:
    """Run `work`; every way out of it is a clean one: no traceback, the right exit code."""
    try:
        work()
        sys.stdout.flush()
    except EdgekdError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("stopped; run again to continue", file=sys.stderr)
        raise Exit(code=130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: say no more
        raise Exit(code=141) from None


def _fail(error: EdgekdError) -> NoReturn:
    print(f"edgekd: {error}", file=sys.stderr)
    raise Exit(code=error.exit_code)


def _number(text: str, option: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--{option} is {text!r}; it must be a whole number from 1")
    return int(text)


def _request(view: Any, given: dict[str, Any]) -> Any:
    from edgekd import api

    known = {k: v for k, v in given.items() if k not in ("json", "to", "samples", "out")}
    return api.request(**known, samples=_number(given.get("samples", ""), "samples"), progress=view)


def _advise(*lines: str) -> None:
    for line in lines:
        print(f"next: {line}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, sort_keys=False))


def _stage_task(stage: str, advice: str, given: dict[str, Any]) -> None:
    """Make one stage's artifact and show where it lies and what was measured on it."""
    from edgekd import api
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        request = _request(view, given)
        artifact = api.make(request, stage)
        gate = api.gate(request, stage)
    if given["json"]:
        _print_json(_stage_json(artifact) | {"gate": gate})
        return
    _show_stage(artifact)
    if gate:
        print(f"gate: {gate['outcome']}: {gate['reason']}")
    _advise(advice)


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
        found = api.teachers(_request(view, given))
    if given["json"]:
        rows = [_stage_json(artifact) | {"gate": None} for artifact in found]
        _print_json(rows[0] if len(rows) == 1 else rows)
        return
    for artifact in found:
        _show_stage(artifact)
    _advise("invoke knowledge")


@command(*COMMON)
def knowledge(**given: Any) -> None:
    """Store the teacher's predictions in a file."""
    _stage_task("knowledge", "invoke distill", given)


@command(*COMMON)
def distill(**given: Any) -> None:
    """Train the student from the stored predictions alone."""
    _stage_task("distill", "invoke compress", given)


@command(*COMMON)
def compress(**given: Any) -> None:
    """Make the student smaller, as the recipe says."""
    _stage_task("compress", "invoke quantize", given)


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


@command(*COMMON, *SSH, *LIBRARY)
def bench(**given: Any) -> None:
    """Measure on the target: accuracy, instructions or latency, memory."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_record

    with ProgressView() as view:
        record = api.bench(_request(view, given), given["to"])
    if given["json"]:
        _print_json(record)
        return
    show_record(record)
    origin = (
        f"--model {given['model']}"
        if given["model"]
        else "--recipe " + (given["recipe"] or api.DEFAULT_RECIPE)
    )
    _advise(
        f"invoke graph {origin} --target {given['target']}",
        "invoke report" if not given["model"] else "invoke targets",
    )


@command("model", "recipe", "target", "compiler", "optimize", "store", "json")
def check(**given: Any) -> None:
    """Does a model fit? Ops, flash and RAM on every microcontroller, without training or compiling."""
    from edgekd import api
    from edgekd.report.check import show_check

    answer = api.check(_request(lambda *a: None, given))
    if given["json"]:
        _print_json(answer)
        return
    show_check(answer)
    fitting = [row["target"] for row in answer["targets"] if row["fits"]]
    origin = f"--model {given['model']}" if given["model"] else "--recipe " + (given["recipe"] or "digits")
    if fitting:
        _advise(f"invoke bench {origin} --target {fitting[0]}")


@command("model", "recipe", "data", "out", "store", "json", positional=("export",))
def weights(export: str, **given: Any) -> None:
    """Write a fine-tuned model's weights for firmware that was exported with --updatable."""
    from edgekd import api
    from edgekd.report.tables import show_table

    if not given["out"]:
        raise ConfigError("no file to write is named; add --out FILE.bin")
    found = api.weights(_request(lambda *a: None, given), export, Path(given["out"]))
    if given["json"]:
        _print_json(found)
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
    request = _request(lambda *x: None, given | ({"target": "mcu-sim"} if with_core else {}))
    found = api.diff(request, a, b)
    if given["json"]:
        _print_json(found)
    else:
        show_diff(found)


@command(*COMMON, *SSH)
def deploy(**given: Any) -> None:
    """Bring the bundle to a Linux device over SSH, whole or not at all."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    with ProgressView() as view:
        result = api.deploy(_request(view, given), given["to"])
    if given["json"]:
        _print_json(result)
        return
    rows = [
        (name, ", ".join(v) if isinstance(v, list) else v)
        for name, v in result.items()
        if name in DEPLOY_ROWS
    ]
    show_table(f"{result['target']}: {result['outcome']}", ("what", "value"), rows)
    _advise(f"invoke bench --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))


@command("target", *SSH, "store", "json")
def trust(**given: Any) -> None:
    """Pin the host key that a Linux device shows now, after you have compared its fingerprint."""
    from edgekd import api

    trusted = api.trust(_request(lambda *a: None, given), given["to"])
    if given["json"]:
        _print_json(trusted)
        return
    print(
        f"{trusted['host']}: {trusted['key']} {trusted['fingerprint']} "
        f"{'pinned' if trusted['added'] else 'was pinned already'}"
    )
    _advise(f"invoke deploy --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))


@command(*COMMON)
def evaluate(**given: Any) -> None:
    """How good each model of the chain is, what it lost on the way, and what the gate says."""
    from edgekd import api
    from edgekd.report.evaluation import show_evaluations
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        found = api.evaluations(_request(view, given))
    if given["json"]:
        _print_json(found)
        return
    show_evaluations(found)
    _advise("invoke bench --target mcu-sim" if not given["model"] else "invoke targets")


@command(*COMMON)
def report(**given: Any) -> None:
    """What distillation brought: the student with each loss and without a teacher, over several seeds."""
    from edgekd import api
    from edgekd.report.learning import show_ablation
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        artifact = api.make(_request(view, given), "ablation")
    if given["json"]:
        _print_json(artifact.metrics)
        return
    show_ablation(artifact.metrics)
    _advise("invoke bench --target mcu-sim")


@command("json")
def targets(**given: Any) -> None:
    """List the target profiles."""
    from dataclasses import asdict

    from edgekd import api
    from edgekd.report.tables import show_table

    found = api.targets()
    if given["json"]:
        _print_json({name: asdict(target) for name, target in found.items()})
        return
    show_table("Targets", ("name", "kind", "what"), [(t.name, t.kind, t.description) for t in found.values()])
    _advise("invoke bench --target mcu-sim")


@command(*COMMON, *LIBRARY)
def graph(**given: Any) -> None:
    """Show the stages: what is cached, what is to do, where the time went."""
    from edgekd import api
    from edgekd.report.tables import show_table

    states = api.states(_request(lambda *a: None, given))
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
        _print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    show_table("Stages", ("stage", "made from", "state", "seconds", "key"), rows, right=(3,))


@command("store", "json", positional=("artifact",))
def show(artifact: str, **given: Any) -> None:
    """Walk from an artifact (a key, or a file in the store) back to the data set's checksum."""
    from edgekd import api
    from edgekd.report.provenance import provenance_rows, show_provenance

    rows = provenance_rows(api.show(_request(lambda *a: None, given), artifact))
    if given["json"]:
        _print_json(rows)
    else:
        show_provenance(rows)


@command("json")
def doctor(**given: Any) -> None:
    """Say what is installed, what is missing, what for, and the line that installs it."""
    from edgekd.doctor import examine
    from edgekd.report.tables import show_table

    rows = examine()
    if given["json"]:
        _print_json([vars(row) for row in rows])
        return
    table = [(row.name, row.version or "missing", row.purpose, row.install) for row in rows]
    show_table("Doctor", ("what", "found", "for", "install with"), table)


@command("part", "no_skips")
def test(**given: Any) -> None:
    """Run the suite of a checkout: ruff, mypy, every part of the tests."""
    parts = given["part"].split(",") if given["part"] else []
    _checkout_program("tests/run.py", [*(["--no-skips"] if given["no_skips"] else []), *parts])


@command("seed", "count", positional=("name",))
def soak(name: str, **given: Any) -> None:
    """Run a long check (benchmarks/soak.py) and keep its result under benchmarks/results/."""
    numbers = [f"--{option}={given[option]}" for option in ("seed", "count") if given[option]]
    _checkout_program("benchmarks/soak.py", [name, *numbers])


def _checkout_program(name: str, arguments: Iterable[str]) -> None:
    import subprocess

    program = Path(__file__).resolve().parent.parent / name
    if not program.is_file():
        raise ConfigError(f"{name} is not here: this task belongs to a checkout of edgekd's repository")
    code = subprocess.run([sys.executable, str(program), *arguments], check=False).returncode
    if code:
        raise Exit(code=code)


class EdgekdProgram(Program):
    """Invoke's Program with our help: no core options that our tasks do not have, near words for a typo."""

    def print_help(self) -> None:
        print(f"Usage: {self.binary} TASK [options]        {self.binary} TASK --help\n")
        self.list_tasks()
        print("Options of most tasks:\n")
        for name in (*COMMON, "to"):
            print(f"  --{name:<10} {OPTIONS[name][1]}")

    def parse_tasks(self) -> None:
        try:
            super().parse_tasks()
        except ParseError as error:
            raise ParseError(_mended(str(error)), error.context) from None


def _mended(message: str) -> str:
    """Invoke's "No idea what '--taget' is!" with the nearest word that there is."""
    from edgekd.declaration import suggest

    if "No idea what" not in message:
        return message
    word = message.split("'")[1]
    known = [f"--{name}" for name in OPTIONS] if word.startswith("-") else list(ns.task_names)
    return f"edgekd: {word!r} is no option or task here{suggest(word, known)}"


def main() -> None:
    """The console script `edgekd`: the same tasks outside a checkout."""
    program = EdgekdProgram(version=__version__, namespace=ns, name="edgekd", binary="edgekd")
    program.run()
