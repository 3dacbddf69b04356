"""Batch norm put back: the same function, trained further, folded to the same again."""

from __future__ import annotations

import pytest
import torch

from edgekd.learn.renorm import renormalised
from edgekd.learn.student import fold
from tests.compress.nets import STUDENTS, samples, student


@pytest.mark.parametrize("model", STUDENTS)
def test_it_is_the_same_function_and_so_is_what_is_folded(model: str) -> None:
    net, x = student(model), samples(student(model), 64)
    normed = renormalised(net, x)
    assert any(isinstance(each, torch.nn.modules.batchnorm._BatchNorm) for each in normed.modules())
    for held in (normed.eval(), fold(normed)):
        assert torch.allclose(held(x[:8]), net(x[:8]), rtol=1e-3, atol=1e-3)


def test_each_norm_starts_from_its_own_statistics() -> None:
    """In training mode, too, the first batch is answered as before: its statistics are those measured."""
    net, x = student("resnet"), samples(student("resnet"), 64)
    assert torch.allclose(renormalised(net, x).train()(x), net(x), rtol=1e-2, atol=1e-2)


def test_a_channel_that_is_always_the_same_divides_by_nothing() -> None:
    net = student("resnet")
    with torch.no_grad():
        net.layers[1].conv.weight[3] = 0
    x = samples(net, 16)
    assert torch.allclose(fold(renormalised(net, x))(x), net(x), rtol=1e-3, atol=1e-3)
