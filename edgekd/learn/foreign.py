"""Teachers of others' making: a function of the project that gives a torch network, or an ONNX file."""

from __future__ import annotations

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
        fed = (x.float() * STEP + CENTRE) / 255 if self.unit else x.float()
        samples = np.ascontiguousarray(fed.cpu().numpy())
        if any(
            isinstance(want, int) and want != have
            for want, have in zip(self.shape[1:], x.shape[1:], strict=False)
        ):
            raise ArtifactError(
                f"{self.where} takes {self.shape} and the samples are {tuple(x.shape[1:])}; export it anew"
            )
        size = len(samples) if not isinstance(self.shape[0], int) else self.shape[0]
        if len(samples) % size:
            raise ArtifactError(
                f"{self.where} has the fixed batch {size}; export it with batch 1 or a free one"
            )
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        logits = np.concatenate([self.session.run(None, {self.name: part})[0] for part in parts])
        if logits.shape != (len(samples), self.classes):
            raise ArtifactError(
                f"{self.where} gives {logits.shape[1:]} a sample; the data set has {self.classes} classes"
            )
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
