"""The tasks that reach Linux devices."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from invoke.exceptions import Exit

from edgekd.cli.command import COMMON, DEPLOY_ROWS, SSH, advise, command, make_request, number, print_json
from edgekd.errors import ConfigError


@command(*COMMON, *SSH, "inventory", "deadline", "rollback", "service", "port")
def deploy(**given: Any) -> None:
    """Bring the bundle to Linux devices over SSH, whole or not at all; --rollback: back to the one before."""
    from edgekd import api
    from edgekd.report.screen import ProgressView

    deadline_s = number(given["deadline"], "deadline")
    if given["rollback"] and given["service"]:
        raise ConfigError("--rollback goes back and --service installs; leave one out")
    with ProgressView() as view:
        request = make_request(view, given)
        hosts = api.hosts(request, given["to"], given["inventory"])
        if not _names_many(given["to"]):
            found = api.deploy_many(request, hosts, _as_progress(view), **_how(given, deadline_s))
    if _names_many(given["to"]):
        _deploy_many(request, hosts, given, deadline_s)
        return
    row = found["hosts"][0]
    if row["error"]:
        print(f"edgekd: {row['error']}", file=sys.stderr)
        raise Exit(code=found["exit_code"])
    _show_deployed(given, {"target": found["target"], **row})


def _names_many(to: str) -> bool:
    return "," in to or to.startswith("@")


def _how(given: Mapping[str, Any], deadline_s: int | None) -> dict[str, Any]:
    how: dict[str, Any] = {"back": given["rollback"], "service": given["service"]}
    how |= {"port": number(given["port"], "port") or 0}
    return how | ({"deadline_s": deadline_s} if deadline_s else {})


def _as_progress(view: Any) -> Any:
    """One device's work as a progress bar."""

    def tell(host: Any, what: str, done: int, total: int) -> None:
        if total > 1:
            view(what, done, total)

    return tell


def _deploy_many(request: Any, hosts: list[Any], given: Mapping[str, Any], deadline_s: int | None) -> None:
    """The same on several devices: a live table, a summary, the errors one below the other."""
    from edgekd import api
    from edgekd.report.hosts import HostsView, show_summary

    if not given["rollback"]:
        api.make(request, "export")  # with its own progress, before the table of devices is drawn
    with HostsView([host.name for host in hosts]) as view:
        found = api.deploy_many(request, hosts, view, **_how(given, deadline_s))
    if given["json"]:
        print_json(found)
    else:
        show_summary(found)
        for row in found["hosts"]:
            if row["error"]:
                print(f"edgekd: {row['host']}: {row['error']}", file=sys.stderr)
    if found["exit_code"]:
        raise Exit(code=found["exit_code"])


def _show_deployed(given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    from edgekd.report.tables import show_table

    if given["json"]:
        print_json(result)
        return
    shown = (*DEPLOY_ROWS, "left")
    served = result.get("service")
    rows = [(k, ", ".join(v) if isinstance(v, list) else v) for k, v in result.items() if k in shown]
    if served:
        rows.append(("served by", f"{served['unit']}.service: {served['health']['status']}"))
        rows += [("at", served["socket"])] if "socket" in served else []
    show_table(f"{result['target']}: {result['outcome']}", ("what", "value"), rows)
    advise(f"invoke bench --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))


@command("target", *SSH, "inventory", "lines", "store", "json")
def logs(**given: Any) -> None:
    """Say what was done on a Linux device: deploys and rollbacks, when, by whom."""
    from datetime import UTC, datetime

    from edgekd import api
    from edgekd.report.tables import show_table

    lines = number(given["lines"], "lines") or 50
    found = api.logs(make_request(lambda *a: None, given), given["to"], given["inventory"], lines)
    if given["json"]:
        print_json(found)
        return
    rows = [
        (
            datetime.fromtimestamp(e["when"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
            e["event"],
            e["release"],
            e["by"],
        )
        for e in found["journal"]
    ]
    show_table(f"current: {found['current']}", ("UTC by its clock", "what", "release", "by"), rows)
    for line in (found["service"] or {}).get("said", []):
        print(line)


@command("recipe", "model", "target", *SSH, "inventory", "input", "store", "json")
def run(**given: Any) -> None:
    """One inference on a Linux device, of the release that is current there: the answer with its label."""
    from pathlib import Path

    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    if not given["input"]:
        raise ConfigError("no sample is named; add --input FILE (.npy, .npz, .csv, .wav or an image)")
    with ProgressView() as view:
        request = make_request(view, given)
        found = api.run(request, Path(given["input"]), given["to"], given["inventory"])
    if given["json"]:
        print_json(found)
        return
    shown = ("label", "index", "score", "variant", "threads", "latency_us", "load_us")
    rows = [(name, found[name]) for name in shown if found[name] is not None]
    outputs = ", ".join(f"{value:.4g}" for value in found["output"][:16])
    rows.append(("output", outputs + (", ..." if len(found["output"]) > 16 else "")))
    show_table(f"{given['input']} on {found['release']}", ("what", "value"), rows)


@command("target", *SSH, "store", "json")
def trust(**given: Any) -> None:
    """Pin the host key that a Linux device shows now, after you have compared its fingerprint."""
    from edgekd import api

    trusted = api.trust(make_request(lambda *a: None, given), given["to"])
    if given["json"]:
        print_json(trusted)
        return
    print(
        f"{trusted['host']}: {trusted['key']} {trusted['fingerprint']} "
        f"{'pinned' if trusted['added'] else 'was pinned already'}"
    )
    advise(f"invoke deploy --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))
