"""Tables of rollouts: plans, how they stand, their events, and what a simulation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from edgekd.report.tables import show_table

ENDINGS = ("stopped", "paused", "asked", "finished")


def show_simulation(found: Mapping[str, Any]) -> None:
    """A row a failure rate: how rollouts end, and how many devices the release failed on."""
    columns = ("failing", *ENDINGS, "lost, median", "lost, p95", "lost, most", "hours, median")
    rows = [
        (
            f"{100 * row['failing']:g} %",
            *(f"{100 * row['shares'].get(ending, 0):.1f} %" for ending in ENDINGS),
            f"{row['lost_median']:.0f}",
            f"{row['lost_p95']:.0f}",
            row["lost_most"],
            f"{row['took_median_s'] / 3600:.1f}",
        )
        for row in found["rates"]
    ]
    runs = found["rates"][0]["runs"]
    title = (
        f"simulated: {runs:,} rollouts each, {found['devices']:,} devices,"
        f" {100 * found['tolerated']:g} % tolerated, {found['canaries']} canaries,"
        f" at most {found['max_failed_devices']:g} expected losses a wave"
    )
    show_table(title, columns, rows, right=range(1, len(columns)))
    sizes = ", ".join(f"{wave['allowed']:,}" for wave in found["plan"])
    print(f"\nwaves of a release that fails nowhere: {sizes}")
    if found["plan"][-1]["allowed"] < found["devices"]:
        print("no bound carries it further: a person is asked from there on")
    print(
        f"stopped by {found['least_failures_to_stop']} failures at the soonest; of releases at"
        f" {100 * found['tolerated']:g} % at most {100 * found['false_stop_at_most']:g} % are stopped"
    )
    print(f"operator: {found['operator']}")


def show_plan(made: Mapping[str, Any]) -> None:
    """Who, in which waves, and what the gate can decide for so many."""
    rows = [
        ("release", f"{made['model']} {made['release']} for {', '.join(made['hardware'])}"),
        ("devices", made["devices"]),
        ("canaries", ", ".join(made["canaries"])),
        ("bytes", f"{made['bytes_a_device']:,} a device, {made['bytes_in_all']:,} in all, payload alone"),
        ("tolerated", f"{100 * made['tolerated']:g} % of devices failing, signed with the release"),
        ("a wave may lose", f"{made['max_failed_devices']:g} devices, expected at the upper bound"),
        ("waves if nothing fails", ", ".join(f"{wave['allowed']:,}" for wave in made["waves"])),
        ("stopped by evidence", _decided(made)),
    ]
    if made["asks_from"] is not None:
        rows.append(("asks a person", f"from {made['asks_from']:,} devices on: no bound allows more"))
    show_table(f"plan (nothing is written): {made['rollout']}", ("what", "value"), rows)


def _decided(made: Mapping[str, Any]) -> str:
    least = made["least_failures_to_stop"]
    if least is None:
        return "never: too few devices for evidence; a lost canary pauses"
    wrong = 100 * made["false_stop_at_most"]
    return f"{least} failures at the soonest; wrongly in at most {wrong:g} % of rollouts"


SHOWN = ("status", "why", "devices", "allowed", "admitted", "confirmed", "failed", "silent", "waiting")


def show_rollout(found: Mapping[str, Any]) -> None:
    """How one rollout stands."""
    rows = [(name, found[name]) for name in SHOWN if found[name] not in ("", None)]
    rows.append(("evidence", evidence_of(found)))
    if found["lost_canaries"]:
        rows.append(("lost canaries", ", ".join(found["lost_canaries"])))
    if found.get("watched_by"):
        rows.append(("watched by", found["watched_by"]))
    rows += [("published", each) for each in found.get("published", ())]
    title = f"{found['rollout']}: {found['model']} release {found['release']}"
    show_table(title, ("what", "value"), rows)


def evidence_of(found: Mapping[str, Any]) -> str:
    """The odds so far, and those that stop it."""
    return f"{found['evidence']:,.3g} : 1 of {found['evidence_to_stop']:,.0f} : 1 that stop it"


def show_rollouts(found: Sequence[Mapping[str, Any]]) -> None:
    """A row a rollout."""
    columns = ("rollout", "release", "status", "allowed", "confirmed", "failed", "silent", "why")
    rows = [
        (
            each["rollout"],
            f"{each['model']} {each['release']}",
            each["status"],
            f"{each['allowed']:,} of {each['devices']:,}",
            each["confirmed"],
            each["failed"],
            each["silent"],
            each["why"],
        )
        for each in found
    ]
    show_table(f"{len(rows)} rollouts", columns, rows, right=(4, 5, 6))


def show_events(found: Sequence[Mapping[str, Any]]) -> None:
    """A row an event."""
    rows = [
        (
            datetime.fromtimestamp(each["at_s"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
            each["by"],
            f"{each['kind']} {each['outcome']}" if each["outcome"] != "open" else each["kind"],
            len(each["devices"]) or each["allowed"] or None,
            each["why"],
        )
        for each in found
    ]
    show_table(f"{len(rows)} events, UTC", ("when", "who", "what", "devices", "why"), rows, right=(3,))


def show_evidence(found: Mapping[str, Any]) -> None:
    """A row a failure, in order of admission."""
    rows = [(f"{devices:,}", f"{odds:,.3g} : 1") for devices, odds in found["path"]]
    title = f"{found['rollout']}, {found['status']}: {found['words']}"
    show_table(title, ("failure at device", "evidence"), rows, right=(0, 1))
    if found["why"]:
        print(found["why"])


def show_look(status: Mapping[str, Any], events: Sequence[Any], stream: TextIO, now: str) -> None:
    """One look of a watcher, in a line; a line more for each decision."""
    if status["watched_by"]:
        print(f"{now} waiting: {status['watched_by']} watches it", file=stream)
        return
    for event in events:
        if event.why:
            print(f"{now} {event.kind}: {event.why}", file=stream)
    print(
        f"{now} {status['status']}: {status['confirmed']} confirmed, {status['failed']} failed,"
        f" {status['silent']} silent, {status['waiting']} waiting, {status['allowed']} of"
        f" {status['devices']} may take part; evidence {evidence_of(status)}",
        file=stream,
    )
