"""The tasks that reach a fleet's devices over SSH: `fleet.enrol`, `fleet.push`, `fleet.status`."""

from __future__ import annotations

import sys
from typing import Any

from invoke.exceptions import Exit

from edgekd.cli.command import SSH, advise, command, number, print_json
from edgekd.cli.keys import folder_of
from edgekd.errors import ConfigError

REACH = ("fleet", *SSH, "inventory", "target", "agent_root", "deadline")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _run(given: dict[str, Any], what: str, **more: Any) -> None:
    """Reach the devices under a live table; print rows, errors, and end with the worst exit code."""
    from edgekd import api_fleet
    from edgekd.report.hosts import HostsView

    reach = api_fleet.reach(
        folder_of(given),
        given["to"],
        inventory=given["inventory"],
        target=given["target"],
        key=given["key"],
        ssh_config=given["ssh_config"],
        agent_root=given["agent_root"],
        deadline_s=number(given["deadline"], "deadline"),
    )
    with HostsView([host.name for host in reach.hosts]) as view:
        found = getattr(api_fleet, what)(reach, view, **more)
    if given["json"]:
        print_json(found)
    else:
        _show(found)
    if found["exit_code"]:
        raise Exit(code=found["exit_code"])


def _show(found: dict[str, Any]) -> None:
    from edgekd.report.tables import show_table

    rows = [
        (row["host"], row["outcome"], _releases(row), _why(row), row["seconds"]) for row in found["hosts"]
    ]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found["counts"].items())
    show_table(counts or "no devices", ("device", "outcome", "releases", "why", "s"), rows, right=(4,))
    for row in found["hosts"]:
        if row["error"]:
            print(f"edgekd: {row['host']}: {row['error']}", file=sys.stderr)


def _releases(row: dict[str, Any]) -> str:
    return ", ".join(f"{model} {number}" for model, number in row.get("releases", {}).items())


def _why(row: dict[str, Any]) -> str:
    reasons = [f"{model}: {reason}" for model, reason in row.get("reasons", {}).items()]
    return "; ".join([row["refused"]["message"]] if row.get("refused") else reasons)


@command(
    *REACH,
    "hardware",
    "models",
    "url",
    "report_url",
    "clock",
    "user",
    "restart",
    "again",
    "json",
    group="fleet",
)
def enrol(**given: Any) -> None:
    """Put the agent on devices, and keep the public key that each makes."""
    _run(
        given,
        "enrol",
        hardware=given["hardware"],
        models=_words(given["models"]),
        url=given["url"],
        report_url=given["report_url"],
        clock=_clock(given["clock"]),
        user=given["user"],
        restart=tuple(given["restart"].split()),
        again=given["again"],
    )
    advise("invoke fleet.push --to " + given["to"])


def _clock(text: str) -> str:
    if text not in ("", "synced", "system"):
        raise ConfigError(f"--clock is {text!r}; it must be synced or system")
    return text


@command(*REACH, "json", group="fleet")
def push(**given: Any) -> None:
    """Let devices install what the rollout chooses for them: checked, tried, confirmed or reverted there."""
    _run(given, "push")


@command(*REACH, "json", group="fleet")
def status(**given: Any) -> None:
    """What devices run, by their own signed word."""
    _run(given, "status")
