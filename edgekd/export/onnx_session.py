"""ONNX Runtime on this machine: one thread, deterministic, errors in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, MissingDependencyError

Floats = npt.NDArray[np.float32]


def session(model: bytes) -> Any:
    """An onnxruntime.InferenceSession of `model`. Raises ArtifactError when it cannot be loaded."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "running an ONNX model needs onnxruntime; install it with: pip install 'edgekd[learn]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"ONNX Runtime cannot load the model ({detail}); export it again") from None


def run_onnx(model: bytes, x: Floats) -> Floats:
    """First output, float32 [N, ...], of a model with one input and batch 1, for `x` float32 [N, ...]."""
    runner = session(model)
    inputs = runner.get_inputs()
    if len(inputs) != 1 or list(inputs[0].shape[1:]) != list(x.shape[1:]):
        raise ArtifactError(
            f"the model takes {[i.shape for i in inputs]} and the samples are {x.shape[1:]}; "
            "give it its own shape"
        )
    name = inputs[0].name
    rows = [runner.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]
    return np.concatenate(rows).astype(np.float32)
