"""Teachers of others' making: a function of the project that gives a torch network, or an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekd.data.arrays import find_function, importable
from edgekd.data.pixels import CENTRE, STEP
from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError


def from_function(name: str, code: Path, channels: int, classes: int) -> nn.Module:
    """The network that `package.module:function` gives for (channels, classes).

    code: the module's file. The function may load weights of its own. Raises ConfigError.
    """
    module = name.partition(":")[0]
    with importable(code.parents[module.count(".") + (code.name == "__init__.py")]):
        function = find_function(name)
        try:
            net = function(channels, classes)
        except Exception as error:
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{name} raised {type(error).__name__}: {detail}; mend it") from None
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{name} returned {type(net).__name__}; return a torch.nn.Module that gives logits")
    return net


def as_wanted(x: torch.Tensor, unit: bool) -> torch.Tensor:
    """float32: samples as the data set feeds them, or (unit) their pixels in 0 .. 1."""
    return (x.float() * STEP + CENTRE) / 255 if unit else x.float()


def batch_size(wanted: Sequence[Any], shape: Sequence[int], where: str) -> int:
    """How many of `shape`'s samples a model takes at once whose input is `wanted`: integers, or free axes.

    Raises ArtifactError where the samples do not fit.
    """
    pairs = zip(wanted[1:], shape[1:], strict=False)
    if len(wanted) != len(shape) or any(isinstance(want, int) and want != have for want, have in pairs):
        raise ArtifactError(
            f"{where} takes {list(wanted)} and the samples are {tuple(shape[1:])}; export it anew"
        )
    size = wanted[0] if isinstance(wanted[0], int) else shape[0]
    if size < 1 or shape[0] % size:
        raise ArtifactError(f"{where} has the fixed batch {size}; export it with batch 1 or a free one")
    return int(size)


def refuse_other_classes(shape: Sequence[int], samples: int, classes: int, where: str) -> None:
    """Raise ArtifactError where logits of `shape` are not [samples, classes]."""
    if tuple(shape) != (samples, classes):
        raise ArtifactError(f"{where} gives {tuple(shape[1:])} a sample; the data set has {classes} classes")


class OnnxNet(nn.Module):
    """An ONNX model with one input [N, C, H, W] and logits as its first output; it predicts only.

    unit: it wants pixels in 0 .. 1 rather than as the data set feeds them. A model whose batch is fixed to
    one is asked sample by sample.
    """

    def __init__(self, model: bytes, unit: bool, classes: int, where: str) -> None:
        super().__init__()
        self.session = _session(model, where)
        self.unit, self.classes, self.where = unit, classes, where
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise ArtifactError(f"{where} takes {len(inputs)} inputs; export it with one, the image")
        self.name, self.shape = inputs[0].name, inputs[0].shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples = np.ascontiguousarray(as_wanted(x, self.unit).cpu().numpy())
        size = batch_size(self.shape, samples.shape, self.where)
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        logits = np.concatenate([self.session.run(None, {self.name: part})[0] for part in parts])
        refuse_other_classes(logits.shape, len(samples), self.classes, self.where)
        return torch.from_numpy(logits.astype(np.float32)).to(x.device)


def _session(model: bytes, where: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "an ONNX teacher needs onnxruntime; install it with: pip install 'edgekd[learn]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{where} is not a model that ONNX Runtime loads ({detail[:160]})") from None
