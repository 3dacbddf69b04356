"""compress --to-fit: priced first, tried in order, judged by the gate; what is in the way is said."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgekd import api
from edgekd.cli.command import amount
from edgekd.errors import BudgetError, ConfigError
from edgekd.pipeline.costing import predicted
from edgekd.report.fitting import show_fit, toml_lines
from tests.spine.support import QUICK, artifacts, edgekd, make_project

pytestmark = pytest.mark.needs("torch")

STUDENT = QUICK.replace("channels = [8, 16]", "channels = [16, 32, 28]").replace(
    "strides = [2, 1]", "strides = [1, 2, 1]"
)
TUNING = "[compress]\nepochs = 2\nlearning_rate = 0.01\nbatch_norm = true\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("fitting"))
    for name, gate in {
        "easy": "max_accuracy_drop = 0.5",
        "strict": "min_accuracy = 1.0\nmax_accuracy_drop = 1.0",
    }.items():
        text = STUDENT.replace('name = "quick"', f'name = "{name}"') + TUNING + f"[gate]\n{gate}\n"
        (folder / "recipes" / f"{name}.toml").write_text(text)
    return folder


def asked(project: Path, recipe: str = "easy") -> Any:
    return api.request(recipe=recipe, target="mcu-sim", start=project)


@pytest.fixture(scope="module")
def whole(project: Path) -> dict[str, float]:
    """What the student costs as it is."""
    from edgekd.learn.student import load_student

    request = asked(project)
    structure = load_student(api.make(request, "distill").path).net.structure
    return predicted(structure, request.need_target("mcu"))


def test_what_fits_is_left_as_it_is(project: Path) -> None:
    answer = api.compress_to_fit(asked(project))
    assert answer["chosen"]["methods"] == () and answer["reason"] is None
    first, *others = answer["tried"]
    assert first["outcome"] == "chosen" and first["accuracy"] > 0.3
    assert {row["outcome"] for row in others} == {"fits, not tried"}


def test_the_mildest_that_fits_is_made_and_its_integers_fit(project: Path, whole: dict[str, float]) -> None:
    """Fewer cycles ask for channels or ranks; one method is enough, at the first share that does it."""
    most = int(0.8 * whole["cycles"])
    answer = api.compress_to_fit(asked(project), max_cycles=most)
    chosen = next(row for row in answer["tried"] if row["outcome"] == "chosen")
    assert len(chosen["methods"]) == 1 and chosen["methods"][0] in ("prune", "lowrank")
    assert 0.6 * whole["cycles"] < chosen["costs"]["cycles"] <= most
    below = [row for row in answer["tried"] if not row["methods"]]
    assert below[0]["outcome"] == "does not fit" and below[0]["over"]["cycles"] == pytest.approx(
        whole["cycles"] - most
    )


def test_a_second_run_makes_nothing_and_says_the_same(project: Path, whole: dict[str, float]) -> None:
    limits = {"max_cycles": int(0.8 * whole["cycles"])}
    first = api.compress_to_fit(asked(project), **limits)
    before = {stage: len(found) for stage, found in artifacts(project).items()}
    assert api.compress_to_fit(asked(project), **limits) == first
    assert {stage: len(found) for stage, found in artifacts(project).items()} == before


def test_the_table_it_finds_is_a_recipes(project: Path, whole: dict[str, float], capsys: Any) -> None:
    """Written into the recipe, it makes the very artifact that was judged."""
    answer = api.compress_to_fit(asked(project), max_cycles=int(0.8 * whole["cycles"]))
    show_fit(answer)
    shown = capsys.readouterr().out
    assert "outcome" in shown and "[compress]" in shown
    lines = "\n".join(toml_lines(answer["chosen"]))
    assert tomllib.loads(lines)["methods"] == list(answer["chosen"]["methods"])
    text = (project / "recipes" / "easy.toml").read_text().replace('"easy"', '"found"')
    (project / "recipes" / "found.toml").write_text(text.replace(TUNING, f"[compress]\n{lines}\n"))
    before = len(artifacts(project)["compress"])
    api.make(asked(project, "found"), "compress")
    assert len(artifacts(project)["compress"]) == before


def test_nothing_that_fits_says_the_nearest_and_the_gap(project: Path) -> None:
    answer = api.compress_to_fit(asked(project), max_cycles=1000)
    assert answer["chosen"] is None and all(row["over"] for row in answer["tried"])
    nearest, gap = answer["tried"][0], f"{answer['tried'][0]['over']['cycles']:,.0f} cycles too many"
    assert nearest["costs"]["cycles"] == min(row["costs"]["cycles"] for row in answer["tried"])
    assert "no combination of methods fits" in answer["reason"] and gap in answer["reason"]


def test_what_fits_and_fails_the_gate_is_said(project: Path) -> None:
    with pytest.raises(BudgetError, match=r"gate.min_accuracy asks for 1.0000"):
        api.compress_to_fit(asked(project, "strict"))  # the student itself is not good enough


def test_limits_that_cannot_be(project: Path) -> None:
    assert amount("16k", "max_ram") == 16_384 and amount("5M", "max_cycles") == 5_000_000
    assert amount("", "max_ram") is None and amount("900", "max_flash") == 900
    for text in ("16q", "0", "-3", "k", "1.5M"):
        with pytest.raises(ConfigError, match=f"--max-ram is '{text}'; it must be a whole number from 1"):
            amount(text, "max_ram")
    with pytest.raises(
        ConfigError, match=r"--max-flash 9,000,000 is more than target mcu-sim has \(1,048,57"
    ):
        api.compress_to_fit(asked(project), max_flash=9_000_000)
    with pytest.raises(ConfigError, match="no target is named"):
        api.compress_to_fit(api.request(recipe="easy", start=project))


def test_the_command(project: Path) -> None:
    done = edgekd(project, "compress", "--recipe", "easy", "--target", "mcu-sim", "--to-fit", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["chosen"]["methods"] == []
    small = ("--to-fit", "--max-ram", "1k")
    failed = edgekd(project, "compress", "--recipe", "easy", "--target", "mcu-sim", *small)
    assert failed.returncode == 5 and "does not fit" in failed.stdout
    assert failed.stderr.splitlines()[-1].startswith("edgekd: no combination of methods fits")
    alone = edgekd(project, "compress", "--recipe", "easy", "--max-ram", "1k")
    assert alone.returncode == 2 and "add --to-fit" in alone.stderr
