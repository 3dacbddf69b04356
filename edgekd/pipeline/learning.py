"""The stages from a data set to an int8 model's float parent: each hands a recipe's tables to `learn`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgekd.pipeline.request import Job, Request, processor, versions


def training_tools(request: Request) -> dict[str, str]:
    """What trained bytes depend on beside the recipe: torch, numpy, the processor's vector level."""
    return versions("torch", "numpy") | processor()


def seeded(request: Request, *tables: str) -> dict[str, Any]:
    """The named tables of the recipe with its seed and thread count."""
    recipe = request.need_recipe()
    chosen = {table: asdict(getattr(recipe, table)) for table in tables}
    return chosen | {"seed": recipe.seed, "threads": recipe.threads}


def run_dataset(job: Job) -> dict[str, Any]:
    from edgekd.data import prepare

    return prepare(job.request.need_recipe(), job.out)


def run_teacher(job: Job) -> dict[str, Any]:
    from edgekd.learn.teacher import train_teacher

    return train_teacher(job.path("data"), job.request.need_recipe(), job.out, progress=job.request.progress)


def run_knowledge(job: Job) -> dict[str, Any]:
    from edgekd.learn.record import write_knowledge

    recipe = job.request.need_recipe()
    return write_knowledge(
        job.path("data"), job.path("teacher"), recipe, job.out, progress=job.request.progress
    )


def run_distill(job: Job) -> dict[str, Any]:
    from edgekd.learn.distill import distill_student

    recipe = job.request.need_recipe()
    return distill_student(
        job.path("data"), job.path("knowledge"), recipe, job.out, progress=job.request.progress
    )


def run_ablation(job: Job) -> dict[str, Any]:
    from edgekd.learn.ablation import distillation_report

    recipe = job.request.need_recipe()
    return distillation_report(
        job.path("data"), job.path("knowledge"), recipe, job.out, progress=job.request.progress
    )


def run_compress(job: Job) -> dict[str, Any]:
    from edgekd.compress import compress_student

    recipe, paths = job.request.need_recipe(), (job.path("student"), job.path("data"), job.path("knowledge"))
    return compress_student(*paths, recipe, job.out, progress=job.request.progress)


def run_simplify(job: Job) -> dict[str, Any]:
    from edgekd.export.torch_to_onnx import export_student

    return export_student(job.path("student"), job.path("data"), job.out, progress=job.request.progress)
