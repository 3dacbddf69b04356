"""Post-training quantization: a float ONNX model and calibration samples become an int8 QDQ model.

The integers follow TFLite's int8 specification: activations asymmetric int8 per tensor, weights
symmetric int8 in -127 .. 127, one scale an output channel for convolutions and one a tensor for dense
layers, biases int32 with scale s_in * s_w, equal scales where an operator cannot rescale. Here, and
nowhere else, scales and zero points are decided.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.export.torch_to_onnx import simplify
from edgekd.progress import Progress, silent
from edgekd.qgraph.rounding import Grid, grid_of
from edgekd.quantize.equalize import correct_biases, equalize
from edgekd.quantize.integers import with_integers
from edgekd.quantize.layers import constant, layers_of
from edgekd.quantize.mixed import layer_bits, report
from edgekd.quantize.plot import sensitivity_svg
from edgekd.quantize.qdq import SUPPORTED, quantize_model
from edgekd.quantize.shared import shared_bits
from edgekd.quantize.trained import Trained, trained_overrides
from edgekd.recipe import QuantizeParams

Floats = npt.NDArray[np.float32]

MIN_CALIBRATION_SAMPLES = 10
MIN_OPSET = 13


def quantize_onnx(
    model: bytes,
    calibration: Floats,
    params: QuantizeParams,
    out: Path,
    *,
    progress: Progress = silent,
    trained: Trained | None = None,
    bits: Mapping[str, int] | None = None,
    shared: Mapping[str, Grid] | None = None,
) -> dict[str, Any]:
    """Stage: write `int8.onnx`, the QDQ form of the float ONNX `model`, into `out`.

    calibration: float32 [N, ...] in the model's layout, from the calibration split and no other. trained:
    scales of a student trained with the quantizer, in place of measured ones. bits: of each layer's weights,
    as `find_bits` gave them; absent: found here. shared: the grids of weights that were trained with their
    tables, by name; they are taken over as they are. Returns sizes and counts. Raises ArtifactError (broken
    model, unusable calibration), UnsupportedOpError (an operator, or a dynamic shape), ConfigError (an
    unknown layer), BudgetError (weights that no choice of bits makes small enough) or VerifyError (weights
    that do not stand in their tables).
    """
    progress("quantize", 0, 2)
    floating = checked(model, calibration)
    progress("quantize", 1, 2)
    metrics: dict[str, Any] = {}
    if trained is None and not params.refined and not shared:
        quantized = quantize_model(floating, calibration, params)
        data: bytes = quantized.SerializeToString(deterministic=True)
    else:
        if params.equalize:
            metrics["equalized_pairs"] = equalize(floating)
        bits = find_bits(floating, calibration, params, out) if bits is None else bits
        grids = trained.grids if trained else _grids(floating, bits, params)
        if shared:
            grids, bits = {**grids, **shared}, {**bits, **shared_bits(floating, shared)}
        if params.bias_correction:
            correct_biases(floating, grids, calibration)
        given = trained_overrides(floating, trained) if trained else {}
        quantized = quantize_model(floating, calibration, params, given)
        data = with_integers(quantized, floating, grids, params.bias_guard)
        metrics["bits"] = dict(bits)
    (out / "int8.onnx").write_bytes(data)
    progress("quantize", 2, 2)
    sizes = {"model_bytes": len(data), "float_bytes": len(model), "calibration_samples": len(calibration)}
    return sizes | metrics


def checked(model: bytes, calibration: Floats) -> Any:
    """The simplified onnx.ModelProto of a float `model` that can be quantized with these samples.

    Raises what `quantize_onnx` does for a model or samples that cannot.
    """
    floating = _load(model)
    check_supported(floating)
    check_calibration(floating, calibration)
    return floating


def find_bits(model: Any, calibration: Floats, params: QuantizeParams, out: Path) -> dict[str, int]:
    """Bits of each layer's weights; `sensitivity.json` and `.svg` in `out` where a budget decides them."""
    bits, rows = layer_bits(model, calibration, params)
    if rows:
        text = json.dumps(report(rows, bits), indent=1) + "\n"
        (out / "sensitivity.json").write_text(text, "utf-8")
        (out / "sensitivity.svg").write_text(sensitivity_svg(rows, bits), "utf-8")
    return bits


def _grids(model: Any, bits: Mapping[str, int], params: QuantizeParams) -> dict[str, Grid]:
    """The grid of each layer's weights, by their name."""
    found = {}
    for layer in layers_of(model):
        weights = constant(model, layer.weights)
        axis = layer.axis if layer.per_channel else None
        found[layer.weights] = grid_of(weights, bits[layer.name], axis, params.scale_floor)
    return found


def check_supported(model: Any) -> None:
    """Raise UnsupportedOpError for a dynamic shape, or an operator not in SUPPORTED, by name and shapes."""
    shapes = _shapes(model)
    for value in model.graph.input:
        if any(extent is None for extent in shapes.get(value.name, (None,))):
            shown = ", ".join("?" if e is None else str(e) for e in shapes.get(value.name, (None,)))
            raise UnsupportedOpError(
                f"input {value.name!r} has the dynamic shape [{shown}]; "
                "export the model with fixed shapes and batch 1"
            )
        if shapes[value.name][0] != 1:
            raise UnsupportedOpError(
                f"input {value.name!r} has batch {shapes[value.name][0]}; export the model with batch 1"
            )
    for node in model.graph.node:
        if node.op_type not in SUPPORTED or node.domain not in ("", "ai.onnx"):
            raise UnsupportedOpError(
                f"layer {node.name or node.output[0]!r}: operator {node.op_type} "
                f"({_signature(node, shapes)}) cannot be quantized; supported: {', '.join(SUPPORTED)}"
            )


def check_calibration(model: Any, calibration: Floats) -> None:
    """Raise ArtifactError unless `calibration` fits the model's one input and says something about ranges."""
    if len(model.graph.input) != 1:
        names = ", ".join(value.name for value in model.graph.input)
        raise UnsupportedOpError(
            f"the model has {len(model.graph.input)} inputs ({names}); give one with one input"
        )
    shape = _shapes(model)[model.graph.input[0].name]
    if calibration.ndim != len(shape) or calibration.shape[1:] != shape[1:]:
        raise ArtifactError(
            f"calibration samples have shape {calibration.shape[1:]} and the model takes {shape[1:]}; "
            "save them in the model's own layout"
        )
    if len(calibration) < MIN_CALIBRATION_SAMPLES:
        raise ArtifactError(
            f"{len(calibration)} calibration samples are too few to find ranges; "
            f"give at least {MIN_CALIBRATION_SAMPLES}, better 100 to 500"
        )
    if not np.isfinite(calibration).all():
        raise ArtifactError("a calibration sample holds NaN or infinity; remove it")
    if (calibration == calibration[:1]).all():
        raise ArtifactError(
            "all calibration samples are equal, which gives no ranges; give different real samples"
        )


def _load(model: bytes) -> Any:
    """The simplified float model. Raises ArtifactError when `model` is not ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        parsed = onnx.load_model_from_string(model)
        onnx.checker.check_model(parsed)
    except (DecodeError, onnx.checker.ValidationError) as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"the model is not valid ONNX ({detail}); export it again") from None
    _static_inputs_only(parsed)
    parsed = _new_enough(parsed)
    if not parsed.graph.node:
        raise ArtifactError("the ONNX model holds no layer; export it again")
    return simplify(parsed)


def _new_enough(model: Any) -> Any:
    """The model in opset 13 at least, which scales by channel need."""
    import onnx

    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset >= MIN_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, MIN_OPSET)
    except RuntimeError as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedOpError(
            f"the model is of ONNX opset {opset} and cannot be converted to {MIN_OPSET} ({detail}); "
            f"export it with opset {MIN_OPSET} or newer"
        ) from None


def _static_inputs_only(model: Any) -> None:
    """Old exporters list weights as inputs too; leave only what a caller must feed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _shapes(model: Any) -> dict[str, tuple[int | None, ...]]:
    """Every known tensor's shape; None where an extent is dynamic."""
    shapes: dict[str, tuple[int | None, ...]] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        extents = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in extents
        )
    return shapes


def _signature(node: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    def show(names: Any) -> str:
        return ", ".join("x".join(str(e) for e in shapes.get(name, ("?",))) for name in names if name)

    return f"{show(node.input)} -> {show(node.output)}"
