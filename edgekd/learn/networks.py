"""Teachers' networks by name: a small convnet for tiny images, an autoencoder for vectors, and the CIFAR
ResNets that have checkpoints.

Every network takes samples as the data set gives them; those that were trained on otherwise scaled images
rescale in their first layer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from edgekd.data.pixels import CENTRE, STEP
from edgekd.learn.foreign import from_function

# Mean and deviation of ImageNet's channels, which the published CIFAR ResNets were trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convnet(channels: int, classes: int, width: int) -> nn.Module:
    """Four 3 x 3 convolutions with batch norm, a pool between them and a global one behind."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width),
        *block(width, width),
        nn.MaxPool2d(2),
        *block(width, 2 * width),
        *block(2 * width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def autoencoder(channels: int, classes: int, width: int) -> nn.Module:
    """Vectors of `channels` numbers through two layers of `width`, a quarter of it, and back."""
    widths = (channels, width, width, max(1, width // 4), width, width)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, channels))


class Rescale(nn.Module):
    """From (byte - 128) / 64 to (byte / 255 - mean) / deviation, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
        gain, offset = STEP / 255 / deviation, (CENTRE / 255 - mean) / deviation
        self.register_buffer("gain", gain.reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.get_buffer("gain") + self.get_buffer("offset")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without weights ("option A": subsampled, padded with zeros)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing or self.stride != 1:
            half = self.missing // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, half, self.missing - half))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """He et al. 2015 (arXiv 1512.03385), section 4.2: 6 n + 2 layers for RGB images of 32 x 32.

    Names of weights are those of the checkpoints of akamaster/pytorch_resnet_cifar10 (BSD-3-Clause).
    """

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.rescale = Rescale()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
        later = [ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        return nn.Sequential(ResidualBlock(inputs, outputs, stride), *later)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(self.rescale(x))))
        y = self.layer3(self.layer2(self.layer1(y)))
        logits: torch.Tensor = self.linear(y.mean(dim=(2, 3)))
        return logits


def _resnet(blocks: int) -> Callable[[int, int, int], nn.Module]:
    return lambda channels, classes, width: CifarResNet(blocks, classes)


# Name in a recipe -> network of (input channels, classes, width).
NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "autoencoder": autoencoder,
    "convnet": convnet,
    "resnet20": _resnet(3),
    "resnet56": _resnet(9),
}


def build(name: str, channels: int, classes: int, width: int, code: str = "") -> nn.Module:
    """A network whose weights are still to be filled; torch's global generator is not moved by it.

    name: of NETWORKS, or "package.module:function", whose module lies in the file `code`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if ":" in name:
            return from_function(name, Path(code), channels, classes)
        return NETWORKS[name](channels, classes, width)
