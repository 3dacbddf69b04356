"""Small students with weights, that tests of compression share: residual, depthwise, dense."""

from __future__ import annotations

import torch

from edgekd.learn.structure import MODELS, Structure
from edgekd.learn.student import StudentNet
from edgekd.learn.torch_tools import initialise
from edgekd.recipe import StudentParams
from edgekd.recipe.blocks import BlockParams

_LIMITS = {"max_weight_bytes": 10**7, "max_macs": 10**9}
STUDENTS = {
    "resnet": (
        StudentParams(model="resnet", channels=(16, 16, 24, 32), strides=(1, 1, 2, 2), **_LIMITS),
        (3, 9, 10),
    ),
    "ds-cnn": (
        StudentParams(model="ds-cnn", channels=(16, 24, 32), strides=(1, 2, 1), **_LIMITS),
        (1, 8, 8),
    ),
    "blocks": (
        StudentParams(
            model="blocks",
            blocks=(
                BlockParams("shrink", stride=2),
                BlockParams("conv", 16),
                BlockParams("residual", 16),
                BlockParams("bottleneck", 32, stride=2, expansion=2),
                BlockParams("inverted", 32, expansion=2),
                BlockParams("fused", 32, expansion=2, repeat=2),
                BlockParams("separable", 24),
            ),
            **_LIMITS,
        ),
        (3, 18, 14),
    ),
    "autoencoder": (StudentParams(model="autoencoder", channels=(32, 24, 8, 32), **_LIMITS), (40,)),
}


def student(model: str, seed: int = 1) -> StudentNet:
    """A folded student of STUDENTS with random weights and biases."""
    params, shape = STUDENTS[model]
    return filled(MODELS[model](params, shape, 10), seed)


def filled(structure: Structure, seed: int = 1) -> StudentNet:
    net = StudentNet(structure, normalised=False)
    initialise(net, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return net.eval()


def samples(net: StudentNet, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, *net.structure.input_shape, generator=generator)
