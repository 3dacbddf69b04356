"""Teachers from torch.export: they say what the network said, and a hostile archive does nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, ConfigError, EdgekdError, UnsupportedOpError
from edgekd.learn.exported import ExportedNet
from edgekd.learn.knowledge import FILE, read_knowledge
from edgekd.learn.record import write_knowledge
from edgekd.learn.teacher import load_teacher, train_teacher
from edgekd.recipe import load_recipe
from tests.learn.chain import Chain

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Branches(torch.nn.Module):
    """What teachers are made of: batch norm, a grouped convolution, a split, an in-place layer, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8))
        self.second = torch.nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1, bias=False)
        self.drop, self.last = torch.nn.Dropout(0.5), torch.nn.Linear(32, 10)
        self.register_buffer("gain", torch.linspace(0.5, 1.5, 8).reshape(1, 8, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(self.first(x) * self.get_buffer("gain"))
        left, right = torch.nn.functional.relu_(self.second(y)).chunk(2, dim=1)
        y = torch.cat([left.softmax(dim=1), right], dim=1).mean(dim=2)
        return self.last(self.drop(y.reshape(x.shape[0], -1)))


def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Branches().eval()


def exported(net: torch.nn.Module, batch: int = 0, size: int = 8) -> bytes:
    """The archive of `net`; batch 0: a free one."""
    shapes = ({0: torch.export.Dim("batch")},) if batch == 0 else None
    program = torch.export.export(net, (torch.zeros(batch or 2, 1, size, size),), dynamic_shapes=shapes)
    out = io.BytesIO()
    torch.export.save(program, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def archive() -> bytes:
    return exported(network())


def changed(archive: bytes, record: str, change: Callable[[bytes], bytes], compress: bool = False) -> bytes:
    """The archive with one record rewritten."""
    old, out = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(f"/{record}") else content)
    return out.getvalue()


def edited(archive: bytes, record: str, edit: Callable[[Any], object]) -> bytes:
    def change(content: bytes) -> bytes:
        table = json.loads(content)
        edit(table)
        return json.dumps(table).encode()

    return changed(archive, record, change)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_it_says_what_the_network_says(batch: int) -> None:
    net = network()
    x = torch.from_numpy(np.random.Generator(np.random.Philox(1)).normal(size=(6, 1, 8, 8))).float()
    with torch.no_grad():
        found = ExportedNet(exported(net, batch), False, 10, "t.pt2")(x.clone())
        assert torch.allclose(found, net(x), atol=1e-6)


def test_it_teaches_as_the_network_it_came_from(chain: Chain, tmp_path: Path) -> None:
    original = load_teacher(chain.teacher)
    (tmp_path / "t.pt2").write_bytes(exported(original.net))
    table = dataclasses.replace(
        chain.recipe.teacher, model="exported", checkpoint=str(tmp_path / "t.pt2"), epochs=0
    )
    recipe = dataclasses.replace(chain.recipe, teacher=table)
    teacher, knowledge = tmp_path / "teacher", tmp_path / "knowledge"
    teacher.mkdir(), knowledge.mkdir()
    train_teacher(chain.data, recipe, teacher)
    write_knowledge(chain.data, teacher, recipe, knowledge)
    data, rows = load_dataset(chain.data), np.arange(100)
    ours, theirs = (read_knowledge(p / FILE, data).read(1, rows) for p in (chain.knowledge, knowledge))
    assert np.allclose(ours, theirs, rtol=1e-2, atol=1e-2)
    assert load_teacher(teacher).sha256 != original.sha256
    (teacher / "teacher.pt2").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is not a readable exported program"):
        load_teacher(teacher)


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(thing: object) -> bytes:
    out = io.BytesIO()
    torch.save(thing, out)
    return out.getvalue()


def test_sample_inputs_that_hold_code_are_not_read(archive: bytes, tmp_path: Path) -> None:
    """torch's own reader runs them, which is why it is not used."""
    mark = tmp_path / "ran"
    hostile = changed(archive, "data/sample_inputs/model.pt", lambda content: pickled(Evil(mark)))
    assert ExportedNet(hostile, False, 10, "t.pt2")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert not mark.exists()
    with pytest.raises(Exception):  # noqa: B017  (whatever it says: it ran)
        torch.export.load(io.BytesIO(hostile))
    assert mark.exists()


@pytest.mark.parametrize("folder", ["weights", "constants"])
def test_weights_that_are_pickles_are_refused(archive: bytes, tmp_path: Path, folder: str) -> None:
    mark, config = tmp_path / "ran", f"data/{folder}/model_{folder}_config.json"
    row = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    hostile = edited(archive, config, lambda table: table["config"].update({"first.0.weight": row}))
    hostile = changed(hostile, f"data/{folder}/weight_0", lambda content: pickled(Evil(mark)))
    with pytest.raises(ArtifactError, match=r"first\.0\.weight is a pickled object, .* and is refused"):
        ExportedNet(hostile, False, 10, "t.pt2")
    assert not mark.exists()


def test_sizes_are_not_evaluated(archive: bytes, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def poison(table: Any) -> None:
        for value in table["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = text
        table["guards_code"] = [text]

    net = ExportedNet(edited(archive, MODEL, poison), False, 10, "t.pt2")
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 10) and not mark.exists()


def retargeted(target: str) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        table["graph_module"]["graph"]["nodes"][0]["target"] = target

    return edit


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.nothing.default",
        "torch.ops.aten.__class__.default",
        "torch.ops.higher_order.cond",
        "_operator.methodcaller",
        "math.sqrt",
        "os.system",
    ],
)
def test_only_plain_operators_are_called(archive: bytes, target: str) -> None:
    with pytest.raises(UnsupportedOpError, match=f"calls {target}, which is not run from a file"):
        ExportedNet(edited(archive, MODEL, retargeted(target)), False, 10, "t.pt2")


def without_user_input(table: Any) -> None:
    table["graph_module"]["signature"]["input_specs"].pop()


def of_schema(version: int) -> Callable[[Any], None]:
    return lambda table: table["schema_version"].update(major=version)


@pytest.mark.parametrize(
    ("record", "edit", "said"),
    [
        (MODEL, of_schema(9), "has schema 9 and this version reads 8; export it with torch 2.13"),
        (MODEL, without_user_input, "takes 0 inputs; export it with one"),
        (MODEL, lambda table: table.pop("graph_module"), "is not a readable exported program"),
        (MODEL, lambda table: table["graph_module"]["graph"].pop("nodes"), "is not as torch 2.13 writes it"),
        (WEIGHTS, lambda table: table["config"].pop("last.bias"), "last.bias is not in the archive"),
        (
            WEIGHTS,
            lambda t: t["config"]["last.bias"]["tensor_meta"].update(sizes=[{"as_int": 10**6}]),
            "is not a readable exported program",
        ),
    ],
)
def test_a_broken_archive_is_one_sentence(archive: bytes, record: str, edit: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        ExportedNet(edited(archive, record, edit), False, 10, "t.pt2")


def test_what_does_not_fit_is_named(archive: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"t.pt2 was exported while training|changes its own weights"):
        ExportedNet(exported(network().train()), False, 10, "t.pt2")
    with pytest.raises(ArtifactError, match=r"takes \['free', 1, 8, 8\] and the samples are \(1, 9, 8\)"):
        ExportedNet(archive, False, 10, "t.pt2")(torch.zeros(2, 1, 9, 8))
    with pytest.raises(ArtifactError, match="the data set has 7 classes"):
        ExportedNet(archive, False, 7, "t.pt2")(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ArtifactError, match="is compressed"):
        ExportedNet(changed(archive, MODEL, bytes, compress=True), False, 10, "t.pt2")


def test_every_truncation_is_refused(archive: bytes) -> None:
    for length in (0, 10, len(archive) // 2, len(archive) - 1):
        with pytest.raises(EdgekdError, match=r"t\.pt2 is not a readable exported program"):
            ExportedNet(archive[:length], False, 10, "t.pt2")


def test_a_recipe_says_which_file(tmp_path: Path) -> None:
    text = 'name = "r"\ndescription = "a test"\n[teacher]\nmodel = "exported"\n'
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match="an exported teacher is a file and cannot be trained"):
        load_recipe("r", [tmp_path])
