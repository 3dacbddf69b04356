"""The drill, against the shipped agent: everything goes as it must, and a device with a hole is found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekd.fleet import thief
from edgekd.fleet.agent import policy
from edgekd.fleet.drill import ROTATIONS, drill


def now() -> datetime:
    return datetime.now(UTC)


def test_every_role_rotated_keys_lost_an_absent_device_and_every_move_of_a_thief(tmp_path: Path) -> None:
    counted: list[tuple[int, int]] = []
    steps = drill(tmp_path, now(), lambda label, done, total: counted.append((done, total)))
    assert [step for step in steps if not step.is_right] == []
    assert {name.rpartition("-")[0] for name in ROTATIONS} == {"root", "targets", "online"}
    assert len([step for step in steps if step.part == "rotation"]) >= 5
    assert {move.play.__doc__ for move in thief.MOVES} <= {f"{step.what}." for step in steps}
    assert counted[-1] == (len(steps), len(steps))


def test_holes_in_the_agent_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "check_times", lambda *a: None)
    monkeypatch.setattr(policy, "admit", lambda choice, *a: choice.candidate)
    wrong = {step.what for step in drill(tmp_path, now()) if not step.is_right}
    assert "An expiry 300 days ahead, to freeze the fleet unseen" in wrong
    assert "A signed release below the floor" in wrong
