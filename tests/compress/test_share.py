"""Shared weights of a trained student: tables all the way to generated kernels, and what cannot be shared."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.compress import compress_student
from edgekd.compress.gate import Gate
from edgekd.compress.share import FILE, load_tables, plans, save_tables, sharing
from edgekd.compress.shared_net import Plan, SharedNet, SharedWeights
from edgekd.compress.sparsify import zero_weights
from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.export.torch_to_onnx import export_student
from edgekd.learn.student import StudentNet, load_student
from edgekd.learn.torch_tools import save_weights
from edgekd.learn.training import Watch
from edgekd.mcu.codegen import generate
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.footprint import predict
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import find_compiler
from edgekd.qgraph.edges import quantize_input, strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.reference import run
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import CompressParams, GateParams, LayerEntries, Recipe
from tests.compress.nets import samples, student
from tests.learn.chain import Chain
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import pack, write


def recipe_of(chain: Chain, epochs: int = 10, **table: object) -> Recipe:
    params = CompressParams(methods=("share",), epochs=epochs, learning_rate=0.01)
    params = dataclasses.replace(params, **table)  # type: ignore[arg-type]
    return dataclasses.replace(chain.recipe, compress=params, gate=GateParams(max_accuracy_drop=0.15))


def compressed(chain: Chain, recipe: Recipe, out: Path, watch: Watch = Watch()) -> dict[str, Any]:  # noqa: B008
    return compress_student(chain.student, chain.data, chain.knowledge, recipe, out, watch=watch)


def integers(chain: Chain, directory: Path) -> QGraph:
    """The graph in the integers of a compressed student."""
    export_student(directory, chain.data, directory)
    calibration = load_dataset(chain.data).part("calibration")[0]
    model = (directory / "model.onnx").read_bytes()
    quantize_onnx(model, calibration, chain.recipe.quantize, directory, shared=load_tables(directory))
    return load_graph((directory / "int8.onnx").read_bytes(), "int8.onnx")


@pytest.fixture(scope="module")
def shared(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QGraph]:
    """The small student with 16 values a layer, tuned, and its integers."""
    out = tmp_path_factory.mktemp("shared")
    found = compressed(chain, recipe_of(chain), out)
    (out / "metrics.json").write_text(json.dumps(found))
    return out, integers(chain, out)


def test_a_trained_students_tables_reach_the_graph_untouched(
    shared: tuple[Path, QGraph], chain: Chain
) -> None:
    (directory, graph), stored = shared, 0
    net, grids = load_student(directory).net, load_tables(directory)
    assert list(grids) == ["layers.2.conv.weight", "layers.4.conv.weight"]  # the stem has 144 weights
    gate = Gate(load_student(chain.student).net, load_dataset(chain.data), recipe_of(chain).gate)
    assert gate.judge(net).outcome == "passed"
    for name, grid in grids.items():
        weights = net.get_parameter(name).detach().numpy()
        assert len(grid.table) == 16 and 0 in grid.table
        assert np.array_equal(grid.values(weights), weights)
        tensor = next(t for t in graph.tensors if t.name.startswith(name) and t.data is not None)
        assert tensor.encoding is not None and tensor.data is not None
        assert np.array_equal(tensor.encoding.tables[0], grid.table)
        assert np.array_equal(np.moveaxis(tensor.data, -1, 1), grid.integers(weights))
        assert np.array_equal(tensor.scale, grid.scales)
        stored += tensor.encoding.stored_bytes(tensor.data.size)
    found = json.loads((directory / "metrics.json").read_text())
    assert found["shared"] == sharing(net, grids) == {"layers": 2, "weights": 1408, "stored_bytes": stored}
    assert sum(t.encoding is not None for t in graph.tensors) == 2


def test_a_table_for_each_group_of_channels(chain: Chain, tmp_path: Path) -> None:
    compressed(chain, recipe_of(chain, epochs=2, entries=4, group_channels=4), tmp_path)
    graph = integers(chain, tmp_path)
    for name, grid in load_tables(tmp_path).items():
        tensor = next(t for t in graph.tensors if t.name.startswith(name) and t.data is not None)
        channels = len(grid.scales)
        assert grid.table.shape == (channels // 4, 4) and tensor.encoding is not None
        assert np.array_equal(tensor.encoding.tables, grid.table)
        assert tensor.encoding.channel_tables.tolist() == [c // 4 for c in range(channels)]


@pytest.mark.parametrize("family", ["portable", "dsp"])
def test_kernels_of_a_trained_students_tables_give_the_references_bytes(
    shared: tuple[Path, QGraph], chain: Chain, family: str, tmp_path: Path
) -> None:
    """On this machine and on the emulated core, and in less flash than the same weights as int8."""
    graph = strip_float_edges(shared[1])
    plain = replace(graph, tensors=tuple(replace(t, encoding=None) for t in graph.tensors))
    compiler = find_compiler("clang", tmp_path / "cache")
    x = load_dataset(chain.data).part("test")[0][:8]
    inputs = [quantize_input(np.moveaxis(x, 1, -1), graph.tensors[graph.inputs[0]])]
    expected = pack(run(graph, inputs))
    model = generate(graph, family)
    folder = write(model, tmp_path / "generated")
    assert any("packed" in name or "unpack" in name for name in model.files)
    host = HostModel(folder, compiler, tmp_path / "work")
    assert np.array_equal(host.run(pack(inputs)).view(np.uint8), expected)
    build_image(folder, mcu_target(), compiler, tmp_path / "image")
    elf, layers = tmp_path / "image/firmware.elf", folder / "layers.json"
    result = run_image(elf, layers, mcu_target(), pack(inputs), counted=1, watched=1)
    assert np.array_equal(result.outputs.view(np.uint8), expected)
    bytes_of = {
        name: predict(generate(g, family), "clang").weights for name, g in (("s", graph), ("p", plain))
    }
    assert bytes_of["p"] - bytes_of["s"] > 400  # of the 1,408 weights that share


def test_zeros_of_before_stay(chain: Chain, tmp_path: Path) -> None:
    found = compressed(chain, recipe_of(chain, epochs=3, methods=("sparsify", "share")), tmp_path)
    net = load_student(tmp_path).net
    assert found["zero_weights"] == zero_weights(net) >= 16 * 9 // 2 + 16 * 32 // 2 + 32 * 28 // 2
    assert [step["method"] for step in found["steps"]] == ["sparsify", "share"]


def test_behind_pruning_the_narrower_layers_share(chain: Chain, tmp_path: Path) -> None:
    recipe = recipe_of(chain, epochs=6, methods=("prune", "lowrank", "share"), keep=0.7)
    found = compressed(chain, recipe, tmp_path)
    assert found["weight_bytes_saved"] > 0 and found["shared"]["layers"] >= 2
    assert found["shared"]["stored_bytes"] < 0.8 * found["shared"]["weights"]
    assert load_student(tmp_path).net.structure != load_student(chain.student).net.structure


def test_a_killed_training_goes_on_to_the_same_tables(chain: Chain, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(label: str, done: int, total: int) -> None:
        if label.startswith("compress-share") and done > 0.8 * total:
            raise Killed

    recipe, work = recipe_of(chain, epochs=4), tmp_path / "work"
    for name in ("whole", "work", "again"):
        (tmp_path / name).mkdir()
    compressed(chain, recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        compressed(chain, recipe, tmp_path / "again", Watch(kill, work))
    assert (work / "compress-share.safetensors").is_file() and not list((tmp_path / "again").iterdir())
    compressed(chain, recipe, tmp_path / "again", Watch(work=work))
    for name in (FILE, "student.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_hard_choice_moves_entries_and_scales() -> None:
    """Two channels, the table 0 and 125 (scales 1 / 127 and 2 / 127): what each weight's slope of 1 moves."""
    weights = torch.tensor([[1.0, 0.9, 0.1], [2.0, 0.0, -0.1]], requires_grad=True)
    layer = SharedWeights(weights, torch.ones(2, 3), Plan(2, 1, True))
    assert layer.grid().table.tolist() == [0, 125]
    held = layer(weights)
    assert held.tolist()[1] == pytest.approx([2 * 125 / 127, 0, 0])
    held.sum().backward()
    assert layer.gains.grad is not None and layer.entries.grad is not None and weights.grad is None
    assert layer.gains.grad.tolist() == pytest.approx([2 * 125 / 127, 2 * 125 / 127])
    # The entry 125 has three weights, whose scales sum to (1 + 1 + 2) / 127; slowed by 3 and by 1.5².
    assert layer.entries.grad.tolist() == pytest.approx([0, 4 / (3 * 1.5**2)])


def test_of_many_entries_the_gradient_goes_straight_through_the_choice() -> None:
    weights = torch.tensor([[1.0, 0.9, 0.1], [2.0, 0.0, -0.1]], requires_grad=True)
    layer = SharedWeights(weights, torch.ones(2, 3), Plan(16, 1, True))
    slope = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    held = layer(weights, left=0.5)
    assert torch.equal(held, layer(weights))
    (held * slope).sum().backward()
    assert weights.grad is not None and torch.equal(weights.grad, slope)


def test_a_soft_choice_is_a_mean_of_entries_and_moves_the_weights_behind() -> None:
    """Table 0 and 100 at a scale of 0.01, half way: 0.25 is 25 and 75 steps from the entries."""
    weights = torch.tensor([[1.27, 1.0, 0.25]], requires_grad=True)
    layer = SharedWeights(weights, torch.tensor([[0.0, 9.0, 0.0]]), Plan(2, 1, True))
    assert layer.grid().table.tolist() == [0, 100]
    held = layer(weights, left=0.5)
    softness = 64 / 2 * 0.5 + 0.3
    share = 1 / (1 + np.exp((75 - 25) / softness))  # of the entry 100
    assert held[0, 2].item() == pytest.approx(share, rel=1e-4)
    held[0, 2].backward()
    # d share / d u = 2 share (1 - share) / softness; of the weight itself 100 steps times that.
    assert weights.grad is not None
    assert weights.grad[0].tolist() == pytest.approx([0, 0, 200 * share * (1 - share) / softness], rel=1e-4)
    assert layer(weights, left=1e-6)[0, 2].item() == pytest.approx(0, abs=1e-6)


def test_choices_settle_before_the_end() -> None:
    net, steps = student("resnet"), 10
    importances = {name: torch.ones_like(p) for name, p in net.named_parameters()}
    shared = SharedNet(net, plans(net, CompressParams()), importances, steps)
    rate = torch.optim.SGD(shared.parameters(), 0.05)
    seen = []
    for _ in range(steps):
        rate.zero_grad()
        shared(samples(net, 8)).square().mean().backward()
        rate.step()
        seen.append(torch.cat([each.flatten() for name, each in shared.named_buffers() if "indices" in name]))
    assert not torch.equal(seen[0], seen[6]) and torch.equal(seen[6], seen[-1])
    before = shared.eval()(samples(net))
    finished, grids = shared.finished()
    assert torch.allclose(finished(samples(net)), before, atol=1e-5)
    assert set(grids) == {f"layers.{i}.conv.weight" for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)}


def test_which_layers_share() -> None:
    def shares(net: StudentNet, **table: object) -> list[str]:
        return [name.removesuffix(".weight") for name in plans(net, CompressParams(**table))]  # type: ignore[arg-type]

    separable, dense = student("ds-cnn"), student("autoencoder")
    assert shares(separable) == ["layers.2.conv", "layers.4.conv"]  # 144 weights in front are hardly fewer
    assert shares(separable, share_layers="all")[-1] == "layers.6"
    assert shares(dense, share_layers="all") == [f"layers.{i}" for i in (0, 1, 3, 4)]  # 24 to 8: 192
    named = (
        LayerEntries("layers.2.conv", 256),
        LayerEntries("layers.6", 4),
        LayerEntries("layers.0.conv", 4),
    )
    assert shares(separable, layer_entries=named) == ["layers.0.conv", "layers.4.conv", "layers.6"]
    wide = plans(separable, CompressParams(group_channels=8))
    assert {name: plan.groups for name, plan in wide.items()} == {"layers.4.conv.weight": 4}


BAD = {
    "groups of 5 do not divide the 16 channels of layers.0.conv": {"group_channels": 5},
    "has no layer 'layers.9' with weights; it has layers.0.conv, layers.1": {
        "layer_entries": (LayerEntries("layers.9", 4),)
    },
    "16 entries are too many for the 144 weights of layers.1.conv: with its tables it would take 160": {
        "layer_entries": (LayerEntries("layers.1.conv", 16),),
        "group_channels": 8,
    },
    "share makes no layer of this student smaller": {
        "layer_entries": tuple(LayerEntries(f"layers.{i}.conv", 256) for i in (2, 4))
    },
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_shared_is_refused(said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plans(student("ds-cnn"), CompressParams(**BAD[said]))  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_tables_that_are_damaged_or_of_another_student(
    shared: tuple[Path, QGraph], chain: Chain, tmp_path: Path
) -> None:
    grids = load_tables(shared[0])
    save_tables(grids, tmp_path)
    assert (tmp_path / FILE).read_bytes() == (shared[0] / FILE).read_bytes()
    calibration = load_dataset(chain.data).part("calibration")[0]
    with pytest.raises(VerifyError, match=r"layer layers.2.conv: its weights do not stand in the tables"):
        quantize_onnx(chain.model.read_bytes(), calibration, chain.recipe.quantize, tmp_path, shared=grids)
    other = {"layers.7.conv.weight": next(iter(grids.values()))}
    with pytest.raises(VerifyError, match=r"has no weights 'layers.7.conv.weight'"):
        quantize_onnx(chain.model.read_bytes(), calibration, chain.recipe.quantize, tmp_path, shared=other)
    assert not (tmp_path / "int8.onnx").exists()
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:50])
    with pytest.raises(ArtifactError, match=r"tables.safetensors is not a readable weights file"):
        load_tables(tmp_path)
    save_weights({"layers.0.conv.weight.table": torch.zeros(4, dtype=torch.int8)}, tmp_path / FILE)
    with pytest.raises(
        ArtifactError, match=r"lacks 'layers.0.conv.weight.scales'; compress the student again"
    ):
        load_tables(tmp_path)
