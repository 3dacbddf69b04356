"""The pipeline for a program or a notebook: the same graph as the command line's.

    from edgekd import api
    request = api.request(recipe="digits", target="mcu-sim")
    record = api.bench(request)

Every function raises EdgekdError with one sentence; nothing prints.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.declaration import find_named, list_named, suggest
from edgekd.errors import ArtifactError, ConfigError
from edgekd.pipeline import graph
from edgekd.pipeline.learning import member_requests
from edgekd.pipeline.libraries import checked_prefix
from edgekd.pipeline.processes import TRAININGS, job_table
from edgekd.pipeline.request import ModelFile, Request
from edgekd.pipeline.stages import STAGES, stage_of
from edgekd.progress import Progress, silent
from edgekd.recipe import Recipe, load_recipe, located
from edgekd.resources import resource_dir
from edgekd.store import Artifact, Store, sha256_file
from edgekd.target import VARIANTS, Target, load_target

DEFAULT_RECIPE = "digits"
COMPILERS = ("clang", "gcc")
OPTIMIZE = ("speed", "ram", "flash", "balanced")
ENGINES = ("unicorn", "qemu")
StageState = graph.StageState


def request(
    *,
    recipe: str = "",
    target: str = "",
    model: str = "",
    data: str = "",
    samples: int | None = None,
    compiler: str = "",
    optimize: str = "",
    winograd: bool = False,
    engine: str = "",
    variant: str = "",
    store: str = "",
    shared: str = "",
    key: str = "",
    ssh_config: str = "",
    again: bool = False,
    prefix: str = "",
    updatable: bool = False,
    source: str = "",
    log: str = "",
    progress: Progress = silent,
    start: Path | None = None,
) -> Request:
    """Check every option and return the request that all other functions take.

    model: a .tflite or .onnx file that replaces the recipe; data: an .npz file with x and y that
    replaces its samples; optimize: what the generated C is to spare, "speed" (the default), "ram",
    "flash" or "balanced";
    winograd: whether its 3 x 3 convolutions may take 3.6 times their weights' flash for speed;
    variant: of a Linux bundle, in place of the device's own choice;
    source: where the recipe's samples lie, in place of its data.path; log: a .csv that trainings append a
    line an epoch to, or a folder for TensorBoard's events; shared: a team's cache (any fsspec URL); prefix:
    what the generated C's names begin with; updatable: whether its weights can be replaced apart from its
    code; start: where the search for the project begins (default: here).
    Raises ConfigError or ArtifactError.
    """
    project = project_root(start or Path.cwd())
    if model and recipe:
        raise ConfigError("--model replaces the recipe, so --recipe cannot be given as well; leave one out")
    if compiler and compiler not in COMPILERS:
        raise ConfigError(f"compiler {compiler!r} does not exist{suggest(compiler, COMPILERS)}")
    if optimize and optimize not in OPTIMIZE:
        raise ConfigError(f"optimize {optimize!r} does not exist{suggest(optimize, OPTIMIZE)}")
    if engine and engine not in ENGINES:
        raise ConfigError(f"engine {engine!r} does not exist{suggest(engine, ENGINES)}")
    if variant and variant not in VARIANTS:
        raise ConfigError(f"variant {variant!r} does not exist{suggest(variant, VARIANTS)}")
    learned = None if model else _recipe(recipe or DEFAULT_RECIPE, project, source)
    return Request(
        store=Store(Path(store) if store else project / ".edgekd", _shared(shared) if shared else None),
        recipe=learned,
        priced_on=_priced_on(learned, project) if learned else None,
        target=load_target(target, _places(project, "targets")) if target else None,
        model=_model_file(Path(model)) if model else None,
        data=_data_file(Path(data)) if data else None,
        samples=samples,
        compiler=compiler or "clang",
        optimize=optimize or "speed",
        winograd=winograd,
        engine=engine or None,
        variant=variant,
        again=again,
        prefix=checked_prefix(prefix or "model"),
        is_updatable=updatable,
        log=Path(log) if log else None,
        key_file=Path(key).expanduser() if key else None,
        ssh_config=Path(ssh_config).expanduser() if ssh_config else None,
        progress=progress,
    )


def project_root(start: Path) -> Path:
    """The project that `start` lies in: the nearest directory upwards with .edgekd/, tasks.py or
    pyproject.toml; `start` itself where there is none."""
    for directory in (start, *start.parents):
        if any((directory / mark).exists() for mark in (".edgekd", "tasks.py", "pyproject.toml")):
            return directory
    return start


def targets(start: Path | None = None) -> dict[str, Target]:
    """Every target profile by name: the project's own first, then those that ship with edgekd."""
    places = _places(project_root(start or Path.cwd()), "targets")
    return {name: load_target(name, places) for name in list_named(places)}


def recipes(start: Path | None = None) -> dict[str, Recipe]:
    """Every recipe by name."""
    places = _places(project_root(start or Path.cwd()), "recipes")
    return {name: load_recipe(name, places) for name in list_named(places)}


def make(request: Request, stage: str) -> Artifact:
    """The artifact of a stage (a name of `stages()`), with all it depends on."""
    if stage not in STAGES:
        raise ConfigError(f"stage {stage!r} does not exist{suggest(stage, STAGES)}")
    return graph.make(request, stage)


def teachers(request: Request) -> list[Artifact]:
    """The recipe's teacher, or each of its [[teachers]] in order."""
    return [make(each, "teacher") for each in member_requests(request)]


def training_job(request: Request, stage: str, out: Path) -> dict[str, Any]:
    """What JOB.json holds to train `stage` ("teacher" or "distill") on several machines (docs/training.md).

    Makes what the stage is made from. out: a directory that all machines see; the result is written there,
    and the last whole epoch into `work` below it.
    """
    if stage not in TRAININGS:
        raise ConfigError(f"stage {stage!r} is no training in several processes{suggest(stage, TRAININGS)}")
    STAGES[stage].inputs(request)  # refuses a recipe without the one teacher
    inputs = {name: make(request, each).path for name, each in TRAININGS[stage].items()}
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    return job_table(request.need_recipe(), stage, {**inputs, "out": out, "work": work, "log": request.log})


def stages() -> tuple[str, ...]:
    """The stages' names."""
    return tuple(STAGES)


def states(request: Request) -> list[StageState]:
    """What the request's chain consists of, and what of it the store has. Makes nothing."""
    return graph.states(request, stage_of(request))


def evaluations(request: Request) -> list[dict[str, Any]]:
    """The evaluation record of each model along the request's chain, with the gate's verdict on it.

    Makes what is missing; a model that fails the gate is evaluated like any other. "gate" is
    {"outcome", "reason"}, or None where no gate stands (the user's own model).
    """
    from edgekd.pipeline import evaluating

    found = []
    for stage in evaluating.chain(request):
        artifact = graph.make(request, stage, gated=False)
        found.append(evaluating.evaluation_of(artifact) | {"gate": evaluating.gate_of(request, artifact)})
    return found


def gate(request: Request, stage: str) -> dict[str, str] | None:
    """The gate's {"outcome", "reason"} on the model that `stage` made; None where no gate stands."""
    from edgekd.pipeline import evaluating

    judged = evaluating.judge_of(request, stage)
    again = dataclasses.replace(request, again=False)
    return evaluating.gate_of(request, graph.make(again, judged.by, gated=False)) if judged else None


def bench(request: Request, to: str = "") -> dict[str, Any]:
    """Measure on the target: the bench record (FORMATS.md). `to`: user@host:port of a Linux device."""
    if request.need_target().kind == "linux":
        from edgekd.pipeline.effects import bench_on_device

        return bench_on_device(request, to)
    if to:
        raise ConfigError(
            f"target {request.need_target().name} is an emulated core; --to is for Linux targets"
        )
    artifact = graph.make(request, "bench")
    record: dict[str, Any] = json.loads((artifact.path / "record.json").read_text("utf-8"))
    return record | {"when": request.store.made_at(artifact)}


def check(request: Request, start: Path | None = None) -> dict[str, Any]:
    """Whether the model fits: ops, bytes predicted for each microcontroller profile, what is in the way.

    Nothing is trained, compiled or run. `request.target` restricts the profiles to one.
    """
    from edgekd.pipeline.checking import check_model

    return check_model(request, [request.target] if request.target else list(targets(start).values()))


def plan(request: Request, out: Path | None = None) -> dict[str, Any]:
    """The memory plan of the request's model (edgekd.pipeline.planning.plan_model); out: its SVG."""
    from edgekd.pipeline import planning

    return planning.drawn(lambda: planning.plan_model(request), out)


def front(request: Request, out: Path | None = None, is_measured: bool = False) -> dict[str, Any]:
    """The builds of the request's model by cycles, RAM and flash (edgekd.pipeline.fronting.front_of)."""
    from edgekd.pipeline import fronting, planning

    return planning.drawn(lambda: fronting.front_of(request, is_measured), out)


def compress_to_fit(
    request: Request,
    max_flash: int | None = None,
    max_ram: int | None = None,
    max_cycles: int | None = None,
) -> dict[str, Any]:
    """Find the mildest combination of compression methods that fits the target and passes the gate.

    max_flash, max_ram: bytes; max_cycles: modelled cycles of one inference; None: the target's. Returns what
    was tried (edgekd.pipeline.fitting.fit): "chosen" is a [compress] table, or None and "reason" says why.
    """
    from edgekd.pipeline.fitting import fit, limits_of

    if request.recipe is None:
        raise ConfigError(
            "--to-fit compresses a recipe's student, and --model replaces it; leave --model out"
        )
    limits = limits_of(request.need_target("mcu"), max_flash, max_ram, max_cycles)
    return fit(request, limits)


def diff(request: Request, a: str = "reference", b: str = "core") -> dict[str, Any]:
    """Two executions (reference, tflm, litert, ort, host, core) side by side; where they part first."""
    from edgekd.pipeline.checking import diff_model

    return diff_model(request, a, b)


def search(request: Request, say: Callable[[str], None] = lambda line: None, **wanted: Any) -> dict[str, Any]:
    """Look for students that fit the request's target (docs/methods/search.md): the trials and their front.

    wanted: fields of edgekd.pipeline.searching.Wanted (budgets and trials in place of the recipe's, workers,
    storage). say: told in a sentence what happens to workers. Raises BudgetError where nothing fits.
    """
    from edgekd.pipeline import searching

    return searching.run(request, searching.Wanted(**wanted), say)


def pick(
    request: Request, found: Mapping[str, Any], which: str, out: Path | None = None, start: Path | None = None
) -> Path | None:
    """Write the recipe of a student that a search found: a trial's number, "best" or "smallest"; its path.

    out: by default recipes/<recipe>-search.toml of the project (start: as in `request`). which "": None.
    """
    from edgekd.pipeline import searching

    project, name = project_root(start or Path.cwd()), request.need_recipe().name
    source = find_named("recipe", name, _places(project, "recipes"))
    out = out or project / "recipes" / f"{name}-search.toml"
    return searching.write_pick(request, found, which, source, out) if which else None


def weights(request: Request, built: str, out: Path) -> dict[str, Any]:
    """Write the weights of the request's model for a device that runs the code of an updatable export.

    built: the export's key, or a path in its artifact; out: the file, written whole or not at all. Returns
    {"file", "bytes", "layout", "model", "for"}. Raises ConfigError where that export is not updatable,
    ArtifactError in one sentence where the model is of another structure.
    """
    from edgekd.pipeline.libraries import weights_for
    from edgekd.pipeline.shipping import graph_of, int8_stage

    export = find_artifact(request.store, built)
    return weights_for(export, graph_of(graph.make(request, int8_stage(request))), out)


def deploy(request: Request, to: str = "") -> Mapping[str, Any]:
    """Bring the bundle to a Linux device, whole or not at all; what lies there afterwards."""
    from edgekd.pipeline.effects import deploy_to_device

    return deploy_to_device(request, to)


def hosts(request: Request, to: str = "", inventory: str = "") -> list[Any]:
    """The devices that `to` names: addresses, hosts and @groups of the inventory, a comma between them.

    inventory: its file (default: the project's inventory.toml). Raises ConfigError for a name, group or
    address that leads nowhere.
    """
    from edgekd.pipeline.effects import hosts_of

    return hosts_of(request, to, Path(inventory) if inventory else None)


def deploy_many(
    request: Request,
    devices: Sequence[Any],
    tell: Callable[[Any, str, int, int], None] = lambda *told: None,
    *,
    back: bool = False,
    service: bool = False,
    port: int = 0,
    deadline_s: float = 600.0,
) -> dict[str, Any]:
    """Deploy to each of `hosts()`, side by side; a device that fails keeps nobody waiting.

    tell: called from each device's thread with (host, what it does, done, total). back: make the release
    before the current one current instead. service: let systemd serve the model there, on `port` of
    its loopback too where it is not 0. deadline_s: what each device may take.
    Returns {"target", "hosts": one table each, with "outcome" and "error", "counts", "exit_code"}.
    """
    from edgekd.pipeline import effects

    if back:
        outcomes = effects.rollback_hosts(request, devices, tell, deadline_s=deadline_s)
    else:
        how: dict[str, Any] = {"service": service, "port": port}
        outcomes = effects.deploy_to_hosts(request, devices, tell, deadline_s=deadline_s, **how)
    return effects.summary(request, outcomes)


def rollback(request: Request, to: str = "") -> Mapping[str, Any]:
    """Make the release before the current one current on a Linux device; what lies there afterwards."""
    from edgekd.pipeline import effects

    return effects.only(effects.rollback_hosts(request, hosts(request, to), lambda *told: None))


def run(request: Request, sample: Path, to: str = "", inventory: str = "") -> Mapping[str, Any]:
    """One inference of a Linux device's current release on the sample in a file.

    sample: .npy, .npz, .csv, .wav or an image, as far as the recipe's data are of that kind. Returns
    `output`, `index`, `label`, `score`, `release`, `variant`, `latency_us`, `load_us`.
    """
    from edgekd.pipeline import effects

    return effects.run_on_device(request, effects.one_host(request, to, inventory), sample)


def logs(request: Request, to: str = "", inventory: str = "", lines: int = 50) -> Mapping[str, Any]:
    """What was done on a Linux device, newest last: `journal`, `current`, `releases`."""
    from edgekd.pipeline import effects

    return effects.logs_of_device(request, effects.one_host(request, to, inventory), lines)


def trust(request: Request, to: str = "") -> Mapping[str, Any]:
    """Pin the host key that the device shows now; returns host, key type and fingerprint."""
    from edgekd.pipeline.effects import trust_device

    return trust_device(request, to)


def release_parts(request: Request, *, version: str, licence: str, bom: Path | None = None) -> Any:
    """What a release of the request's model for its target is made of (edgekd.fleet.releasing.Parts)."""
    from edgekd.pipeline.releasing import release_parts as parts

    return parts(request, version=version, licence=licence, bom=bom)


def device_up(
    request: Request, release: str = "", cache: str = "", port: int | None = None
) -> dict[str, Any]:
    """Switch a virtual device on (docs/linux-devices.md): state, address, key, and the seconds it took.

    release: Debian's, in place of the profile's; cache: the folder of images; port: for its SSH.
    """
    from edgekd.pipeline import virtual

    return virtual.device_up(request, release, cache, port)


def device_down(request: Request) -> dict[str, Any]:
    """Switch a virtual device off; its disk is forgotten."""
    from edgekd.pipeline import virtual

    return virtual.device_down(request)


def device_status(request: Request) -> dict[str, Any]:
    """How a virtual device is, and how to log in."""
    from edgekd.pipeline import virtual

    return virtual.device_status(request)


def show(request: Request, name: str) -> Iterator[tuple[int, Artifact | Mapping[str, Any]]]:
    """Walk from an artifact (a key or the start of one, or a path in the store) back to its data set."""
    return graph.provenance(request, find_artifact(request.store, name))


def find_artifact(store: Store, name: str) -> Artifact:
    """The artifact whose key begins with `name`, or that holds the file `name`.

    Raises ArtifactError for none or several.
    """
    path = Path(name)
    for directory in (path, *path.parents) if path.exists() else ():
        if (directory / "manifest.json").is_file():
            return store.read(directory)
    found = [a for a in store.all() if a.key.startswith(name) or a.digest.startswith(name)] if name else []
    if len(found) == 1:
        return found[0]
    what = "no artifact" if not found else f"{len(found)} artifacts"
    raise ArtifactError(
        f"{what} in {store.root} is called {name!r}; `invoke graph` lists keys, or give a file's path"
    )


def _recipe(name: str, project: Path, source: str) -> Recipe:
    return located(load_recipe(name, _places(project, "recipes")), project, source)


def _priced_on(recipe: Recipe, project: Path) -> Target | None:
    """The profile that the recipe prunes to."""
    asked = recipe.compress.prune_to
    if asked is None:
        return None
    target = load_target(asked.target, _places(project, "targets"))
    if target.kind != "mcu":
        raise ConfigError(
            f"recipe {recipe.name}: compress.prune_to.target {target.name} is no microcontroller; name "
            "one (`invoke targets` lists them)"
        )
    return target


def _shared(url: str) -> Any:
    from edgekd.shared import SharedCache

    return SharedCache(url)


def _places(project: Path, kind: str) -> list[Path]:
    return [project / kind, resource_dir(kind)]


def _data_file(path: Path) -> tuple[Path, str]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; --data takes an .npz file with the arrays x and y")
    return path, sha256_file(path)


def _model_file(path: Path) -> ModelFile:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; --model takes a .tflite or .onnx file")
    if path.suffix == ".tflite":
        return ModelFile(path, "tflite", sha256_file(path))
    if path.suffix != ".onnx":
        raise ArtifactError(
            f"{path}: --model takes a .tflite or .onnx file, and {path.suffix or 'no suffix'} is neither"
        )
    from edgekd.qgraph.onnx_reader import is_qdq

    form = "qdq" if is_qdq(path.read_bytes(), path.name) else "float"
    return ModelFile(path, form, sha256_file(path))


def provision(
    request: Request, to: str = "", runtimes: tuple[str, ...] = (), cache: str = ""
) -> Mapping[str, Any]:
    """Give a Linux device without internet its runtime: what was installed, or that nothing was to do.

    runtimes: names of edgekd.device.provisioning.choose.RUNTIMES; empty: all that the device can have.
    """
    from edgekd.pipeline.provisioning import provision_device

    return provision_device(request, to, runtimes, cache)


def doctor_device(request: Request, to: str = "") -> list[dict[str, Any]]:
    """What is right and wrong with a Linux device: one row a check, with how to mend it."""
    from edgekd.pipeline.provisioning import doctor_device as examine

    return examine(request, to)
