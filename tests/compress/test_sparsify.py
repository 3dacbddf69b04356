"""Sparsity: which weights become zero, and that a training leaves them so."""

from __future__ import annotations

import pytest
import torch

from edgekd.compress.sparsify import largest, sparsify, two_of_four, zero_weights, zeros_kept
from edgekd.errors import UnsupportedOpError
from edgekd.learn.structure import LayerSpec, Structure
from edgekd.learn.training import Schedule, train
from edgekd.recipe import CompressParams
from tests.compress.nets import filled, samples, student


def test_the_smallest_share_goes() -> None:
    weight = torch.tensor([[0.5, -0.1, 0.3], [-2.0, 0.2, -0.3]])
    assert largest(weight, 0.5).tolist() == [[1, 0, 0], [1, 0, 1]]  # of equals the first goes
    assert largest(weight, 0.2).tolist() == [[1, 0, 1], [1, 1, 1]]


def test_two_of_every_four_inputs_stay_at_each_position() -> None:
    weight = torch.tensor([[0.1, -0.4, 0.3, 0.2, 5.0, 1.0, -6.0, 1.0]])
    assert two_of_four(weight).tolist() == [[0, 1, 1, 0, 1, 0, 1, 0]]
    kernels = torch.randn(5, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    mask = two_of_four(kernels)
    assert mask.shape == kernels.shape
    fours = mask.reshape(5, 2, 4, 3, 3).sum(dim=2)
    assert (fours == 2).all()
    kept = (kernels.abs() * mask).reshape(5, 2, 4, 3, 3).amax(dim=2)
    assert torch.equal(kept, kernels.abs().reshape(5, 2, 4, 3, 3).amax(dim=2))


def test_layers_that_do_not_fit_stay_whole() -> None:
    net = student("ds-cnn")
    sparse = sparsify(net, CompressParams(pattern="2:4"))
    zeros = [int((layer.conv.weight == 0).sum()) for layer in sparse.layers[:5]]
    assert zeros == [0, 0, 16 * 24 // 2, 0, 24 * 32 // 2]  # one input; depthwise; pointwise; ...
    share = sparsify(net, CompressParams(sparsity=0.75))
    assert int((share.layers[1].conv.weight == 0).sum()) == 0
    assert int((share.layers[2].conv.weight == 0).sum()) == 16 * 24 * 3 // 4
    assert zero_weights(net) == 0


def test_two_of_four_that_fits_no_layer_is_refused() -> None:
    net = filled(Structure((6,), (LayerSpec("dense", 6, 5, relu=True), LayerSpec("dense", 5, 3))))
    with pytest.raises(UnsupportedOpError, match="2:4 needs layers whose input channels are a multiple of f"):
        sparsify(net, CompressParams(pattern="2:4"))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_zeros_stay_exactly_zero_in_a_training(optimizer: str, ema: float) -> None:
    net = sparsify(student("resnet"), CompressParams(sparsity=0.6))
    zeros = {name: value == 0 for name, value in net.state_dict().items()}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = samples(net, 32)

    def batches(epoch: int, rows: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        return x[rows], (rows % 10,)

    def loss(output: torch.Tensor, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(output, targets[-1])

    plan = Schedule(32, 3, 8, 0.01, 0.1, 1, "sparse", optimizer, ema)
    with zeros_kept(net):
        train(net, batches, loss, plan)
    count = zero_weights(net)
    assert count > 0.5 * sum(spec.weights for spec in net.structure.layers)
    for name, value in net.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(value == 0, zeros[name]) and not torch.equal(value, before[name]), name
    train(net, batches, loss, plan)  # outside, all weights move again
    assert zero_weights(net) < count
