"""The bench stage's row: what a bench on an emulated core depends on, and what names it in its record."""

from __future__ import annotations

from typing import Any

from edgekd.pipeline.request import Job, Request, versions
from edgekd.pipeline.shipping import compiler_tools, float_inputs, int8_stage, machine_params, sample_inputs


def engine_of(request: Request) -> str:
    """The emulator that runs the image: asked for, or the profile's."""
    target = request.need_target("mcu")
    return request.engine or (target.emulator.engine if target.emulator else "unicorn")


def bench_inputs(request: Request) -> dict[str, str]:
    inputs = {"int8": int8_stage(request), "export": "export", "image": "build"}
    return inputs | float_inputs(request) | sample_inputs(request)


def bench_params(request: Request) -> dict[str, Any]:
    origin = {"recipe": request.recipe.name} if request.recipe else {"model": request.need_model().path.name}
    engine = {"engine": engine_of(request), "samples": request.samples}
    return machine_params(request) | engine | origin | {"target": request.need_target().name}


def bench_tools(request: Request) -> dict[str, str]:
    libraries = versions("ziglang", "numpy", "onnxruntime")
    if engine_of(request) == "unicorn":
        return libraries | versions("unicorn")
    from edgekd.doctor import by_name, probe

    return libraries | {"qemu": probe(by_name("qemu-arm")).version or "absent"}


def run_bench(job: Job) -> dict[str, Any]:
    """Bench on the emulated core: record.json, and the outputs as they left the core."""
    from edgekd.pipeline.emulated import bench_emulated

    return bench_emulated(job, engine_of(job.request), _identity(job))


def _identity(job: Job) -> dict[str, Any]:
    params = bench_params(job.request)
    image, export = job.inputs["image"], job.inputs["export"]
    return {
        "target": params["target"],
        "recipe": params.get("recipe"),
        "model": params.get("model"),
        "artifact": {"stage": image.stage, "key": image.key, "digest": image.digest},
        "model_bytes": export.metrics["model_bytes"],
        "tools": bench_tools(job.request) | compiler_tools(job.request),
    }
