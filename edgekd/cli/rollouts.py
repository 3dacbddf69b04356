"""The tasks that plan and watch rollouts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.exceptions import Exit

from edgekd.cli.command import SSH, advise, command, number, print_json
from edgekd.cli.keys import folder_of
from edgekd.cli.passphrases import ask
from edgekd.errors import ConfigError

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
    from edgekd import api_rollouts
    from edgekd.report.rollouts import show_simulation
    from edgekd.report.screen import ProgressView

    out = given.pop("out")
    as_json = given.pop("json")
    with ProgressView() as view:
        found = api_rollouts.simulate_rollouts(given, Path(out) if out else None, progress=view)
    print_json(found) if as_json else show_simulation(found)


WHERE = ("fleet", "database", "reports")
REACH = (*SSH, "inventory", "target", "agent_root", "deadline")


def _place(given: dict[str, Any]) -> Any:
    from edgekd import api_rollouts

    return api_rollouts.place(folder_of(given), database=given["database"], reports=given["reports"])


def _draft(given: dict[str, Any], where: Any) -> Any:
    from edgekd import api_rollouts

    release = number(given["number"], "number")
    if not given["name"] or release is None:
        raise ConfigError("which release? name it with --name MODEL --number N (release.show lists them)")
    wish = {
        "canaries": number(given["canaries"], "canaries"),
        "max_failed": number(given["max_failed"], "max-failed"),
        "deadline_s": number(given["deadline"], "deadline"),
        "all_at_once": given["all_at_once"] or None,
    }
    return api_rollouts.draft(
        where,
        given["name"],
        release,
        devices=given["where"],
        inventory=given["inventory"],
        **{key: value for key, value in wish.items() if value is not None},
    )


PLANNED = (
    *WHERE,
    "name",
    "number",
    "where",
    "inventory",
    "canaries",
    "max_failed",
    "deadline",
    "all_at_once",
)


@command(*PLANNED, "json", group="fleet")
def plan(**given: Any) -> None:
    """What a rollout would do, before it starts: who, in which waves, how many bytes; nothing is written."""
    from edgekd.report.rollouts import show_plan

    made = _draft(given, _place(given)).told()
    print_json(made) if given["json"] else show_plan(made)


@command(*dict.fromkeys((*PLANNED, *REACH)), "every", "out", "json", group="fleet")
def start(**given: Any) -> None:
    """Start a rollout: its canaries may begin; `fleet.watch` widens it.

    With --to it enrols those of these devices that are not yet, and watches and pushes until the end.
    """
    from edgekd import api_rollouts

    where = _place(given)
    if given["to"]:
        _enrol_new(given, where)
    made = _draft(given, where)
    found = api_rollouts.start(where, made, ask)
    if given["to"]:
        _show(given, _watched(given | {"rollout": made.plan.rollout, "once": False}, where))
        return
    _show(given, found)
    advise(f"invoke fleet.watch --rollout {made.plan.rollout}")


def _enrol_new(given: dict[str, Any], where: Any) -> None:
    """Enrol the devices of --to that are not. EdgekdError where one of them cannot be."""
    from edgekd import api_fleet

    reach = _reach(given)
    found = api_fleet.enrol_new(reach, lambda *told: None, models=(given["name"],))
    for row in found["hosts"]:
        if row["error"]:
            print(f"edgekd: {row['host']}: {row['error']}", file=sys.stderr)
    if found["exit_code"]:
        raise Exit(code=found["exit_code"])


@command(*WHERE, "rollout", "every", "once", *REACH, "out", "json", group="fleet")
def watch(**given: Any) -> None:
    """Collect reports, widen on evidence, stop on losses, until the end; --to pushes over SSH, too.

    --out keeps a picture of the evidence up to date.
    """
    _show(given, _watched(given, _place(given)))


def _watched(given: dict[str, Any], where: Any) -> dict[str, Any]:
    """Watch under the live table; the last status."""
    from edgekd import api_rollouts
    from edgekd.report.rollout_view import RolloutView

    with RolloutView() as view:

        def tell(status: dict[str, Any], events: list[Any]) -> None:
            view(status, events)
            if given["out"]:
                _draw(given, api_rollouts.evidence(where, status["rollout"]))

        return api_rollouts.watch(
            where,
            given["rollout"],
            ask,
            once=given["once"],
            every_s=float(number(given["every"], "every") or 30),
            push=_push(given) if given["to"] else list,
            tell=tell,
        )


@command(*WHERE, "rollout", "out", "json", group="fleet")
def evidence(**given: Any) -> None:
    """What speaks against a release so far, in words and figures; --out FILE.svg draws it."""
    from edgekd import api_rollouts
    from edgekd.report.rollouts import show_evidence

    found = api_rollouts.evidence(_place(given), given["rollout"])
    if given["out"]:
        _draw(given, found)
    found.pop("picture")
    print_json(found) if given["json"] else show_evidence(found)


def _draw(given: dict[str, Any], found: dict[str, Any]) -> None:
    try:
        Path(given["out"]).write_text(found["picture"], "utf-8")
    except OSError as error:
        raise ConfigError(
            f"{given['out']}: cannot be written ({error.strerror}); name another --out"
        ) from None


def _reach(given: dict[str, Any]) -> Any:
    from edgekd import api_fleet

    return api_fleet.reach(
        folder_of(given),
        given["to"],
        **{name: given[name] for name in ("inventory", "target", "key", "ssh_config", "agent_root")},
        deadline_s=number(given["deadline"], "deadline"),
    )


def _push(given: dict[str, Any]) -> Callable[[], list[dict[str, Any]]]:
    """Push to the devices of --to, and give what they report; who is away says nothing this time."""
    from edgekd import api_fleet

    reach = _reach(given)

    def push() -> list[dict[str, Any]]:
        rows = api_fleet.push(reach, lambda *told: None)["hosts"]
        return [row["report"] for row in rows if row.get("report")]

    return push


@command(*WHERE, "rollout", "why", group="fleet")
def pause(**given: Any) -> None:
    """Nobody else starts until somebody resumes; who has the release keeps it."""
    from edgekd import api_rollouts

    _show(given, api_rollouts.pause(_place(given), given["rollout"], given["why"], ask))


@command(*WHERE, "rollout", "why", "yes", "afresh", group="fleet")
def resume(**given: Any) -> None:
    """Go on, lost canaries accepted; --yes widens once without a bound, --afresh tries failures again."""
    from edgekd import api_rollouts

    where, how = _place(given), {"has_yes": given["yes"], "afresh": given["afresh"]}
    _show(given, api_rollouts.resume(where, given["rollout"], given["why"], ask, **how))


@command(*WHERE, "rollout", "number", "why", group="fleet")
def recall(**given: Any) -> None:
    """End the rollout and send everybody to an older signed release (--number)."""
    from edgekd import api_rollouts

    older = number(given["number"], "number")
    if older is None:
        raise ConfigError("to which release? say --number N, an older signed release")
    _show(given, api_rollouts.recall(_place(given), given["rollout"], older, given["why"], ask))


@command(*WHERE, "json", group="fleet")
def rollouts(**given: Any) -> None:
    """Every rollout and how it stands."""
    from edgekd import api_rollouts
    from edgekd.report.rollouts import show_rollouts

    found = api_rollouts.rollouts(_place(given))
    print_json(found) if given["json"] else show_rollouts(found)


@command(*WHERE, "rollout", "json", group="fleet")
def events(**given: Any) -> None:
    """A rollout's log: who did what, when and why."""
    from edgekd import api_rollouts
    from edgekd.report.rollouts import show_events

    found = api_rollouts.events(_place(given), given["rollout"])
    print_json(found) if given["json"] else show_events(found)


def _show(given: dict[str, Any], found: dict[str, Any]) -> None:
    from edgekd.report.rollouts import show_rollout

    print_json(found) if given.get("json") else show_rollout(found)
