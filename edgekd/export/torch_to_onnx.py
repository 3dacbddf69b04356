"""torch to ONNX: exported, simplified, stripped of where it was made, and held to what torch computes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import VerifyError
from edgekd.progress import Progress, silent

OPSET = 18
TOLERANCE = 1e-4  # largest absolute difference of a logit between torch and ONNX Runtime
_COMPARED_SAMPLES = 64

Floats = npt.NDArray[np.float32]


def export_student(
    student_dir: Path, dataset_dir: Path, out: Path, *, progress: Progress = silent
) -> dict[str, Any]:
    """Stage: write the student as `model.onnx` (batch 1, NCHW, opset 18) into `out`.

    Returns its size and the largest difference from torch on validation samples. Raises VerifyError
    beyond 1e-4.
    """
    from edgekd.data import load_dataset
    from edgekd.learn.student import load_student

    student, data = load_student(student_dir), load_dataset(dataset_dir)
    progress("export", 0, 2)
    model = export_net(student.net, student.net.structure.input_shape)
    progress("export", 1, 2)
    samples = data.part("validation")[0][:_COMPARED_SAMPLES]
    difference = check_equal(student.net, model, samples)
    (out / "model.onnx").write_bytes(model)
    progress("export", 2, 2)
    return {"model_bytes": len(model), "largest_difference_from_torch": difference}


def export_net(net: Any, input_shape: tuple[int, ...]) -> bytes:
    """The ONNX bytes of the torch module `net` for one float32 input [1, *input_shape] named "input"."""
    import torch

    net.eval()
    with _quiet():
        program = torch.onnx.export(
            net,
            (torch.zeros(1, *input_shape),),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=["input"],
            output_names=["logits"],
            verbose=False,
        )
    if program is None:
        raise VerifyError("torch exported nothing for this network; use layers that ONNX opset 18 has")
    data: bytes = simplify(program.model_proto).SerializeToString(deterministic=True)
    return data


def simplify(model: Any) -> Any:
    """The onnx.ModelProto after onnxsim, without any trace of the machine or the source it came from.

    Raises ArtifactError when the model is broken.
    """
    import onnx
    import onnxsim

    from edgekd.errors import ArtifactError

    try:
        with _quiet():
            model, same = onnxsim.simplify(model)
        _hoist_constants(model)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (
        RuntimeError,
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(
            f"the ONNX model cannot be simplified ({detail}); check it with onnx.checker"
        ) from None
    if not same:
        raise VerifyError("onnxsim changed what the ONNX model computes; export it again with fixed shapes")
    strip_metadata(model)
    return model


def _hoist_constants(model: Any) -> None:
    """Constant nodes (older exporters write them) become initializers, in place."""
    from onnx import numpy_helper

    kept = []
    for node in model.graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or tensor is None:
            kept.append(node)
            continue
        model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensor), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def strip_metadata(model: Any) -> None:
    """Remove doc strings and metadata (the exporter writes stack traces) from the model in place."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    for part in (graph, *graph.node, *graph.initializer, *values):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]


def check_equal(net: Any, model: bytes, samples: Floats) -> float:
    """The largest absolute difference between torch and ONNX Runtime on `samples` float32 [N, C, H, W].

    Raises VerifyError beyond 1e-4.
    """
    from edgekd.export.onnx_session import run_onnx
    from edgekd.learn.torch_tools import predict

    difference = float(np.abs(predict(net, samples) - run_onnx(model, samples)).max())
    if not difference <= TOLERANCE:
        raise VerifyError(
            f"the exported ONNX differs from torch by {difference:.2g} in a logit, {TOLERANCE:g} is allowed; "
            "export with layers that ONNX Runtime computes alike"
        )
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress prints, warnings or log lines from the exporters; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
