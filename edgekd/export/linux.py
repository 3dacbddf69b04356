"""The Linux bundle: one immutable directory with all that a device needs to run and check a model.

bundle.json names every other file with its sha256 and size; docs/formats/linux.md has the format. The
golden outputs are computed here, by ONNX Runtime on this machine, when the bundle is written.
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

from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError
from edgekd.progress import Progress, silent

SCHEMA = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
ACTIVATIONS = ("int8", "uint8")
INT8_TOLERANCE_STEPS = 2  # kernels of other processors round a product's half otherwise
FLOAT_TOLERANCE_STEPS = 100  # of 1e-5 of the largest output: the order of float additions is the kernel's own

Floats = npt.NDArray[np.float32]


def write_bundle(
    out: Path,
    *,
    name: str,
    float_onnx: bytes | None,
    int8_onnx: bytes,
    activation: str,
    labels: Sequence[str] | None,
    samples_x: Floats,
    samples_y: npt.NDArray[np.integer[Any]] | None,
    split: str,
    golden_count: int,
    preprocessing: Mapping[str, Any],
    tolerance_steps: int = INT8_TOLERANCE_STEPS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the directory `out` (absent or empty) whole or not at all; returns what bundle.json holds.

    Args:
        name: of the model: lower case letters, digits, `_`, `.` and `-`; releases are called by it.
        float_onnx, int8_onnx: models with one float32 input and one output, batch 1 or free.
        activation: type of `int8_onnx`'s activations, "int8" or "uint8" (edgekd.quantize.activation
            converts); the bytes are held to it.
        samples_x: float32 [N, ...] in the model's own layout (NCHW for images), N >= 1.
        samples_y: class indices, integers [N]; None when there is no accuracy to measure.
        split: the name of the data split that the samples are.
        golden_count: outputs of the first so many samples are stored, to be compared on the device.
        preprocessing: what was done to a raw sample, as JSON.
        tolerance_steps: allowed difference of an int8 output on the device, in its quantization steps.

    Raises ArtifactError for models or samples that do not fit together, ConfigError for a bad name.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"bundle name {name!r}: use lower case letters, digits, '_', '.' and '-'")
    _check_samples(samples_x, samples_y, golden_count)
    _check_activation(int8_onnx, activation)
    models = {"int8": int8_onnx} if float_onnx is None else {"int8": int8_onnx, "float": float_onnx}
    contents = {"samples_x.npy": _npy(np.ascontiguousarray(samples_x))}
    if samples_y is not None:
        contents["samples_y.npy"] = _npy(np.asarray(samples_y, dtype=np.int64))
    variants: dict[str, Any] = {}
    for done, (variant, data) in enumerate(models.items()):
        progress("golden outputs", done, len(models))
        golden = _golden(data, samples_x[:golden_count])
        contents |= {f"{variant}.onnx": data, f"golden_{variant}.npy": _npy(golden)}
        step, tolerance = _rule(variant, data, golden, tolerance_steps)
        rule = {"file": f"golden_{variant}.npy", "step": step, "tolerance_steps": tolerance}
        kind = activation if variant == "int8" else "float32"
        variants[variant] = {"file": f"{variant}.onnx", "activation": kind, "golden": rule}
    progress("golden outputs", len(models), len(models))
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "edgekd-bundle",
        "name": name,
        "variants": variants,
        "input": {"shape": [1, *samples_x.shape[1:]], "dtype": "float32"},
        "labels": None if labels is None else list(labels),
        "preprocessing": dict(preprocessing),
        "split": split,
        "samples": {
            "x": "samples_x.npy",
            "y": None if samples_y is None else "samples_y.npy",
            "count": len(samples_x),
        },
        "runtime": {"engine": "onnxruntime", "python": ">=3.11", "golden_by": _runtime_version()},
        "files": {file: _entry(data) for file, data in sorted(contents.items())},
    }
    _write(out, contents, table)
    return table


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


def _parse(data: bytes) -> Any:
    """An onnx.ModelProto."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependencyError(
            "writing a bundle needs onnx; install it with: pip install 'edgekd[learn]'"
        ) from None
    try:
        return onnx.load_model_from_string(data)
    except DecodeError:
        raise ArtifactError("the model is not valid ONNX; export it again") from None


def _constants(graph: Any) -> dict[str, Any]:
    """Every constant tensor by name: initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def _check_activation(data: bytes, activation: str) -> None:
    """Hold the types of the activations' zero points to what the bundle will say."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation {activation!r} does not exist; use {' or '.join(ACTIVATIONS)}")
    graph = _parse(data).graph
    import onnx

    constants = _constants(graph)
    quantizers = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    names = {n.input[2] for n in quantizers if len(n.input) > 2}
    types = {
        onnx.TensorProto.DataType.Name(constants[name].data_type).lower() for name in names & set(constants)
    }
    if types != {activation}:
        found = " and ".join(sorted(types)) or "no quantized"
        raise ArtifactError(f"the int8 model has {found} activations, not {activation}; convert it first")


def _golden(data: bytes, x: Floats) -> Floats:
    """Outputs [N, ...] of one model, one sample at a time as on the device."""
    from edgekd.export.onnx_session import session

    runner = session(data)
    inputs, outputs = runner.get_inputs(), runner.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        raise ArtifactError(
            f"the model has {len(inputs)} inputs (first: {inputs[0].type}) and {len(outputs)} outputs; "
            f"a bundle needs one float32 input and one output"
        )
    shape, given = list(inputs[0].shape), [1, *x.shape[1:]]
    if len(shape) != len(given) or any(
        isinstance(a, int) and a != b for a, b in zip(shape, given, strict=True)
    ):
        raise ArtifactError(f"the model takes {shape} and a sample is {given}; give samples of its shape")
    rows = [runner.run(None, {inputs[0].name: x[i : i + 1]})[0] for i in range(len(x))]
    golden = np.concatenate(rows)
    if not np.isfinite(golden.astype(np.float64)).all():
        raise ArtifactError("the model answers numbers that are not finite on the bundle's samples; mend it")
    return golden


def _rule(variant: str, data: bytes, golden: Floats, tolerance_steps: int) -> tuple[float, int]:
    """The output's quantization step and the tolerance in steps."""
    largest = float(np.abs(golden).max()) or 1.0
    if variant == "float":
        return largest * 1e-5, FLOAT_TOLERANCE_STEPS
    return _output_step(data) or largest / 255, tolerance_steps


def _output_step(data: bytes) -> float | None:
    """The scale of the DEQUANTIZE in front of the output; None when the output is behind a float op."""
    graph = _parse(data).graph
    import onnx

    output = graph.output[0]
    if output.type.tensor_type.elem_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
        return 1.0
    constants = _constants(graph)
    for node in graph.node:
        if output.name in node.output and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            return float(onnx.numpy_helper.to_array(constants[node.input[1]]).max())
    return None


def _runtime_version() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


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
