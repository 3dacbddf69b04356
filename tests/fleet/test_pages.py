"""SECURITY.md names tests that exist, docs/fleet.md every move of the drill's thief, docs/fleet-attacks.md
each attack that is played, with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd.fleet import thief
from tests.fleet.attack_table import PAGE, WORDS
from tests.fleet.test_attacks import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
FLEET = (ROOT / "docs" / "fleet.md").read_text("utf-8")
ROWS = [line for line in SECURITY.splitlines() if line.startswith("| ") and not line.startswith("| asset")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_what_shows_it_is_there(row: str) -> None:
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row.split("|")[-2])
    assert named
    for file, test in named:
        found = list((ROOT / "tests").rglob(file))
        assert found, file
        assert not test or any(f"def {test}(" in path.read_text("utf-8") for path in found), test


def test_the_thiefs_table_is_whole() -> None:
    table = FLEET.split("## What a stolen online key can do")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    told = sum(2 if "or `rollout`" in row else 1 for row in rows)
    assert told == len(thief.MOVES) + 1  # the last: a device that has not seen the floor
    refusals = set(re.findall(r"refuses: ([\w-]+)", table))
    answers = {found for move in thief.MOVES for found in re.findall(r"refuses: ([\w-]+)", move.answer)}
    assert refusals == answers - {"expired"}


def test_the_table_of_attacks_is_of_the_attacks_that_are_played() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    told = [(row[0].removeprefix("| "), row[1].strip("`")) for row in rows]
    assert told == [(WORDS[attack.__name__], reason) for attack, reason in ATTACKS]
    assert all(len(row) == 3 and len(row[2]) > 10 for row in rows)
