"""Training with the quantizer in place: a folded student, fine-tuned from the stored knowledge.

Batch norm is folded first, so that the weights that are rounded are those of the device. Rounding here
only comes near the integer arithmetic: what the integers answer is judged elsewhere, by the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from edgekd.data import load_dataset
from edgekd.errors import ConfigError, VerifyError
from edgekd.learn.distill import fit, lesson
from edgekd.learn.fakequant import FakeActivation, FakeWeights
from edgekd.learn.losses import student_loss
from edgekd.learn.mix import open_knowledge
from edgekd.learn.structure import INPUT
from edgekd.learn.student import StudentNet, load_student
from edgekd.learn.torch_tools import deterministic, machine_of
from edgekd.learn.training import Watch
from edgekd.qgraph.rounding import Grid
from edgekd.recipe import Recipe

PURPOSE = "qat"


class QuantNet(nn.Module):
    """A folded student whose weights and activations are held as integers would hold them.

    Weights that are zero stay zero: a sparse student stays sparse. bits: of a layer's weights by its name
    ("layers.0.conv", "layers.6"); 8 where it is not named.
    """

    def __init__(self, net: StudentNet, bits: Mapping[str, int]) -> None:
        super().__init__()
        self.net = net
        self.activations = nn.ModuleList(FakeActivation() for _ in range(len(net.layers) + 1))
        self.weights = nn.ModuleDict()
        self.names: dict[int, str] = {}  # a layer's place -> its weights' name within it
        for index, layer in enumerate(net.layers):
            for name, parameter in layer.named_parameters():
                if parameter.ndim > 1:
                    self.names[index] = name
                    wanted = bits.get(f"layers.{index}.{name}".removesuffix(".weight"), 8)
                    convolution = net.structure.layers[index].kind == "conv"
                    self.register_buffer(f"kept_{index}", (parameter != 0).float())
                    self.weights[str(index)] = FakeWeights.start(parameter, wanted, convolution)

    def weight(self, index: int) -> torch.Tensor:
        """A layer's float weights, those that were zero kept at it."""
        return self.net.layers[index].get_parameter(self.names[index]) * self.get_buffer(f"kept_{index}")

    def layer(self, index: int, *taken: torch.Tensor) -> torch.Tensor:
        """The output of one layer, its weights rounded and its output not yet."""
        module = self.net.layers[index]
        held = {}
        if name := self.names.get(index):
            held[name] = self.weights[str(index)](self.weight(index))
        y: torch.Tensor = functional_call(module, held, taken)
        return y

    def taken(self, index: int, outputs: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
        """What layer `index` takes of the layers' outputs; INPUT stands for the network's input."""
        spec = self.net.structure.layers[index]
        found: list[torch.Tensor] = [outputs[self.net.structure.source(index)]]
        return found + ([outputs[spec.other]] if spec.other is not None else [])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = {INPUT: self.activations[0](x)}
        for index in range(len(self.net.layers)):
            x = self.activations[index + 1](self.layer(index, *self.taken(index, outputs)))
            outputs[index] = x
        return x

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Set every activation's range to what the float network shows on `x` [N, ...]."""
        outputs = {INPUT: x}
        self.activations[0].observe(x)  # type: ignore[operator]
        for index, layer in enumerate(self.net.layers):
            outputs[index] = layer(*self.taken(index, outputs))
            self.activations[index + 1].observe(outputs[index])  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A student trained with the quantizer, and its integers' parameters.

    net: the float weights behind the integers. grids: by the weights' name ("layers.0.conv.weight").
    activations: (scale, zero point) of the input and of each layer's output, in order.
    """

    net: StudentNet
    grids: dict[str, Grid]
    activations: tuple[tuple[float, int], ...]
    loss: float


def tuned_of(quantized: QuantNet, loss: float = 0.0) -> Tuned:
    """What a trained network stands for."""
    grids = {}
    for index, name in quantized.names.items():
        parameter = quantized.weight(index).detach()
        quantized.net.layers[index].get_parameter(name).data.copy_(parameter)
        grids[f"layers.{index}.{name}"] = quantized.weights[str(index)].grid(parameter)  # type: ignore[operator]
    found = [each.grid() for each in quantized.activations]  # type: ignore[operator]
    return Tuned(quantized.net.eval(), grids, tuple((float(s), int(z)) for s, z in found), loss)


def tune_quantized(
    student_dir: Path,
    dataset_dir: Path,
    knowledge_dir: Path,
    recipe: Recipe,
    bits: Mapping[str, int],
    *,
    watch: Watch = Watch(),  # noqa: B008  (frozen)
) -> Tuned:
    """Fine-tune a student with [quantize]'s epochs and learning rate, the rest as in [distill].

    bits: of the weights by layer, as QuantNet takes them. Ranges start from the calibration split. Raises
    VerifyError for knowledge that the student was not distilled from, ConfigError for an unknown layer.
    """
    data, student = load_dataset(dataset_dir), load_student(student_dir)
    knowledge = open_knowledge(knowledge_dir, data)
    if student.knowledge_sha256 != knowledge.sha256:
        raise VerifyError(
            f"{student_dir} was distilled from other knowledge than {knowledge_dir}; distill it again"
        )
    params = recipe.quantize
    tuning = dataclasses.replace(recipe.distill, epochs=params.epochs, learning_rate=params.learning_rate)
    taught, machine, samples = lesson(knowledge, data), machine_of(recipe), len(knowledge.ids)
    with deterministic(recipe.threads):
        net = QuantNet(student.net, bits)
        unknown = sorted(set(bits) - {name.removesuffix(".weight") for name in tuned_of(net).grids})
        if unknown:
            raise ConfigError(
                f"the student has no layer {unknown[0]!r} with weights; mend quantize.layer_bits"
            )
        net.calibrate(torch.from_numpy(data.part("calibration")[0]))
        loss = student_loss(tuning)
        last = fit(net, taught.batches, loss, tuning, samples, recipe.seed, watch, PURPOSE, machine)
        return tuned_of(net, last)
