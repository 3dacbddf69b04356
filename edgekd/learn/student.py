"""The student in torch: built from a Structure, folded for the device, saved and read without pickles.

Directory: `student.json` (structure, classes, origin) and `student.safetensors` (batch norm folded).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgekd.errors import ArtifactError
from edgekd.learn.branches import Branches, affine
from edgekd.learn.structure import INPUT, LayerSpec, Structure
from edgekd.learn.torch_tools import files_sha256, fill, load_weights, save_weights
from edgekd.qgraph.ops import same_padding

SCHEMA = 1


class PaddedConv(nn.Module):
    """A convolution with SAME padding (the odd pixel below and right), then batch norm, then ReLU.

    Without batch norm (the folded form) the convolution has a bias. branched: others beside it while it is
    trained (edgekd.learn.branches).
    """

    def __init__(
        self, spec: LayerSpec, height: int, width: int, normalised: bool, branched: bool = False
    ) -> None:
        super().__init__()
        top, bottom = same_padding(height, spec.kernel, spec.stride, 1)
        left, right = same_padding(width, spec.kernel, spec.stride, 1)
        self.even = top == bottom and left == right
        self.pads = (left, right, top, bottom)
        self.conv = nn.Conv2d(
            spec.inputs,
            spec.outputs,
            spec.kernel,
            stride=spec.stride,
            padding=(top, left) if self.even else 0,
            groups=spec.groups,
            bias=not normalised,
        )
        self.norm = nn.BatchNorm2d(spec.outputs) if normalised else None
        self.branches = Branches(spec, top, left) if branched and normalised and spec.kernel > 1 else None
        self.relu = spec.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x if self.even else functional.pad(x, self.pads))
        if self.branches is not None:
            y = self.branches(y, functional.pad(x, self.pads))
        if self.norm is not None:
            y = self.norm(y)
        return functional.relu(y) if self.relu else y

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight, bias) of the one convolution that equals convolution and batch norm in evaluation mode."""
        if self.norm is None:
            assert self.conv.bias is not None
            return self.conv.weight, self.conv.bias
        gain, offset = affine(self.norm)
        if self.branches is None:
            return self.conv.weight * gain[:, None, None, None], offset
        weight, bias = self.branches.folded(self.conv.weight)
        return weight * gain[:, None, None, None], offset + bias * gain


class Dense(nn.Linear):
    """A dense layer, then batch norm where it is `normalised` and has a ReLU, then the ReLU."""

    def __init__(self, spec: LayerSpec, normalised: bool) -> None:
        normalised = normalised and spec.relu
        super().__init__(spec.inputs, spec.outputs, bias=not normalised)
        self.norm = nn.BatchNorm1d(spec.outputs) if normalised else None
        self.relu = spec.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        if self.norm is not None:
            y = self.norm(y)
        return functional.relu(y) if self.relu else y

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(weight, bias) of the one layer that equals this and its batch norm in evaluation mode."""
        if self.norm is None:
            return self.weight, self.bias
        gain, offset = affine(self.norm)
        return self.weight * gain[:, None], offset


class GlobalPool(nn.Module):
    """Mean over height and width: [N, C, H, W] to [N, C]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class Sum(nn.Module):
    """Two activations added, then ReLU where `relu`."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + y) if self.relu else x + y


class StudentNet(nn.Module):
    """The layers of `structure`; `normalised`: batch norm behind each convolution, for training.

    branched: convolutions larger than 1 x 1 have others beside them while they are trained.
    """

    def __init__(self, structure: Structure, normalised: bool, branched: bool = False) -> None:
        super().__init__()
        self.structure = structure
        self.layers = nn.ModuleList()
        # torch fills new layers from its global generator; ours are filled by `initialise` or from a file.
        with torch.random.fork_rng(devices=[]):
            self._append_layers(normalised, branched)

    def _append_layers(self, normalised: bool, branched: bool) -> None:
        for index, spec in enumerate(self.structure.layers):
            if spec.kind == "conv":
                self.layers.append(PaddedConv(spec, *self.structure.size_before(index), normalised, branched))
            elif spec.kind == "pool":
                self.layers.append(GlobalPool())
            elif spec.kind == "add":
                self.layers.append(Sum(spec.relu))
            else:
                self.layers.append(Dense(spec, normalised))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = {INPUT: x}
        for index, layer in enumerate(self.layers):
            spec = self.structure.layers[index]
            taken = [outputs[self.structure.source(index)]]
            if spec.other is not None:
                taken.append(outputs[spec.other])
            outputs[index] = layer(*taken)
        return outputs[len(self.layers) - 1]


def fold(net: StudentNet) -> StudentNet:
    """The same function with batch norm and branches folded into the layers; `net` must be trained."""
    folded = StudentNet(net.structure, normalised=False)
    with torch.no_grad():
        for before, after in zip(net.layers, folded.layers, strict=True):
            if isinstance(before, PaddedConv | Dense) and isinstance(after, PaddedConv | Dense):
                weight, bias = before.folded()
                module = after.conv if isinstance(after, PaddedConv) else after
                module.weight.copy_(weight)
                assert module.bias is not None
                module.bias.copy_(bias)
    return folded.eval()


@dataclass(frozen=True, eq=False)
class Student:
    """A trained student with batch norm folded. sha256: of its two files."""

    net: StudentNet
    classes: tuple[str, ...]
    dataset_sha256: str
    knowledge_sha256: str
    sha256: str


def save_student(
    net: StudentNet, classes: tuple[str, ...], dataset_sha256: str, knowledge_sha256: str, out: Path
) -> None:
    """Write a folded student into `out`."""
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "classes": list(classes),
        "dataset_sha256": dataset_sha256,
        "knowledge_sha256": knowledge_sha256,
        "weight_bytes": net.structure.weight_bytes,
        "macs": net.structure.macs,
        "structure": net.structure.to_json(),
    }
    (out / "student.json").write_text(json.dumps(header, indent=1, sort_keys=True) + "\n", "utf-8")
    save_weights(net.state_dict(), out / "student.safetensors")


def load_student(directory: Path) -> Student:
    """Read what `save_student` wrote. Raises ArtifactError when it is absent or broken."""
    path = directory / "student.safetensors"
    digest = files_sha256(directory / "student.json", path)
    try:
        header = json.loads((directory / "student.json").read_text("utf-8"))
        classes = tuple(header["classes"])
        origin = str(header["dataset_sha256"]), str(header["knowledge_sha256"])
        structure = Structure.from_json(header["structure"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{directory}/student.json is not readable ({error}); distill it again") from None
    net = StudentNet(structure, normalised=False)
    fill(net, load_weights(path), path)
    return Student(net.eval(), classes, *origin, digest)
