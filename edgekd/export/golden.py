"""Golden outputs: what each variant of a model answers on this machine, and how far a device may be from it.

A variant whose arithmetic is integer throughout has exact ones, by the integer reference. The others have
their own engine's, by the runtime that is installed here, and a tolerance in quantization steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, MissingDependencyError

INT8_TOLERANCE_STEPS = 2  # kernels of other processors round a product's half otherwise
FLOAT_TOLERANCE_STEPS = 100  # of 1e-5 of the largest output: the order of float additions is the kernel's own

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Golden:
    """outputs [G, ...]: float32, or integers where `is_exact`; step: of the output's quantization."""

    outputs: npt.NDArray[Any]
    is_exact: bool
    step: float
    tolerance_steps: int
    by: str  # runtime and version


def onnx_golden(data: bytes, x: Floats, tolerance_steps: int, *, is_float: bool) -> Golden:
    """ONNX Runtime's, one sample at a time as on the device; x: float32 [G, ...] in the model's layout.

    Raises ArtifactError for a model that takes other samples or answers numbers that are not finite.
    """
    import onnxruntime

    outputs = _finite(_onnx_outputs(data, x))
    largest = float(np.abs(outputs).max()) or 1.0
    by = f"onnxruntime {onnxruntime.__version__}"
    if is_float:
        return Golden(outputs, False, largest * 1e-5, FLOAT_TOLERANCE_STEPS, by)
    return Golden(outputs, False, _output_step(data) or largest / 255, tolerance_steps, by)


def litert_golden(data: bytes, x: Floats, step: float, tolerance_steps: int) -> Golden:
    """LiteRT's with XNNPACK, as on the device; x: float32 [G, ...] in NHWC; step: the output's scale.

    Raises MissingDependencyError without the package ai-edge-litert, ArtifactError as onnx_golden does.
    """
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingDependencyError(
            "the variant litert needs LiteRT; install it: pip install ai-edge-litert"
        ) from None
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    _same_shape(list(taken["shape"]), [1, *x.shape[1:]])
    rows = []
    for sample in x:
        interpreter.set_tensor(taken["index"], sample[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"]))
    outputs = _finite(np.concatenate(rows).astype(np.float32))
    by = f"ai-edge-litert {getattr(ai_edge_litert, '__version__', 'unknown')}"
    return Golden(outputs, False, step, tolerance_steps, by)


def exact_golden(outputs: npt.NDArray[np.generic], step: float) -> Golden:
    """The integer reference's own integers: any other byte is a fault."""
    return Golden(outputs, True, step, 0, "edgekd's integer reference")


def parse_onnx(data: bytes) -> Any:
    """An onnx.ModelProto; ArtifactError when the bytes are none."""
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


def constants(graph: Any) -> dict[str, Any]:
    """Every constant tensor of an onnx.GraphProto by name: initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def _onnx_outputs(data: bytes, x: Floats) -> npt.NDArray[Any]:
    from edgekd.export.onnx_session import session

    runner = session(data)
    inputs, outputs = runner.get_inputs(), runner.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        raise ArtifactError(
            f"the model has {len(inputs)} inputs (first: {inputs[0].type}) and {len(outputs)} outputs; "
            f"a bundle needs one float32 input and one output"
        )
    _same_shape(list(inputs[0].shape), [1, *x.shape[1:]])
    return np.concatenate([runner.run(None, {inputs[0].name: x[i : i + 1]})[0] for i in range(len(x))])


def _same_shape(shape: list[Any], given: list[int]) -> None:
    fixed = [(int(a), b) for a, b in zip(shape, given, strict=False) if not isinstance(a, str | None)]
    if len(shape) != len(given) or any(a != b for a, b in fixed):
        raise ArtifactError(f"the model takes {shape} and a sample is {given}; give samples of its shape")


def _finite(outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(outputs.astype(np.float64)).all():
        raise ArtifactError("the model answers numbers that are not finite on the bundle's samples; mend it")
    return outputs


def _output_step(data: bytes) -> float | None:
    """The scale of the DEQUANTIZE in front of the output; None when the output is behind a float op."""
    graph = parse_onnx(data).graph
    import onnx

    output = graph.output[0]
    if output.type.tensor_type.elem_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
        return 1.0
    known = constants(graph)
    for node in graph.node:
        if output.name in node.output and node.op_type == "DequantizeLinear" and node.input[1] in known:
            return float(onnx.numpy_helper.to_array(known[node.input[1]]).max())
    return None
