"""Students made of blocks: what each kind is, how stages follow each other, and what cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.errors import BudgetError, ConfigError
from edgekd.learn.structure import MODELS, Structure, mobilenet, residual
from edgekd.learn.student import StudentNet
from edgekd.learn.torch_tools import initialise
from edgekd.recipe import StudentParams, load_recipe
from edgekd.recipe.blocks import BLOCKS, BlockParams

LIMITS = {"max_weight_bytes": 10**7, "max_macs": 10**9}
SHAPE = (3, 12, 10)


def built(*blocks: BlockParams, shape: tuple[int, ...] = SHAPE) -> Structure:
    return MODELS["blocks"](StudentParams(model="blocks", blocks=blocks, **LIMITS), shape, 5)


def test_residual_stages_are_the_resnet() -> None:
    params = StudentParams(model="resnet", channels=(16, 16, 32, 64), strides=(1, 1, 2, 2), **LIMITS)
    stages = [BlockParams("residual", 16), BlockParams("residual", 32, 2), BlockParams("residual", 64, 2)]
    assert built(BlockParams("conv", 16), *stages) == residual(params, SHAPE, 5)


def test_separable_stages_are_the_mobilenet() -> None:
    params = StudentParams(model="mobilenet", width=0.25, **LIMITS)
    rows = [(16, 1, 1), (32, 2, 1), (32, 1, 1), (64, 2, 1), (64, 1, 1)]
    rows += [(128, 2, 1), (128, 1, 5), (256, 2, 1), (256, 1, 1)]
    stages = [BlockParams("separable", channels, stride, repeat=repeat) for channels, stride, repeat in rows]
    assert built(BlockParams("conv", 8, 2), *stages) == mobilenet(params, SHAPE, 5)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
def test_each_kind_gives_what_it_says(kind: str, stride: int) -> None:
    """Shapes in torch are those that the structure says; a stage's second block has no stride."""
    if kind == "shrink" and stride == 1:
        return
    block = BlockParams(kind, 8, stride, kernel=3, expansion=2, repeat=1 if kind == "shrink" else 2)
    structure = built(BlockParams("conv", 8), block)
    net = StudentNet(structure, normalised=True)
    initialise(net, 1)
    seen: dict[int, tuple[int, ...]] = {}
    for index, layer in enumerate(net.layers):
        layer.register_forward_hook(lambda m, x, y, index=index: seen.update({index: tuple(y.shape[1:])}))
    assert net(torch.zeros(2, *SHAPE)).shape == (2, 5)
    for index, (spec, size) in enumerate(zip(structure.layers, structure.sizes, strict=True)):
        assert seen[index] == ((spec.outputs,) if spec.kind in ("pool", "dense") else (spec.outputs, *size))
    assert structure.sizes[len(structure.layers) - 3] == (12 // stride, 10 // stride)


@pytest.mark.parametrize(("inputs", "stride", "sums"), [(8, 1, 2), (8, 2, 1), (4, 1, 1)])
@pytest.mark.parametrize("kind", ["inverted", "fused"])
def test_a_sum_stands_where_shapes_allow(kind: str, inputs: int, stride: int, sums: int) -> None:
    layers = built(BlockParams("conv", inputs), BlockParams(kind, 8, stride, expansion=2, repeat=2)).layers
    assert sum(layer.kind == "add" for layer in layers) == sums


def test_its_limits_are_hard_and_name_its_keys() -> None:
    params = StudentParams(model="blocks", blocks=(BlockParams("conv", 8),), max_weight_bytes=10)
    with pytest.raises(BudgetError, match=r"allows 10; take fewer channels in student\.blocks"):
        MODELS["blocks"](params, SHAPE, 5)


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ('model = "blocks"', r"\[\[student.blocks\]\] belongs to student.model blocks"),
        ('blocks = [{ kind = "conv" }]', "the model is ds-cnn; give both, or neither"),
        ('model = "blocks"\nblocks = [{ kind = "invertd" }]', r"blocks\[0\].kind .* did you mean inverted"),
        ('model = "blocks"\nblocks = [{ chanels = 8 }]', "did you mean channels"),
        ('model = "blocks"\nblocks = [{ kind = "shrink" }]', "shrink of 1 pixel does nothing"),
        (
            'model = "blocks"\nblocks = [{ kind = "bottleneck", channels = 9, expansion = 2 }]',
            "9 channels are no multiple of expansion 2",
        ),
    ],
)
def test_blocks_that_cannot_be(tmp_path: Path, student: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(f'name = "bad"\ndescription = "x"\n[student]\n{student}\n')
    with pytest.raises(ConfigError, match=said):
        load_recipe("bad", [tmp_path])
