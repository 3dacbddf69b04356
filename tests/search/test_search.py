"""A whole search on digits: its front, going on, warm starts, the recipe that it writes, broken storages."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd import api
from edgekd.errors import ArtifactError, BudgetError, ConfigError
from edgekd.learn.distill import new_student
from edgekd.learn.student import fold
from edgekd.pipeline import searching
from edgekd.pipeline.request import Request
from edgekd.recipe import load_recipe
from edgekd.search.front import front
from edgekd.search.space import candidate_of
from edgekd.search.study import figures_of, heal
from edgekd.search.trial import inherit, open_classroom, run_trial
from tests.fleet.postgres import server
from tests.search.projects import project

TRIALS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("search"), "bits = [8, 4]")


@pytest.fixture(scope="module")
def request_(root: Path) -> Request:
    return api.request(recipe="small", target="mcu-sim", start=root)


@pytest.fixture(scope="module")
def found(request_: Request) -> dict[str, Any]:
    return api.search(request_, trials=TRIALS)


def test_the_front_is_of_students_that_fit(found: dict[str, Any], request_: Request) -> None:
    assert found["trials"] == TRIALS and 0 < found["hypervolume"] < 1
    for row in found["rows"]:
        assert all(row["costs"][name] <= limit for name, limit in found["limits"].items())
    done = [row for row in found["rows"] if not row["stopped"]]
    best = {done[i]["trial"] for i in front([figures_of(row, "cycles") for row in done])}
    assert set(found["front"]) == best
    folder = Path(found["folder"])
    assert (folder / "front.svg").read_text("utf-8").count("<circle") == 3 * len(done)
    assert json.loads((folder / "front.json").read_text("utf-8"))["front"] == found["front"]


def test_again_trains_nothing_and_more_trials_go_on(found: dict[str, Any], request_: Request) -> None:
    assert api.search(request_, trials=TRIALS)["rows"] == found["rows"]
    more = api.search(request_, trials=TRIALS + 1)
    assert more["rows"][:TRIALS] == found["rows"] and more["trials"] == TRIALS + 1
    assert more["hypervolume"] >= found["hypervolume"]


def test_the_same_student_gives_the_same_accuracy(found: dict[str, Any], request_: Request) -> None:
    search = searching.prepare(request_, searching.Wanted())
    room = open_classroom(search.data.path, search.knowledge.path, search.recipe, None)
    row = next(row for row in found["rows"] if not row["stopped"])
    looks: list[int] = []
    assert run_trial(room, candidate_of(row["candidate"]), lambda e, a: looks.append(e)) == row["accuracy"]
    assert looks == [1]


def test_a_picked_student_is_a_recipe(found: dict[str, Any], request_: Request, root: Path) -> None:
    path = api.pick(request_, found, "best", root / "recipes" / "taken.toml", root)
    assert path is not None
    best = found["rows"][[row["trial"] for row in found["rows"]].index(found["front"][0])]
    recipe, candidate = load_recipe("taken", [root / "recipes"]), candidate_of(best["candidate"])
    assert recipe.student.blocks == candidate.blocks
    assert {r.layer: r.bits for r in recipe.quantize.layer_bits} == {
        f"layers.{index}.conv": bits for index, bits in candidate.layer_bits(1).items()
    }
    assert recipe.distill == request_.need_recipe().distill  # all else as it was
    student = api.make(api.request(recipe="taken", start=root), "compress")
    assert student.metrics["weight_bytes"] <= recipe.student.max_weight_bytes


@pytest.mark.parametrize(
    ("which", "said"),
    [("bset", r"must be best, smallest or a trial's number: "), ("99", "--pick is '99'")],
)
def test_picks_that_cannot_be(
    found: dict[str, Any], request_: Request, root: Path, which: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        api.pick(request_, found, which, root / "recipes" / "none.toml", root)
    with pytest.raises(ConfigError, match=r"a recipe is a \.toml file"):
        api.pick(request_, found, "best", root / "none.json", root)
    assert not (root / "recipes" / "none.toml").exists()


def test_nothing_fits_is_said_before_any_training(request_: Request) -> None:
    with pytest.raises(BudgetError, match=r"no student of .search. fits: the nearest"):
        api.search(request_, max_cycles=100)


def test_a_storage_that_is_broken_or_of_another_search(
    found: dict[str, Any], request_: Request, root: Path
) -> None:
    with pytest.raises(ArtifactError, match="storage cannot be read"):
        api.search(request_, trials=1, storage=f"sqlite:///{root}/no/such/folder/x.db")
    search = searching.prepare(request_, searching.Wanted(max_cycles=99_000))
    journal, other = search.folder / "journal.log", Path(found["folder"]) / "journal.log"
    journal.write_text("no journal\n{}\n")
    with pytest.raises(ArtifactError, match=r"journal\.log: the search's storage cannot be read"):
        api.search(request_, max_cycles=99_000)
    renamed = other.read_text("utf-8").replace(Path(found["folder"]).name, search.folder.name)
    journal.write_text(renamed)
    with pytest.raises(ArtifactError, match="holds another search of the name"):
        api.search(request_, max_cycles=99_000)


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(b'{"a":1}\n{"b":')
    heal(tmp_path)
    assert (tmp_path / "journal.log").read_bytes() == b'{"a":1}\n'


def test_a_password_is_not_shown(request_: Request) -> None:
    with pytest.raises(ArtifactError) as caught:
        api.search(request_, trials=1, storage="postgresql+psycopg://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value) and "127.0.0.1:1/x" in str(caught.value)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/trials.db"
        return
    with server() as url:
        yield url


def test_a_database_holds_the_trials_for_other_machines(request_: Request, database: str) -> None:
    """The second run's folder is empty, as another machine's is: the trials come from the database."""
    first = api.search(request_, trials=2, workers=2, storage=database)
    folder = Path(first["folder"])
    assert first["trials"] == 2
    shutil.rmtree(folder)
    second = api.search(request_, trials=2, storage=database)
    assert second["rows"] == first["rows"] and second["front"] == first["front"]
    assert not (folder / "journal.log").exists()


def students() -> Iterator[Any]:
    recipe = load_recipe("digits", [Path(__file__).resolve().parents[2] / "recipes"])
    for name in (
        '[[["conv",8,1,3,1,1],["residual",8,1,3,1,1]],[8,8]]',
        '[[["conv",4,1,3,1,1],["residual",12,2,3,1,2]],[8,8]]',
    ):
        yield new_student(candidate_of(name).structure((1, 8, 8), 10), recipe.seed)


def test_a_warm_start_is_the_distilled_student_and_not_its_evaluation(root: Path) -> None:
    request_ = api.request(recipe="small", target="mcu-sim", start=root, store=str(root / "warm"))
    assert searching.prepare(request_, searching.Wanted()).parent is None
    student = api.make(request_, "distill")  # and behind it the gate's evaluation
    parent = searching.prepare(request_, searching.Wanted()).parent
    assert parent is not None and parent.digest == student.digest


def test_a_warm_start_takes_what_fits() -> None:
    parent, child = students()
    folded, before = fold(parent), {k: v.clone() for k, v in child.state_dict().items()}
    assert inherit(child, folded) == 4  # three convolutions of 3 x 3 and the dense layer
    assert torch.equal(child.layers[0].conv.weight, folded.layers[0].conv.weight[:4])
    second = child.layers[1].conv.weight
    assert torch.equal(second[:8], folded.layers[1].conv.weight[:, :4])
    assert torch.equal(second[8:], before["layers.1.conv.weight"][8:])


def test_a_recipe_that_cannot_be_searched(request_: Request, root: Path) -> None:
    linux = api.request(recipe="small", target="pi-sim", start=root)
    with pytest.raises(ConfigError, match="is of kind 'linux' and this needs 'mcu'"):
        api.search(linux)
    own = dataclasses.replace(
        request_.need_recipe(),
        search=dataclasses.replace(request_.need_recipe().search, max_ram_bytes=1 << 30),
    )
    with pytest.raises(ConfigError, match="take another target"):
        api.search(dataclasses.replace(request_, recipe=own))
