"""The tasks that reach Linux devices."""

from __future__ import annotations

from typing import Any

from edgekd.cli.command import COMMON, DEPLOY_ROWS, SSH, advise, command, make_request, print_json


@command(*COMMON, *SSH)
def deploy(**given: Any) -> None:
    """Bring the bundle to a Linux device over SSH, whole or not at all."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    with ProgressView() as view:
        result = api.deploy(make_request(view, given), given["to"])
    if given["json"]:
        print_json(result)
        return
    rows = [
        (name, ", ".join(v) if isinstance(v, list) else v)
        for name, v in result.items()
        if name in DEPLOY_ROWS
    ]
    show_table(f"{result['target']}: {result['outcome']}", ("what", "value"), rows)
    advise(f"invoke bench --target {given['target']}" + (f" --to {given['to']}" if given["to"] else ""))


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
