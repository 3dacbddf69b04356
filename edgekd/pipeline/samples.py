"""The samples that a model is calibrated with and judged on, from a recipe's data set or a user's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError
from edgekd.qgraph.edges import quantize_input
from edgekd.qgraph.ir import QGraph, Tensor
from edgekd.store import Artifact

Array = npt.NDArray[np.generic]
PROBE_SAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Samples:
    """x: [N, ...] in the model file's layout (ONNX: NCHW, .tflite: NHWC); y: int64 [N]; `split` names it."""

    x: Array
    y: npt.NDArray[np.int64]
    split: str
    classes: tuple[str, ...]

    def floats(self) -> npt.NDArray[np.float32]:
        """x as float32; ArtifactError where it holds quantized integers."""
        if self.x.dtype.kind != "f":
            raise ArtifactError(f"the data is {self.x.dtype}, already quantized; this needs x as float32")
        return self.x.astype(np.float32)


def test_samples(artifact: Artifact, limit: int | None, split: str = "test") -> Samples:
    """The first `limit` samples of the test split (or of `split`), or of the user's x and y."""
    from edgekd.data import load_dataset, load_user_data

    if artifact.stage == "userdata":
        data = load_user_data(artifact.path / "userdata.npz")
        return Samples(data.x[:limit], data.y[:limit], "user data", ())
    dataset = load_dataset(artifact.path)
    x, y = dataset.part(split)
    return Samples(x[:limit], y[:limit], split, dataset.classes)


def calibration_samples(artifact: Artifact) -> npt.NDArray[np.float32]:
    """The calibration split, or the user's x_calibration: never the samples that a model is judged on."""
    from edgekd.data import load_dataset, load_user_data

    if artifact.stage != "userdata":
        return load_dataset(artifact.path).part("calibration")[0]
    found = load_user_data(artifact.path / "userdata.npz").x_calibration
    if found is None:
        raise ArtifactError(
            "the --data file has no array x_calibration, which a float model is quantized with; "
            "save some training samples under that name (never those of x)"
        )
    return found


def graph_inputs(graph: QGraph, samples: Samples, channels_first: bool) -> list[Array]:
    """`samples` as the integers that `graph` takes: NHWC, quantized as TFLite's QUANTIZE does it.

    Raises ArtifactError where the shapes do not fit, naming both.
    """
    if len(graph.inputs) != 1:
        raise ArtifactError(f"{graph.name} has {len(graph.inputs)} inputs; --data serves models of one input")
    tensor = graph.tensors[graph.inputs[0]]
    x = samples.x
    if channels_first and x.ndim == 4:
        x = np.moveaxis(x, 1, -1)
    if x.shape[1:] != tensor.shape[1:]:
        expected = _layout(tensor, channels_first)
        raise ArtifactError(
            f"{graph.name}: the data has samples of shape {samples.x.shape[1:]} and the model takes "
            f"{expected}; save them in the model's own shape"
        )
    if x.dtype == np.dtype(tensor.dtype):
        return [np.ascontiguousarray(x)]
    if x.dtype.kind != "f":
        raise ArtifactError(
            f"{graph.name}: the data is {x.dtype} and the model takes {tensor.dtype} or float32"
        )
    return [quantize_input(x.astype(np.float32), tensor)]


def probe_inputs(graph: QGraph, limit: int | None) -> list[Array]:
    """Seeded inputs where no data is given: a third each uniform, near the zero point, extremes."""
    count = limit or PROBE_SAMPLES
    return [_probe(graph.tensors[i], count, seed) for seed, i in enumerate(graph.inputs)]


def float_accuracy(model: bytes, samples: Samples) -> float:
    """The float ONNX model's accuracy on the same samples, by ONNX Runtime on this machine."""
    from edgekd.export.onnx_session import run_onnx

    return float((run_onnx(model, samples.floats()).argmax(axis=1) == samples.y).mean())


def finds_anomalies(graph: QGraph, y: npt.NDArray[np.int64]) -> bool:
    """Whether the model gives its input again, and the labels say which samples are normal (0) or not (1)."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return False
    taken, given = (graph.tensors[i].shape for i in (graph.inputs[0], graph.outputs[0]))
    return int(np.prod(taken)) == int(np.prod(given)) and set(y.tolist()) == {0, 1}


def int8_auc(graph: QGraph, x: Array, outputs: Array, y: npt.NDArray[np.int64]) -> float:
    """AUC of the squared distance between samples x (float, or the model's integers) and int8 outputs."""
    from edgekd.evaluate.roc import anomaly_scores, auc
    from edgekd.qgraph.edges import dequantize_output

    taken, given = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    real = x.astype(np.float32) if x.dtype.kind == "f" else dequantize_output(x, taken)
    return auc(y, anomaly_scores(real, dequantize_output(outputs, given))).value


def float_auc(model: bytes, samples: Samples) -> float:
    """The same of the float ONNX model, by ONNX Runtime on this machine."""
    from edgekd.evaluate.roc import anomaly_scores, auc
    from edgekd.export.onnx_session import run_onnx

    return auc(samples.y, anomaly_scores(samples.floats(), run_onnx(model, samples.floats()))).value


def top1(graph: QGraph, outputs: Sequence[Array]) -> npt.NDArray[np.int64]:
    """The class of each sample: the first largest value of the first output."""
    classes: npt.NDArray[np.int64] = np.argmax(outputs[0].reshape(len(outputs[0]), -1), axis=1)
    return classes


def _layout(tensor: Tensor, channels_first: bool) -> tuple[int, ...]:
    shape = tensor.shape[1:]
    return (shape[-1], *shape[:-1]) if channels_first and len(shape) == 3 else shape


def _probe(tensor: Tensor, count: int, seed: int) -> Array:
    random = np.random.Generator(np.random.Philox(seed))
    info = np.iinfo(tensor.dtype)
    shape = (count, *tensor.shape[1:])
    values = random.integers(info.min, info.max + 1, shape)
    near = np.clip(tensor.zero_point + random.integers(-4, 5, shape), info.min, info.max)
    ends = np.where(random.integers(0, 2, shape) == 1, info.max, info.min)
    kind = (np.arange(count) % 3).reshape(-1, *[1] * (len(shape) - 1))
    return np.choose(kind, [values, near, ends]).astype(tensor.dtype)
