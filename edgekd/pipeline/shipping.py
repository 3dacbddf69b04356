"""The stages from an int8 model to a bundle, a firmware image and a bench on an emulated core."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgekd.declaration import told
from edgekd.errors import ConfigError
from edgekd.pipeline.bundling import linux_params
from edgekd.pipeline.request import Job, Request, versions
from edgekd.store import Artifact

if TYPE_CHECKING:
    from edgekd.mcu.options import Options

# The file in which each form of model lies in its artifact.
MODEL_FILES = {"float": "model.onnx", "qdq": "int8.onnx", "tflite": "model.tflite"}


def int8_stage(request: Request) -> str:
    """Where the int8 model comes from: the user's own file, or quantization."""
    return "import" if request.model and request.model.form != "float" else "quantize"


def float_inputs(request: Request) -> dict[str, str]:
    """The float model as an input, where the chain has one."""
    if request.model is None:
        return {"float": "simplify"}
    return {"float": "import"} if request.model.form == "float" else {}


def sample_inputs(request: Request) -> dict[str, str]:
    """The samples as an input: the user's own, the recipe's, or none."""
    if request.data:
        return {"samples": "userdata"}
    return {} if request.model else {"samples": "dataset"}


def import_params(request: Request) -> dict[str, Any]:
    model = request.need_model()
    return {"file": model.path.name, "form": model.form, "sha256": model.digest}


def run_import(job: Job) -> dict[str, Any]:
    """Keep the user's own model in the store, once it has been read whole: a broken one never enters."""
    model = job.request.need_model()
    data = model.path.read_bytes()
    metrics: dict[str, Any] = {"model_bytes": len(data)}
    if model.form != "float":
        from edgekd.qgraph.loader import load_graph

        metrics["ops"] = len(load_graph(data, model.path.name).ops)
    (job.out / MODEL_FILES[model.form]).write_bytes(data)
    return metrics


def userdata_params(request: Request) -> dict[str, Any]:
    return {"sha256": request.need_data()[1]}


def run_userdata(job: Job) -> dict[str, Any]:
    """Keep the user's own samples in the store, checked."""
    from edgekd.data import load_user_data

    path = job.request.need_data()[0]
    samples = len(load_user_data(path).x)
    (job.out / "userdata.npz").write_bytes(path.read_bytes())
    return {"samples": samples}


def export_inputs(request: Request) -> dict[str, str]:
    inputs = {"int8": int8_stage(request)}
    if request.need_target().kind == "mcu":  # a recipe's data set knows the classes' names
        return inputs if request.model else inputs | {"samples": "dataset"}
    return inputs | float_inputs(request) | sample_inputs(request)


def export_params(request: Request) -> dict[str, Any]:
    target = request.need_target()
    if target.kind == "mcu":
        core = target.core.cpu if target.core else ""
        names = {"prefix": request.prefix, "updatable": request.is_updatable}
        options = asdict(mcu_options(request))
        if options["regions"] is None:  # came later: keys stay what they were
            del options["regions"]
        return {"kind": "mcu", "core": core, **names, "options": options}
    return linux_params(request)


def export_tools(request: Request) -> dict[str, str]:
    """Packages whose versions can change an export's bytes."""
    tools = versions("ai-edge-litert", "flatbuffers", "tflite-micro", "onnx", "onnxruntime")
    return tools if request.need_target().kind == "mcu" else tools | versions("ziglang")


def mcu_options(request: Request) -> Options:
    """How the C of the request's microcontroller is to be generated."""
    from edgekd.mcu.options import options_for

    return replace(
        options_for(request.need_target("mcu"), request.optimize, request.compiler), winograd=request.winograd
    )


def run_export(job: Job) -> dict[str, Any]:
    if job.request.need_target().kind == "mcu":
        return _export_mcu(job)
    return _export_linux(job)


def _export_linux(job: Job) -> dict[str, Any]:
    """`bundle/`: every variant that applies, samples, golden outputs."""
    from edgekd.pipeline.bundling import export_linux

    models = {}
    for role, form in (("int8", "qdq"), ("float", "float")):
        if role in job.inputs and (path := job.path(role) / MODEL_FILES[form]).is_file():
            models[form] = path.read_bytes()
    return export_linux(job, export_params(job.request), graph_of(job.inputs["int8"]), models)


def _export_mcu(job: Job) -> dict[str, Any]:
    """`c/`: generated C; `plan.json`, `plan.svg`: where its tensors lie; `tflm/`: the model, its array, its
    op resolver and the arena that TFLM needs."""
    from edgekd.export import tflm
    from edgekd.mcu.plan_answer import tell
    from edgekd.mcu.plan_picture import plan_svg
    from edgekd.pipeline import libraries
    from edgekd.qgraph.edges import strip_float_edges
    from edgekd.qgraph.tflite_writer import write_tflite

    graph, params = graph_of(job.inputs["int8"]), export_params(job.request)
    stripped = strip_float_edges(graph)
    labels = libraries.labels_of(stripped, job.inputs.get("samples"))
    generated = libraries.generated_library(stripped, params, mcu_options(job.request), labels)
    own = job.path("int8") / MODEL_FILES["tflite"]
    tflite = own.read_bytes() if own.is_file() else write_tflite(graph)
    arena = asdict(tflm.arena(graph, tflite))
    texts = {f"c/{name}": text for name, text in generated.files.items()}
    texts |= {f"tflm/{name}": text for name, text in tflm.model_array(tflite, graph.name).items()}
    where = tell(generated)
    texts |= {"plan.json": json.dumps(where, indent=1) + "\n", "plan.svg": plan_svg(where)}
    texts["tflm/op_resolver.h"] = tflm.op_resolver(graph)
    texts["tflm/arena.json"] = json.dumps(arena, indent=1) + "\n"
    for name, text in texts.items():
        path = job.out / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
    (job.out / libraries.TFLITE).write_bytes(tflite)
    layers = [
        {
            key: getattr(layer, key)
            for key in ("name", "op", "kernel", "instructions", "cycles", "flash_bytes")
        }
        for layer in generated.layers
    ]
    metrics = {
        "model_bytes": len(tflite),
        "arena_bytes": generated.arena_bytes,
        "tflm_arena_bytes": arena,
        "passes": list(generated.passes),
        "layers": layers,
    }
    if not params["updatable"]:
        return metrics
    (job.out / "c" / f"{params['prefix']}_weights.bin").write_bytes(generated.weights.blob)
    return metrics | {"updatable_cost": libraries.updatable_cost(stripped, generated, params["core"])}


def graph_of(artifact: Artifact) -> Any:
    """The QGraph of an artifact of `quantize` or `import`."""
    from edgekd.qgraph.loader import load_graph

    for form in ("qdq", "tflite"):
        path = artifact.path / MODEL_FILES[form]
        if path.is_file():
            return load_graph(path.read_bytes(), str(artifact.manifest["params"].get("file", path.name)))
    raise ConfigError(f"{artifact.stage} {artifact.key} holds no int8 model")


def machine_params(request: Request) -> dict[str, Any]:
    """What of a microcontroller's profile a build and its run depend on."""
    target = request.need_target("mcu")
    return {table: told(getattr(target, table)) for table in ("core", "memory", "emulator", "cost")}


def compiler_tools(request: Request) -> dict[str, str]:
    if request.compiler == "clang":
        return versions("ziglang")
    from edgekd.mcu.toolchain import find_compiler

    return {request.compiler: find_compiler(request.compiler, request.store.work("compiler")).version}


def run_build(job: Job) -> dict[str, Any]:
    from edgekd.mcu.firmware import build_image
    from edgekd.mcu.toolchain import find_compiler

    compiler = find_compiler(job.request.compiler, job.request.store.work("compiler"))
    build_image(job.path("export") / "c", job.request.need_target("mcu"), compiler, job.out)
    image: dict[str, Any] = json.loads((job.out / "image.json").read_text("utf-8"))
    layers = job.inputs["export"].metrics["layers"]
    return {"flash_bytes": image["flash_bytes"], "ram_bytes": image["ram_bytes"], "layers": layers}
