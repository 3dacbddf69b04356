"""The tasks that plan and watch rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.cli.command import command, print_json

QUESTION = (
    "devices",
    "tolerated",
    "rates",
    "canaries",
    "max_failed",
    "silent",
    "absent",
    "runs",
    "resumes",
    "seed",
)


@command(*QUESTION, "out", "json", group="fleet")
def sim(**given: Any) -> None:
    """Simulate rollouts under the shipped gate: how many devices would a bad release cost?"""
    from edgekd import api
    from edgekd.report.rollouts import show_simulation
    from edgekd.report.screen import ProgressView

    out = given.pop("out")
    as_json = given.pop("json")
    with ProgressView() as view:
        found = api.simulate_rollouts(given, Path(out) if out else None, progress=view)
    print_json(found) if as_json else show_simulation(found)
