"""Recipes with several teachers, and with knowledge from elsewhere, through the graph of stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import api
from edgekd.errors import ConfigError
from edgekd.pipeline.request import Request

HEAD = 'name = "{}"\ndescription = "mechanics"\nseed = 5\n'
MORE = "[knowledge]\nviews = 2\n[student]\nchannels = [8, 16]\nstrides = [2, 1]\n[distill]\nepochs = 2\n"
FIRST, SECOND = "width = 8\nepochs = 1\n", "width = 12\nepochs = 1\n"


def asked(project: Path, name: str, text: str) -> Request:
    (project / "recipes").mkdir(exist_ok=True)
    (project / ".edgekd").mkdir(exist_ok=True)
    (project / "recipes" / f"{name}.toml").write_text(HEAD.format(name) + text + MORE)
    return api.request(recipe=name, start=project)


def test_each_teacher_is_an_artifact_of_its_own(tmp_path: Path) -> None:
    """A teacher that a recipe has alone is the same artifact where it is one of several."""
    alone = api.make(asked(tmp_path, "alone", f"[teacher]\n{FIRST}"), "teacher")
    both = asked(tmp_path, "both", f"[[teachers]]\n{FIRST}[[teachers]]\n{SECOND}seed = 9\n")
    rows = [(s.stage, s.artifact is not None) for s in api.states(both)[:4]]
    assert rows == [("dataset", True), ("teacher", True), ("teacher", False), ("knowledge", False)]
    knowledge = api.make(both, "knowledge")
    inputs = knowledge.manifest["inputs"]
    assert sorted(inputs) == ["data", "teacher-1", "teacher-2"]
    assert inputs["teacher-1"]["key"] == alone.key
    assert [a.key for a in api.teachers(both)] == [inputs[f"teacher-{n}"]["key"] for n in (1, 2)]
    assert knowledge.manifest["params"]["weights"] == [0.5, 0.5]
    assert api.make(both, "distill").metrics["accuracy_test"] > 0.1
    assert all(s.artifact for s in api.states(both) if s.stage in ("teacher", "knowledge", "distill"))


def test_knowledge_from_elsewhere_needs_no_teacher(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir(), here.mkdir()
    lone = asked(there, "lone", f"[teacher]\n{FIRST}")
    made = api.make(lone, "knowledge")
    made.path.rename(here / "from-there")
    request = asked(here, "given", '[[mix]]\nknowledge = "from-there"\n')
    student = api.make(request, "distill")
    assert "teacher" not in {s.stage for s in api.states(request)}
    assert student.metrics["accuracy_test"] > 0.1
    absent = asked(here, "absent", '[[mix]]\nknowledge = "from-nowhere"\n')
    with pytest.raises(ConfigError, match=r"from-nowhere/knowledge.json is not there"):
        api.make(absent, "distill")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[mix]]\nknowledge = "k"\n', r"recipe odd has no teacher: its knowledge is that of \[\[mix\]\]"),
        (f"[[teachers]]\n{FIRST}[[teachers]]\n{SECOND}", "recipe odd has several teachers; `invoke teacher`"),
    ],
)
def test_the_one_teacher_of_a_recipe_that_has_not_one(tmp_path: Path, text: str, said: str) -> None:
    request = asked(tmp_path, "odd", text)
    with pytest.raises(ConfigError, match=said):
        api.make(request, "teacher")
    with pytest.raises(ConfigError, match=said):
        api.training_job(request, "teacher", tmp_path)
