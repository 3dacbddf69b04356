"""The tasks that show what the compiler would build: the memory plan, and the builds to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.cli.command import advise, command, make_request, print_json

_BUILD = ("model", "recipe", "target", "compiler", "optimize", "winograd")


@command(*_BUILD, "out", "store", "json")
def plan(**given: Any) -> None:
    """Where a model's tensors lie in RAM and when: a table, and a picture with --out FILE.svg."""
    from edgekd import api
    from edgekd.report.plan import show_plan

    request = make_request(lambda *a: None, with_target(given))
    found = api.plan(request, Path(given["out"]) if given["out"] else None)
    if given["json"]:
        print_json(found)
        return
    show_plan(found)
    if given["out"]:
        print(f"picture: {given['out']}")
    else:
        advise(f"invoke plan {origin(given)} --out plan.svg draws it")


@command("model", "recipe", "target", "compiler", "measure", "out", "store", "json")
def front(**given: Any) -> None:
    """The builds that none beats in cycles, RAM and flash, by estimates; --measure runs them."""
    from edgekd import api
    from edgekd.report.front import show_front
    from edgekd.report.screen import ProgressView

    with ProgressView() as view:
        request = make_request(view, with_target(given))
        found = api.front(request, Path(given["out"]) if given["out"] else None, given["measure"])
    if given["json"]:
        print_json(found)
        return
    show_front(found)
    if given["out"]:
        print(f"picture: {given['out']}")
    if any(row["on_front"] for row in found["builds"]):
        advise(f"invoke bench {origin(given)} --target {found['target']} with the options of one of them")


def with_target(given: dict[str, Any]) -> dict[str, Any]:
    """The options, with the emulated core where no target is named."""
    return given | ({} if given["target"] else {"target": "mcu-sim"})


def origin(given: dict[str, Any]) -> str:
    """The options that name the model again."""
    return f"--model {given['model']}" if given["model"] else "--recipe " + (given["recipe"] or "digits")
