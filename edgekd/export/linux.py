"""The Linux bundle: one immutable directory with all that a device needs to run, check and choose a model.

bundle.json names every other file with its sha256 and size; docs/formats/linux.md has the format. The
golden outputs are computed when the bundle is written, on this machine (golden.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, ConfigError
from edgekd.export.golden import INT8_TOLERANCE_STEPS, constants, onnx_golden, parse_onnx
from edgekd.export.variants import IntegerModel, Variant, architecture_of, integer_variants
from edgekd.progress import Progress, silent

SCHEMA = 2
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
ACTIVATIONS = ("int8", "uint8")

Floats = npt.NDArray[np.float32]


def write_bundle(
    out: Path,
    *,
    name: str,
    float_onnx: bytes | None,
    int8_onnx: bytes | None,
    activation: str,
    labels: Sequence[str] | None,
    samples_x: Floats,
    samples_y: npt.NDArray[np.integer[Any]] | None,
    split: str,
    golden_count: int,
    preprocessing: Mapping[str, Any],
    integer: IntegerModel | None = None,
    reference: tuple[str, npt.NDArray[Any]] | None = None,
    max_accuracy_drop: float = 0.02,
    tolerance_steps: int = INT8_TOLERANCE_STEPS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the directory `out` (absent or empty) whole or not at all; returns what bundle.json holds.

    Args:
        name: of the model: lower case letters, digits, `_`, `.` and `-`; releases are called by it.
        float_onnx, int8_onnx: models with one float32 input and one output, batch 1 or free; or None.
        activation: type of `int8_onnx`'s activations, "int8" or "uint8" (edgekd.quantize.activation
            converts); the bytes are held to it.
        samples_x: float32 [N, ...] in the ONNX models' layout (NCHW for images), N >= 1.
        samples_y: class indices, or 0 and 1 where `reference` holds anomaly scores, integers [N]; None when
            there is no accuracy to measure.
        split: the name of the data split that the samples are.
        golden_count: outputs of the first so many samples are stored, to be compared on the device.
        preprocessing: what was done to a raw sample, as JSON.
        integer: the forms made of the int8 graph: `.tflite` and compiled C.
        reference: what a variant's accuracy is held to: "float" or "int8", and that model's answers on all
            samples: classes int64 [N], or anomaly scores float64 [N].
        max_accuracy_drop: the accuracy budget of the choice on the device, of 1.
        tolerance_steps: allowed difference of an int8 output on the device, in its quantization steps.

    Raises ArtifactError for models or samples that do not fit together, ConfigError for a bad name.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"bundle name {name!r}: use lower case letters, digits, '_', '.' and '-'")
    _check_samples(samples_x, samples_y, golden_count)
    if int8_onnx is not None:
        _check_activation(int8_onnx, activation)
    inputs = samples_x[:golden_count]
    models = {"int8": int8_onnx, "float": float_onnx}
    found = _onnx_variants(models, activation, inputs, tolerance_steps, progress)
    if integer is not None:
        found += integer_variants(integer, inputs, tolerance_steps)
    progress("golden outputs", len(models) + 1, len(models) + 1)
    if not found:
        raise ArtifactError(f"bundle {name} would hold no model; name at least one variant that can be made")
    contents = _contents(found, samples_x, samples_y, reference)
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "edgekd-bundle",
        "name": name,
        "variants": {each.name: _variant_entry(each) for each in found},
        "input": {"shape": [1, *samples_x.shape[1:]], "dtype": "float32", "layout": "NCHW"},
        "labels": None if labels is None else list(labels),
        "preprocessing": dict(preprocessing),
        "split": split,
        "samples": {
            "x": "samples_x.npy",
            "y": None if samples_y is None else "samples_y.npy",
            "count": len(samples_x),
            "metric": _metric(samples_y, reference),
        },
        "reference": None if reference is None else {"of": reference[0], "file": "reference.npy"},
        "budget": {"max_accuracy_drop": max_accuracy_drop},
        "runtime": {"python": ">=3.11"},
        "files": {file: _entry(data) for file, data in sorted(contents.items())},
    }
    _write(out, contents, table)
    return table


def _onnx_variants(
    models: Mapping[str, bytes | None], activation: str, x: Floats, tolerance_steps: int, progress: Progress
) -> list[Variant]:
    """The ONNX files that are there, with what they answer to `x`. models: "int8" and "float"."""
    found = []
    for done, (name, data) in enumerate(models.items()):
        progress("golden outputs", done, len(models) + 1)
        if data is not None:
            golden = onnx_golden(data, x, tolerance_steps, is_float=name == "float")
            kind = activation if name == "int8" else "float32"
            found.append(Variant(name, "onnxruntime", {f"{name}.onnx": data}, kind, "NCHW", golden))
    return found


def _contents(
    variants: Sequence[Variant],
    samples_x: Floats,
    samples_y: npt.NDArray[np.integer[Any]] | None,
    reference: tuple[str, npt.NDArray[Any]] | None,
) -> dict[str, bytes]:
    """File name -> bytes of all but bundle.json."""
    contents = {"samples_x.npy": _npy(np.ascontiguousarray(samples_x))}
    if samples_y is not None:
        contents["samples_y.npy"] = _npy(np.asarray(samples_y, dtype=np.int64))
    if reference is not None:
        contents["reference.npy"] = _npy(_checked_reference(reference[1], len(samples_x)))
    for each in variants:
        contents |= {**each.files, f"golden_{each.name}.npy": _npy(each.golden.outputs)}
    return contents


def _variant_entry(variant: Variant) -> dict[str, Any]:
    """The variant's row of bundle.json; `files` by architecture where each has its own, else under `any`."""
    golden = variant.golden
    rule = {"step": golden.step, "tolerance_steps": golden.tolerance_steps, "exact": golden.is_exact}
    return {
        "engine": variant.engine,
        "files": {architecture_of(file): file for file in variant.files},
        "activation": variant.activation,
        "layout": variant.layout,
        "golden": {"file": f"golden_{variant.name}.npy", "by": golden.by, **rule},
    }


def _metric(y: npt.NDArray[Any] | None, reference: tuple[str, npt.NDArray[Any]] | None) -> str | None:
    """What the samples are scored by: accuracy, auc, agreement with the reference, or nothing."""
    is_scored = reference is not None and reference[1].dtype.kind == "f"
    if y is not None:
        return "auc" if is_scored else "accuracy"
    return "agreement" if reference is not None and not is_scored else None


def _checked_reference(answers: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    if answers.shape != (count,) or answers.dtype not in (np.int64, np.float64):
        raise ArtifactError(
            f"the reference's answers are {answers.dtype} {list(answers.shape)}; they must be int64 or "
            f"float64 [{count}]"
        )
    return answers


def bundle_name(text: str) -> str:
    """A name that a bundle may have, made of any text: `ResNet 8 (best)` gives `resnet-8-best`."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-._")[:64] or "model"


def read_bundle(directory: Path) -> dict[str, Any]:
    """What bundle.json of `directory` holds, after every file was held to its size and sha256.

    Raises ArtifactError naming the file that is missing, changed or no bundle.
    """
    path = directory / "bundle.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        known = (
            table["schema"] == SCHEMA and table["kind"] == "edgekd-bundle" and NAME.fullmatch(table["name"])
        )
        files = dict(table["files"])
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); export the bundle again") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path}: not a bundle's table; export the bundle again") from None
    if not known:
        raise ArtifactError(f"{path}: not a bundle of schema {SCHEMA}; export it with this edgekd")
    for file, entry in files.items():
        if not FILE_NAME.fullmatch(file) or not isinstance(entry, dict):
            raise ArtifactError(f"{path}: names the file {file!r} outside the bundle; export it again")
        if not (directory / file).is_file():
            raise ArtifactError(f"{directory / file}: missing from the bundle; export it again")
        if _entry((directory / file).read_bytes()) != entry:
            raise ArtifactError(
                f"{directory / file}: not what was written there (sha256 differs); export it again"
            )
    return dict(table)


def _check_samples(x: Floats, y: npt.NDArray[np.integer[Any]] | None, golden_count: int) -> None:
    if x.dtype != np.float32 or x.ndim < 2 or not len(x):
        raise ArtifactError(f"samples are {x.dtype} {x.shape}; a bundle needs float32 [N, ...] with N >= 1")
    if not np.isfinite(x).all():
        raise ArtifactError("samples hold numbers that are not finite; mend the data")
    if y is not None and (y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer)):
        raise ArtifactError(
            f"labels of the samples are {y.dtype} {y.shape}; they must be integers [{len(x)}]"
        )
    if not 1 <= golden_count <= len(x):
        raise ArtifactError(f"{golden_count} golden samples of {len(x)}; it must be from 1 to {len(x)}")


def _check_activation(data: bytes, activation: str) -> None:
    """Hold the types of the activations' zero points to what the bundle will say."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation {activation!r} does not exist; use {' or '.join(ACTIVATIONS)}")
    graph = parse_onnx(data).graph
    import onnx

    known = constants(graph)
    quantizers = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in known]
    names = {n.input[2] for n in quantizers if len(n.input) > 2}
    types = {onnx.TensorProto.DataType.Name(known[name].data_type).lower() for name in names & set(known)}
    if types != {activation}:
        found = " and ".join(sorted(types)) or "no quantized"
        raise ArtifactError(f"the int8 model has {found} activations, not {activation}; convert it first")


def _npy(array: npt.NDArray[Any]) -> bytes:
    """The array as the bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _entry(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def _write(out: Path, contents: Mapping[str, bytes], table: Mapping[str, Any]) -> None:
    """All files into a directory beside `out`, then one rename."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(
            f"{out}: exists and is not empty, and a bundle is never changed; name another place"
        )
    try:
        text = json.dumps(table, indent=1, sort_keys=True) + "\n"
    except TypeError as error:
        raise ArtifactError(f"preprocessing or labels cannot be written as JSON: {error}") from None
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        for file, data in contents.items():
            (fresh / file).write_bytes(data)
        (fresh / "bundle.json").write_text(text, encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        os.rename(fresh, out)
    except OSError as error:
        raise ArtifactError(
            f"{out}: cannot be written ({error.strerror}); mend that and export again"
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
