"""ONNX Runtime's quantizer, told what TFLite's specification asks for: Q and DQ nodes in a float model."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.export.torch_to_onnx import strip_metadata
from edgekd.quantize.overrides import (
    Overrides,
    affine,
    fixed_overrides,
    free_activations,
    tied_overrides,
)
from edgekd.quantize.ranges import COSTS, observed_ranges
from edgekd.recipe import QuantizeParams

Floats = npt.NDArray[np.float32]

# Operators that both ONNX Runtime's quantizer and the reader of QDQ models know.
SUPPORTED = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pad",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Sub",
    "Tanh",
    "Unsqueeze",
)


def quantize_model(
    model: Any, calibration: Floats, params: QuantizeParams, given: Overrides | None = None
) -> Any:
    """The QDQ onnx.ModelProto of a checked float onnx.ModelProto.

    given: scales of activations that are known already, by tensor.
    """
    fixed = fixed_overrides(model) | (given or {})
    quantized = _run(model, calibration, params, fixed)
    if params.ranges in COSTS and not given:
        ranges = observed_ranges(model, free_activations(model, quantized), calibration, params.ranges)
        fixed |= {name: [affine(*found)] for name, found in ranges.items()}
        quantized = _run(model, calibration, params, fixed)
    tied = tied_overrides(model, quantized)
    if tied:
        quantized = _run(model, calibration, params, fixed | tied, keep_activations=True)
    strip_metadata(quantized)
    return quantized


def _run(
    model: Any,
    calibration: Floats,
    params: QuantizeParams,
    overrides: Mapping[str, Any],
    keep_activations: bool = False,
) -> Any:
    """keep_activations: a tied range may reach below the 0 of a ReLU, which must then stay in the model."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization.quantize import quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            name = model.graph.input[0].name
            self.rows = iter([{name: calibration[i : i + 1]} for i in range(len(calibration))])

        def get_next(self) -> dict[str, Floats] | None:
            return next(self.rows, None)

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    method = methods.get(params.ranges, CalibrationMethod.MinMax)
    options: dict[str, Any] = {"TensorQuantOverrides": dict(overrides), "ForceQuantizeNoInputCheck": True}
    options["QDQKeepRemovableActivations"] = keep_activations
    if params.ranges == "percentile":
        options["CalibPercentile"] = params.percentile
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as work, _quiet_log():
        path = Path(work) / "int8.onnx"
        quantize_static(
            copy,
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(SUPPORTED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options=options,
        )
        return onnx.load(str(path))


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """onnxruntime.quantization advises its own pre-processing on the root logger; ours has been done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
