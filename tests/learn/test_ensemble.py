"""Several teachers as one: the mean by hand, its knowledge, and recipes that do not add up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.errors import ConfigError, VerifyError
from edgekd.learn.ensemble import MeanNet, load_teachers, mean_of
from edgekd.learn.knowledge import FILE, read_header, read_knowledge
from edgekd.learn.record import write_knowledge
from edgekd.learn.teacher import Teacher, teacher_sha256, train_teacher
from edgekd.recipe import MemberParams, Recipe, load_recipe, members, teacher_seed, weights
from tests.learn.chain import Chain

HEAD = 'name = "r"\ndescription = "a test"\n'


class Says(torch.nn.Module):
    """A network that gives the same logits for every sample."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def ensemble(chain: Chain, *shares: float | None) -> Recipe:
    """The small recipe with as many untrained teachers of their own seeds."""
    table = dataclasses.asdict(chain.recipe.teacher) | {"epochs": 0, "augment": chain.recipe.teacher.augment}
    teachers = (MemberParams(**table, seed=n, weight=share) for n, share in enumerate(shares))
    return dataclasses.replace(chain.recipe, teachers=tuple(teachers))


def test_the_mean_by_hand() -> None:
    """0.75 (2, 0, -2) + 0.25 (-2, 4, 2) = (1, 1, -1)."""
    net = MeanNet([Says(2, 0, -2), Says(-2, 4, 2)], (0.75, 0.25))
    assert net(torch.zeros(2, 1)).tolist() == [[1.0, 1.0, -1.0]] * 2


def test_softened_it_is_the_geometric_mean_of_the_softened() -> None:
    """What the module says of its choice, at several temperatures."""
    first, second = torch.tensor([3.0, 1.0, -2.0]), torch.tensor([0.0, 2.0, 1.0])
    mean = MeanNet([Says(*first.tolist()), Says(*second.tolist())], (0.5, 0.5))(torch.zeros(1, 1))[0]
    for temperature in (1.0, 4.0, 16.0):
        geometric = (torch.softmax(first / temperature, 0) * torch.softmax(second / temperature, 0)).sqrt()
        assert torch.allclose(torch.softmax(mean / temperature, 0), geometric / geometric.sum(), atol=1e-6)


def test_each_share_stays_with_its_teacher() -> None:
    teachers = [Teacher(Says(1, 0), ("a", "b"), "d", digest) for digest in ("bb", "aa")]
    found = mean_of(teachers, (0.9, 0.1))
    assert found.sha256 == "aa+bb" and found.shares == (("aa", 0.1), ("bb", 0.9))
    with pytest.raises(VerifyError, match=r"two of \[\[teachers\]\] are the same"):
        mean_of([teachers[0], teachers[0]], (0.5, 0.5))


def test_knowledge_of_two_teachers_is_their_mean(chain: Chain, tmp_path: Path) -> None:
    recipe, data = ensemble(chain, 0.7, 0.3), load_dataset(chain.data)
    places = [tmp_path / name for name in ("first", "second")]
    alone, rows = [], np.arange(200)
    for place, each in zip(places, members(recipe), strict=True):
        place.mkdir(), (tmp_path / f"{place.name}-knowledge").mkdir()
        train_teacher(chain.data, each, place)
        write_knowledge(chain.data, place, each, tmp_path / f"{place.name}-knowledge")
        alone.append(read_knowledge(tmp_path / f"{place.name}-knowledge" / FILE, data).read(1, rows))
    (tmp_path / "out").mkdir()
    metrics = write_knowledge(chain.data, places, recipe, tmp_path / "out")
    assert metrics["teachers"] == 2 and 0 <= metrics["teachers_accuracy_validation"] <= 1
    header = read_header(tmp_path / "out" / FILE)
    assert header["teachers"] == {teacher_sha256(places[0]): 0.7, teacher_sha256(places[1]): 0.3}
    found = read_knowledge(tmp_path / "out" / FILE, data)
    assert np.allclose(found.read(1, rows), 0.7 * alone[0] + 0.3 * alone[1], rtol=2e-3, atol=2e-3)
    whole = load_teachers(places, recipe, data).sha256
    read_knowledge(tmp_path / "out" / FILE, data, teacher_sha256=whole)
    with pytest.raises(VerifyError, match="is of another teacher"):
        read_knowledge(tmp_path / "out" / FILE, data, teacher_sha256=teacher_sha256(places[0]))


def test_what_each_member_is(chain: Chain) -> None:
    recipe = ensemble(chain, None, None)
    assert weights(recipe) == (0.5, 0.5) and weights(chain.recipe) == (1.0,)
    assert [teacher_seed(each) for each in members(recipe)] == [0, 1]
    assert members(chain.recipe) == [chain.recipe] and teacher_seed(chain.recipe) == chain.recipe.seed
    same = dataclasses.replace(recipe.teachers[0], seed=None)
    assert teacher_seed(dataclasses.replace(recipe, teacher=same)) == recipe.seed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[teacher]\nwidth = 8\n[[teachers]]\nwidth = 9", r"has \[teacher\] and \[\[teachers\]\]"),
        ("[[teachers]]\nweight = 0.5\n[[teachers]]", "give one to each of them, or to none"),
        ("[[teachers]]\nweight = 0.5\n[[teachers]]\nweight = 0.6", "are 0.5, 0.6; take shares above 0"),
        ("[[teachers]]\nweight = 1.0\n[[teachers]]\nweight = 0.0", "are 1, 0; take shares above 0"),
        (
            "[[teachers]]\nweight = -0.5\n[[teachers]]\nweight = 1.5",
            r"teachers\[0\].weight is -0.5; it must be",
        ),
        (
            '[[teachers]]\n[[teachers]]\nmodel = "resnet65"',
            r"teachers\[1\].model is 'resnet65'; did you mean",
        ),
        ('[[teachers]]\nmodel = "onnx"', r"set teachers\[0\].checkpoint and epochs = 0"),
        ("[[teachers]]\nwidht = 3", r"unknown key teachers\[0\].widht; did you mean width"),
        ('[[teachers]]\n[[mix]]\nknowledge = "k"', "leave the teachers out"),
        ('[[mix]]\nknowledge = "a"\nweight = 0.5', r"weights of \[\[mix\]\] are 0.5; take shares"),
        ("[[mix]]\nweight = 1.0", r"mix\[0\].knowledge is missing"),
    ],
)
def test_a_recipe_that_does_not_add_up_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.toml").write_text(HEAD + text + "\n")
    with pytest.raises(ConfigError, match=said):
        load_recipe("r", [tmp_path])
