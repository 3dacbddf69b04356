"""Fake quantization by hand, and a student trained with it against the integer reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.errors import ConfigError
from edgekd.evaluate.metrics import agreement
from edgekd.export.torch_to_onnx import export_net
from edgekd.learn.distill import new_student
from edgekd.learn.fakequant import FakeActivation, FakeWeights
from edgekd.learn.qat import QuantNet, Tuned, tune_quantized, tuned_of
from edgekd.learn.structure import MODELS
from edgekd.learn.student import fold, load_student
from edgekd.learn.torch_tools import predict
from edgekd.learn.training import Watch
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run, run_all
from edgekd.quantize.ptq import quantize_onnx
from edgekd.quantize.trained import Trained
from edgekd.recipe import QuantizeParams, Recipe, StudentParams
from tests.learn.chain import Chain

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "ADD")


def integers_of(tuned: Tuned, calibration: Any, out: Path) -> QGraph:
    """The graph in the integers of a trained student."""
    trained = Trained(tuned.grids, tuned.activations)
    model = export_net(tuned.net, tuned.net.structure.input_shape)
    quantize_onnx(model, calibration, QuantizeParams(method="qat"), out, trained=trained, bits={})
    return read_onnx((out / "int8.onnx").read_bytes(), "int8.onnx")


def training(chain: Chain, **table: Any) -> Recipe:
    return dataclasses.replace(chain.recipe, quantize=QuantizeParams(method="qat", **table))


def paths(chain: Chain) -> tuple[Path, Path, Path]:
    return chain.compressed, chain.data, chain.knowledge


def test_an_activation_by_hand() -> None:
    """-1 .. 3: s = 4 / 255, z = round(-128 + 255 / 4) = -64; 5 is clipped to 191 s."""
    fake = FakeActivation().eval()
    fake.observe(torch.tensor([-1.0, 3.0, 0.0]))
    scale, zero_point = fake.grid()
    assert float(scale) == pytest.approx(4 / 255) and int(zero_point) == -64
    x = torch.tensor([0.0, 0.5, 5.0, -9.0], requires_grad=True)
    y = fake(x)
    assert (y / scale).tolist() == pytest.approx([0, 32, 191, -64])
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 1, 0, 0]


def test_an_activation_follows_what_it_sees_in_training() -> None:
    fake = FakeActivation()
    fake.observe(torch.tensor([0.0, 2.0]))
    fake(torch.tensor([1.0, 4.0]))
    assert (float(fake.low), float(fake.high)) == pytest.approx((0.0, 2 + 0.01 * 2))
    fake.eval()(torch.tensor([100.0]))
    assert float(fake.high) == pytest.approx(2.02)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_fake_weights_are_what_the_integers_stand_for(bits: int, per_channel: bool) -> None:
    torch.manual_seed(0)
    weights = torch.randn(6, 3, 3, 3) * torch.arange(1, 7)[:, None, None, None]
    fake = FakeWeights.start(weights, bits, per_channel)
    grid = fake.grid(weights)
    assert grid.bits == bits and grid.scales.size == (6 if per_channel else 1)
    assert np.allclose(fake(weights).numpy(), grid.values(weights.numpy()), atol=1e-6)


def test_weights_through_any_table() -> None:
    """Entries -100, -10, 0, 10, 100 at a scale of 0.01: the slope is 1 inside -1 .. 1 and 0 outside."""
    table = np.array([-100, -10, 0, 10, 100], np.int8)
    fake = FakeWeights(table, torch.tensor([0.005]))
    weights = torch.tensor([[2.0, 0.3, -0.6, 0.04, -0.08]], requires_grad=True)
    y = fake(weights)
    assert y.tolist()[0] == pytest.approx([1.0, 0.1, -1.0, 0.0, -0.1])
    y.sum().backward()
    assert weights.grad is not None and weights.grad.tolist() == [[0, 1, 1, 1, 1]]


def _worst_steps(net: QuantNet, graph: QGraph, x: Any) -> list[int]:
    """For each layer, fed with the reference's own input, the largest difference of its output in steps."""
    seen = run_all(graph, [np.ascontiguousarray(x.transpose(0, 2, 3, 1))])

    def real(index: int) -> torch.Tensor:
        tensor = graph.tensors[index]
        held = (seen[index].astype(np.float32) - tensor.zero_point) * tensor.scale[0]
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(held, -1, 1) if held.ndim == 4 else held))

    ops = {float(graph.tensors[op.outputs[0]].scale[0]): op for op in graph.ops if op.kind in LAYERS}
    assert len(ops) == len(net.net.layers)
    worst = []
    for index, (scale, _) in enumerate(tuned_of(net).activations[1:]):
        op = ops[scale]
        taken = op.inputs if op.kind == "ADD" else op.inputs[:1]
        with torch.no_grad():
            y = net.activations[index + 1](net.layer(index, *map(real, taken)))
        difference = (y - real(op.outputs[0]).reshape(y.shape)) / float(graph.tensors[op.outputs[0]].scale[0])
        worst.append(round(float(difference.abs().max())))
    return worst


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("model", ["ds-cnn", "resnet"])
def test_each_layer_is_within_a_step_of_the_reference(model: str, bits: int, tmp_path: Path) -> None:
    params = StudentParams(model=model, channels=(8, 12), strides=(1, 2), max_macs=10**7)
    net = fold(new_student(MODELS[model](params, (2, 9, 7), 5), 3).eval())
    random = np.random.Generator(np.random.Philox(1))
    for parameter in net.parameters():  # batch norm's offsets are zero in a new student
        if parameter.ndim == 1:
            parameter.data += torch.from_numpy(random.normal(size=len(parameter)) / 4).float()
    x = random.normal(size=(32, 2, 9, 7)).astype(np.float32)
    names = tuned_of(QuantNet(net, {})).grids
    quantized = QuantNet(net, {name.removesuffix(".weight"): bits for name in names})
    quantized.calibrate(torch.from_numpy(x))
    graph = integers_of(tuned_of(quantized.eval()), x, tmp_path)
    assert max(_worst_steps(quantized, graph, x)) <= 1


def _net_of(tuned: Tuned, bits: Mapping[str, int], calibration: Any) -> QuantNet:
    """The fake-quantized network with a trained student's own ranges."""
    net = QuantNet(tuned.net, bits)
    for fake, (scale, zero_point) in zip(net.activations, tuned.activations, strict=True):
        assert isinstance(fake, FakeActivation)
        fake.low.fill_((-128 - zero_point) * scale)
        fake.high.fill_((127 - zero_point) * scale)
    return net.eval()


def test_a_trained_student_and_its_integers_agree(chain: Chain, tmp_path: Path) -> None:
    """Over the whole network 99.5 % of the top classes, on every sample that did not calibrate."""
    data = load_dataset(chain.data)
    parts = [data.part(name) for name in ("test", "validation", "train")]
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    tuned = tune_quantized(*paths(chain), training(chain, epochs=40, learning_rate=0.01), {})
    calibration = data.part("calibration")[0]
    graph = integers_of(tuned, calibration, tmp_path)
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    answers = run(graph, [nhwc])[0]
    faked = predict(_net_of(tuned, {}, calibration), x)
    assert len(y) > 1600 and agreement(answers, faked) >= 0.995
    # Where they part, the classes' logits lie a step apart.
    chosen = np.take_along_axis(answers, faked.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (chosen > answers.max(axis=1) - 1.5 * tuned.activations[-1][0]).mean() >= 0.999
    before = run(read_onnx(chain.int8.read_bytes(), "a"), [nhwc])[0]
    assert (answers.argmax(axis=1) == y).mean() > (before.argmax(axis=1) == y).mean() - 0.02


def test_training_gives_two_bits_their_accuracy_back(chain: Chain, tmp_path: Path) -> None:
    data = load_dataset(chain.data)
    (x, y), calibration = data.part("test"), data.part("calibration")[0]
    quantize_onnx(chain.model.read_bytes(), calibration, QuantizeParams(weight_bits=2), tmp_path)
    graphs = [read_onnx((tmp_path / "int8.onnx").read_bytes(), "ptq")]
    bits = {"layers.2.conv": 2, "layers.4.conv": 2, "layers.0.conv": 2, "layers.1.conv": 2}
    bits |= {"layers.3.conv": 2, "layers.6": 2}
    graphs.append(
        integers_of(tune_quantized(*paths(chain), training(chain, epochs=4), bits), calibration, tmp_path)
    )
    rows = [run(g, [np.ascontiguousarray(x.transpose(0, 2, 3, 1))])[0] for g in graphs]
    measured, trained = ((each.argmax(axis=1) == y).mean() for each in rows)
    assert trained > measured + 0.03
    stored = [t.encoding.stored_bits for t in graphs[1].tensors if t.encoding is not None]
    assert stored == [2] * 6


def test_a_killed_training_continues_to_the_same_integers(chain: Chain, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(label: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Killed

    recipe = training(chain, epochs=2)
    whole = tune_quantized(*paths(chain), recipe, {"layers.6": 4})
    with pytest.raises(Killed):
        tune_quantized(*paths(chain), recipe, {"layers.6": 4}, watch=Watch(kill, tmp_path))
    assert (tmp_path / "qat.safetensors").is_file()
    again = tune_quantized(*paths(chain), recipe, {"layers.6": 4}, watch=Watch(work=tmp_path))
    assert again.activations == whole.activations and again.loss == whole.loss
    for name, grid in whole.grids.items():
        assert np.array_equal(grid.scales, again.grids[name].scales)
    for one, two in zip(whole.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weights_that_are_zero_stay_zero(chain: Chain) -> None:
    net = QuantNet(load_student(chain.compressed).net, {})
    net.calibrate(torch.rand(4, 1, 8, 8))
    net.get_buffer("kept_2")[:8] = 0
    net(torch.rand(4, 1, 8, 8)).sum().backward()
    weights = net.net.layers[2].conv.weight
    assert weights.grad[:8].abs().max() == 0 < weights.grad[8:].abs().max()
    assert tuned_of(net).net.layers[2].conv.weight[:8].abs().max() == 0


def test_bits_of_a_layer_that_is_not_there(chain: Chain) -> None:
    with pytest.raises(ConfigError, match=r"no layer 'layers.9.conv' with weights"):
        tune_quantized(*paths(chain), training(chain, epochs=1), {"layers.9.conv": 4})
