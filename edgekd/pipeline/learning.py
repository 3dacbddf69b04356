"""The stages from a data set to an int8 model's float parent: each hands a recipe's tables to `learn`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.declaration import told
from edgekd.errors import ConfigError
from edgekd.pipeline.processes import train_together
from edgekd.pipeline.request import Job, Request, Wanted, processor, versions
from edgekd.pipeline.sources import digest_of
from edgekd.recipe import MixPart, Recipe, TeacherParams, members, teacher_seed, weights

if TYPE_CHECKING:
    from edgekd.learn.training import Watch


def training_tools(request: Request) -> dict[str, str]:
    """What trained bytes depend on beside the recipe: torch, numpy, the processor's vector level."""
    return versions("torch", "numpy") | processor()


def compress_tools(request: Request) -> dict[str, str]:
    """The training's tools, and what finds the channels that prune takes together."""
    prunes = request.recipe is not None and "prune" in request.recipe.compress.methods
    return training_tools(request) | (versions("torch-pruning") if prunes else {})


def seeded(request: Request, *tables: str) -> dict[str, Any]:
    """The named tables of the recipe with its seed and what it computes on."""
    recipe = request.need_recipe()
    chosen = {table: told(getattr(recipe, table)) for table in tables}
    return chosen | {name: getattr(recipe, name) for name in ("seed", "threads", "device", "precision")}


def distill_inputs(request: Request) -> dict[str, str]:
    """Data and knowledge; the teacher, too, where the loss looks into it."""
    live = request.recipe is not None and bool(request.recipe.distill.hints)
    return {"data": "dataset", "knowledge": "knowledge"} | ({"teacher": "teacher"} if live else {})


def dataset_params(request: Request) -> dict[str, Any]:
    """[data] and the seed; a path counts by its name and content, not by where it lies."""
    recipe = request.need_recipe()
    return {"data": _named(told(recipe.data), "path"), "seed": recipe.seed}


def teacher_params(request: Request) -> dict[str, Any]:
    """[teacher], its checkpoint by name and content."""
    recipe = request.need_recipe()
    names = [field.name for field in fields(TeacherParams)]  # one of several is keyed as it would be alone
    table = {name: value for name, value in told(recipe.teacher).items() if name in names}
    table = _named(_named(table, "checkpoint"), "code")
    return seeded(request, "teacher") | {"teacher": table, "seed": teacher_seed(recipe)} | _together(recipe)


def distill_params(request: Request) -> dict[str, Any]:
    """[student], [distill], and how many processes train."""
    return seeded(request, "student", "distill") | _together(request.need_recipe())


def compress_inputs(request: Request) -> dict[str, str]:
    """The student and what it learns from; the widths, too, where a device's limits decide them."""
    limited = request.recipe is not None and request.recipe.compress.prune_to is not None
    widths = {"widths": "widths"} if limited else {}
    return {"student": "distill", "data": "dataset", "knowledge": "knowledge"} | widths


def compress_params(request: Request) -> dict[str, Any]:
    """[student], [distill], [compress]; [gate], too, where it stands between several methods."""
    recipe = request.need_recipe()
    gate = {"gate": told(recipe.gate)} if len(recipe.compress.methods) > 1 else {}
    return seeded(request, "student", "distill", "compress") | gate


def _together(recipe: Recipe) -> dict[str, int]:
    """More than one process decide bytes: batch norm's statistics are each one's own."""
    return {"processes": recipe.processes} if recipe.processes > 1 else {}


def member_requests(request: Request) -> list[Request]:
    """The request of each teacher: the request itself where the recipe has one teacher."""
    recipe = request.need_recipe()
    found = members(recipe)
    return [request] if found == [recipe] else [replace(request, recipe=each) for each in found]


def teacher_inputs(request: Request) -> dict[str, Wanted]:
    """The data set. Raises ConfigError where the recipe has several teachers, or none."""
    recipe = request.need_recipe()
    if recipe.mix:
        raise ConfigError(f"recipe {recipe.name} has no teacher: its knowledge is that of [[mix]]")
    if recipe.teachers:
        raise ConfigError(f"recipe {recipe.name} has several teachers; `invoke teacher` makes each of them")
    return {"data": "dataset"}


def knowledge_inputs(request: Request) -> dict[str, Wanted]:
    """The data set and the teacher; each of several as "teacher-1", ...; none where knowledge is given."""
    recipe = request.need_recipe()
    if recipe.mix:
        return {"data": "dataset"}
    if not recipe.teachers:
        return {"data": "dataset", "teacher": "teacher"}
    of = {f"teacher-{n}": ("teacher", each) for n, each in enumerate(member_requests(request), 1)}
    return {"data": "dataset", **of}


def knowledge_params(request: Request) -> dict[str, Any]:
    """[knowledge] and the teachers' shares, or [[mix]]: each directory by its name and content."""
    recipe = request.need_recipe()
    if recipe.mix:
        rows = [{"header": digest_of(_header_of(part)), "weight": part.weight} for part in recipe.mix]
        return {"mix": rows}
    shares = {"weights": list(weights(recipe))} if recipe.teachers else {}
    return seeded(request, "knowledge") | shares


def _header_of(part: MixPart) -> Path:
    """The file whose digest stands for a knowledge directory: it holds every shard's."""
    path = Path(part.knowledge) / "knowledge.json"
    if not path.is_file():
        raise ConfigError(f"{path} is not there; [[mix]] takes directories that `invoke knowledge` made")
    return path


def _named(table: dict[str, Any], key: str) -> dict[str, Any]:
    """The table with the path under `key` as its last part and its content's digest."""
    if not table[key]:
        return table
    path = Path(table[key])
    return table | {key: path.name, f"{key}_digest": digest_of(path)}


def watch(job: Job) -> Watch:
    """Where a training keeps its last epoch, and whom it tells."""
    from edgekd.learn.training import Watch

    return Watch(job.request.progress, job.work(), job.request.log)


def older_knowledge(job: Job) -> Iterator[Path]:
    """Knowledge in the store that was made by the same tools: its shards may serve again."""
    tools = job.origin.tools if job.origin else {}
    for path in sorted((job.request.store.root / "artifacts" / "knowledge").glob("*")):
        if job.request.store.read(path).manifest["tools"] == tools:
            yield path


def run_dataset(job: Job) -> dict[str, Any]:
    from edgekd.data import prepare

    return prepare(job.request.need_recipe(), job.out, progress=job.request.progress)


def run_teacher(job: Job) -> dict[str, Any]:
    from edgekd.learn.teacher import train_teacher

    recipe = job.request.need_recipe()
    if recipe.processes > 1 and recipe.teacher.epochs:
        return train_together(job, "teacher", dataset=job.path("data"))
    return train_teacher(job.path("data"), recipe, job.out, watch=watch(job))


def run_knowledge(job: Job) -> dict[str, Any]:
    from edgekd.learn.record import write_knowledge

    recipe = job.request.need_recipe()
    if recipe.mix:
        return _run_mix(job)
    reuse = tuple(older_knowledge(job))
    teachers = [job.path(role) for role in knowledge_inputs(job.request) if role != "data"]
    return write_knowledge(job.path("data"), teachers, recipe, job.out, watch=watch(job), reuse=reuse)


def _run_mix(job: Job) -> dict[str, Any]:
    from edgekd.data import load_dataset
    from edgekd.learn.mix import write_mix

    return write_mix(job.request.need_recipe().mix, load_dataset(job.path("data")), job.out)


def run_distill(job: Job) -> dict[str, Any]:
    from edgekd.learn.distill import distill_student

    recipe = job.request.need_recipe()
    data, knowledge = job.path("data"), job.path("knowledge")
    live = {"teacher": job.path("teacher")} if "teacher" in job.inputs else {}
    if recipe.processes > 1:
        return train_together(job, "distill", dataset=data, knowledge=knowledge, **live)
    teacher = live.get("teacher")
    return distill_student(data, knowledge, recipe, job.out, watch=watch(job), teacher_dir=teacher)


def run_ablation(job: Job) -> dict[str, Any]:
    from edgekd.learn.ablation import distillation_report

    recipe = job.request.need_recipe()
    return distillation_report(
        job.path("data"), job.path("knowledge"), recipe, job.out, progress=job.request.progress
    )


def run_compress(job: Job) -> dict[str, Any]:
    from edgekd.compress import compress_student

    recipe, paths = job.request.need_recipe(), (job.path("student"), job.path("data"), job.path("knowledge"))
    widths = job.path("widths") if "widths" in job.inputs else None
    return compress_student(*paths, recipe, job.out, watch=watch(job), widths_dir=widths)


def run_simplify(job: Job) -> dict[str, Any]:
    from edgekd.export.torch_to_onnx import export_student

    return export_student(job.path("student"), job.path("data"), job.out, progress=job.request.progress)
