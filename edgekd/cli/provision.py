"""The tasks that make a Linux device ready, and look at what it has."""

from __future__ import annotations

from typing import Any

from edgekd.cli.command import SSH, advise, command, make_request, print_json


@command("target", *SSH, "runtimes", "cache", "store", "json")
def provision(**given: Any) -> None:
    """Give a Linux device that has no internet its runtime, from here, and prove it with one inference."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    wanted, cache = given.pop("runtimes"), given.pop("cache")
    runtimes = tuple(name.strip() for name in wanted.split(",") if name.strip())
    with ProgressView() as view:
        done = api.provision(make_request(view, given), given["to"], runtimes, cache)
    if given["json"]:
        print_json(done)
        return
    shown = ("environment", "packages", "python", "libc", "uploaded_bytes", "seconds", "note", "clock")
    rows = [
        (name, ", ".join(done[name]) if isinstance(done[name], list) else done[name])
        for name in shown
        if done[name] is not None
    ]
    show_table(f"{done['target']}: {done['outcome']}", ("what", "value"), rows)
    advise(f"invoke deploy --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))


def show_device(given: dict[str, Any]) -> bool:
    """The table of `doctor --target`; False where something is bad."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    with ProgressView() as view:
        rows = api.doctor_device(make_request(view, given), given["to"])
    if given["json"]:
        print_json(rows)
    else:
        table = [(row["check"], row["state"], row["found"], row["mend"]) for row in rows]
        show_table(f"Device {given['target']}", ("check", "state", "found", "mend"), table)
    return all(row["state"] != "bad" for row in rows)
