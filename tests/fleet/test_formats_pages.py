"""docs/formats/agent.md and rollouts.md are held to the code: the same keys, the same schema numbers."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa

from edgekd.fleet import evidence, rollout
from edgekd.fleet.agent import ledger, report, state, visit
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.installer import Installer
from edgekd.fleet.agent.machine import TrialPassed
from edgekd.fleet.gate import Limits
from edgekd.fleet.log import EventLog
from edgekd.fleet.question import answer, question
from edgekd.fleet.rollout import Event, Plan
from tests.fleet.torn_disk import TornDisk

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config("pi-1", "rpi4", ("digits",))


def described(page: str, title: str) -> set[str]:
    """The keys in the first column of the first table below a title."""
    text = (ROOT / "docs" / "formats" / page).read_text("utf-8")
    section = re.split(r"\n##+ ", text.split(f"# {title}\n")[1])[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def keys(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_the_report() -> None:
    assert described("agent.md", "Report") == set(report.compose(CONFIG, 0, 1, {}, {}, None, {}))
    installer = Installer(TornDisk(), lambda new, old: TrialPassed(), lambda: None)
    said = report.of_model(installer, None, "", {"drift": None}, {})
    assert described("agent.md", "Report of one model") == set(said) and report.SCHEMA == 1
    text = (ROOT / "docs" / "formats" / "agent.md").read_text("utf-8")
    assert all(f"`{phase}`" in text for phase in state.PHASES)


def test_the_agents_files() -> None:
    written = json.loads(state.dump(state.State()))["state"]
    assert described("agent.md", "state.json") == set(written) and state.SCHEMA == 1
    assert described("agent.md", "visit.json") == keys(visit.Memory)
    assert described("agent.md", "answered.json") == {"schema"} | keys(ledger.Account) and ledger.SCHEMA == 1


def test_the_log(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "rollouts.db"))
    found = sa.inspect(log._engine)
    text = (ROOT / "docs" / "formats" / "rollouts.md").read_text("utf-8")
    for table in ("rollouts", "events", "leases"):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{table}` |")]
        told = set(re.findall(r"`(\w+)`", row.split("|")[2]))
        assert told == {column["name"] for column in found.get_columns(table)}
    assert described("rollouts.md", "Plan") == keys(Plan)
    assert described("rollouts.md", "Event") == keys(Event)
    assert all(f"`{kind}`" in text for kind in get_args(rollout.Kind))


@pytest.mark.parametrize("title", ["Evidence", "Simulation", "Simulation of one rate"])
def test_what_the_tasks_print(title: str) -> None:
    made = rollout.Rollout(Plan("r", "m", 1, "00" * 16, ("a", "b"), Limits.of(0.01, 2, 1), 60.0))
    told = answer(question({"devices": "20", "runs": "2", "rates": "1%"}))
    found = {
        "Evidence": evidence.evidence(made),
        "Simulation": told,
        "Simulation of one rate": told["rates"][0],
    }
    assert described("rollouts.md", title) == set(found[title])
