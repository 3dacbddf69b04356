"""What a release is made of, from the store: bundle or firmware, bench record, golden vectors, ML-BOM."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ArtifactError, ConfigError
from edgekd.export.linux import bundle_name, read_bundle
from edgekd.fleet.bom import Facts, Origin, check_bom, write_bom
from edgekd.fleet.formats import MadeFrom
from edgekd.fleet.releasing import Parts
from edgekd.pipeline.bundling import BUNDLE, GOLDEN_SAMPLES
from edgekd.pipeline.graph import make, provenance
from edgekd.pipeline.request import Request
from edgekd.pipeline.samples import graph_inputs, probe_inputs, test_samples
from edgekd.pipeline.shipping import graph_of
from edgekd.store import Artifact, sha256_file

Walk = Iterable[tuple[int, Artifact | Mapping[str, Any]]]


def release_parts(request: Request, *, version: str, licence: str, bom: Path | None) -> Parts:
    """The parts of a release for the request's target; makes what the store lacks but a bench on a device.

    licence: of the model, for the BOM; bom: the user's own, in place of one that is written. Raises
    ArtifactError where a Linux bundle was not benched, ConfigError where the BOM needs more.
    """
    linux = request.need_target().kind == "linux"
    artifact = make(request, "export" if linux else "build")
    artifact.verify()
    folder = artifact.path / BUNDLE if linux else artifact.path
    name = bundle_name(request.recipe.name if request.recipe else request.need_model().path.stem)
    contents, golden, steps = _linux(folder) if linux else _mcu(request, artifact)
    return Parts(
        model=name,
        kind="linux" if linux else "mcu",
        contents=contents,
        golden=golden,
        record=_record(request, artifact, linux),
        bom=_bom(request, artifact, name, version, licence, bom),
        steps=steps,
        made_from=MadeFrom(artifact.stage, artifact.key, artifact.digest),
    )


def _linux(folder: Path) -> tuple[dict[str, bytes], tuple[str, ...], int]:
    table = read_bundle(folder)
    contents = {f"bundle/{name}": (folder / name).read_bytes() for name in (*table["files"], "bundle.json")}
    rules = {name: variant["golden"] for name, variant in table["variants"].items()}
    golden = tuple(sorted(f"bundle/{rule['file']}" for rule in rules.values()))
    int8 = rules.get("int8") or next(iter(rules.values()))
    return contents, golden, int(int8["tolerance_steps"])


def _mcu(request: Request, build: Artifact) -> tuple[dict[str, bytes], tuple[str, ...], int]:
    """The image, and the first samples with what the core answered: bit for bit the integer reference."""
    from edgekd.qgraph.edges import strip_float_edges

    bench = make(request, "bench")
    inputs = {role: _input(request, bench, role) for role in bench.manifest["inputs"]}
    graph = strip_float_edges(graph_of(inputs["int8"]))
    samples = test_samples(inputs["samples"], request.samples) if "samples" in inputs else None
    first = not (request.model and request.model.form == "tflite")
    given = graph_inputs(graph, samples, first) if samples else probe_inputs(graph, request.samples)
    count = len(given[0])
    answers = np.fromfile(bench.path / "outputs.bin", dtype=np.uint8)
    size = graph.tensors[graph.outputs[0]].nbytes
    arrays = {
        "golden_inputs.npy": np.hstack([each.reshape(count, -1) for each in given]),
        "golden_outputs.npy": answers[: count * size].reshape(count, size),
    }
    contents = {f"bundle/{name}": _npy(array[:GOLDEN_SAMPLES]) for name, array in arrays.items()}
    golden = tuple(sorted(contents))
    for name in build.manifest["files"]:
        contents[f"bundle/{name}"] = (build.path / name).read_bytes()
    return contents, golden, 0


def _input(request: Request, artifact: Artifact, role: str) -> Artifact:
    row = artifact.manifest["inputs"][role]
    return request.store.read(request.store.root / "artifacts" / row["stage"] / row["key"])


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _record(request: Request, artifact: Artifact, linux: bool) -> Mapping[str, Any]:
    """The newest bench record of exactly this artifact on this target."""
    target = request.need_target().name
    if not linux:
        bench = make(request, "bench")
        record: dict[str, Any] = json.loads((bench.path / "record.json").read_text("utf-8"))
        return record | {"when": request.store.made_at(bench)}
    for record in reversed(request.store.records("bench")):
        of = record.get("artifact") or {}
        if of.get("digest") == artifact.digest and record.get("target") == target:
            return record
    raise ArtifactError(
        f"export {artifact.key} was never benched on {target}, and a release needs its bench record; "
        f"run invoke bench --target {target} first"
    )


def _bom(
    request: Request, artifact: Artifact, name: str, version: str, licence: str, bom: Path | None
) -> bytes:
    if bom is not None:
        try:
            data = bom.read_bytes()
        except OSError as error:
            raise ConfigError(f"{bom}: cannot be read ({error.strerror})") from None
        check_bom(data, str(bom))
        return data
    if request.model:
        raise ConfigError(
            f"{request.model.path.name} is your own model, and its data, teacher and licence are not known "
            f"here; add --bom FILE, a CycloneDX ML-BOM in JSON"
        )
    return write_bom(facts_of(provenance(request, artifact), name, version, licence))


def facts_of(walk: Walk, name: str, version: str, licence: str) -> Facts:
    """What the walk from a release's artifact back to its data tells a BOM.

    Raises ArtifactError where an artifact on the way is gone from the store.
    """
    data: dict[str, Origin] = {}
    teachers: dict[str, Origin] = {}
    tools: dict[str, str] = {}
    subject: Artifact | None = None
    for _, found in walk:
        if not isinstance(found, Artifact):
            raise ArtifactError(
                f"{found['stage']} {found['key']} is gone from the store; bench again, for the ML-BOM"
            )
        subject = subject or found
        tools |= dict(found.manifest["tools"])
        if found.stage == "dataset":
            what = found.manifest["params"].get("data", {})
            told = {"rows": str(found.metrics.get("train_samples", ""))}
            data[found.key] = Origin(str(what.get("name") or "data"), str(found.metrics["sha256"]), told)
        elif found.stage == "teacher":
            told = {"artifact": f"{found.stage} {found.key}"}
            network = found.manifest["params"].get("teacher", {}).get("model") or "teacher"
            teachers[found.key] = Origin(str(network), found.digest, told)
    assert subject is not None
    model = Origin(name, _model_digest(subject), {"artifact": f"{subject.stage} {subject.key}"})
    return Facts(name, version, model, tuple(data.values()), tuple(teachers.values()), tools, licence)


def _model_digest(artifact: Artifact) -> str:
    """The SHA-256 of what runs: the int8 model of a bundle (its table where it has none), or the image."""
    for file in (f"{BUNDLE}/int8.onnx", f"{BUNDLE}/bundle.json", "firmware.elf"):
        if (artifact.path / file).is_file():
            return sha256_file(artifact.path / file)
    raise ArtifactError(f"{artifact.stage} {artifact.key}: holds no model; make it again")
