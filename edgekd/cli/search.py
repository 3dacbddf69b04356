"""The task of a structure search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.cli.command import advise, amount, command, make_request, number, print_json, warn
from edgekd.errors import ConfigError

# Option -> its name in edgekd.api.search.
_BUDGETS = {
    "max_ram": "max_ram_bytes",
    "max_flash": "max_flash_bytes",
    "max_cycles": "max_cycles",
    "max_instructions": "max_instructions",
}


@command(
    *("recipe", "target", "source", "compiler", *_BUDGETS, "trials", "workers", "storage", "pick", "out"),
    *("store", "shared", "json"),
)
def search(**given: Any) -> None:
    """Look for students that fit the target: each trained a little, compared by accuracy and cost."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.search import show_search

    wanted: dict[str, Any] = {key: amount(given[name], name) for name, key in _BUDGETS.items()}
    wanted |= {
        "trials": number(given["trials"], "trials"),
        "workers": number(given["workers"], "workers") or 1,
    }
    if given["out"] and not given["pick"]:
        raise ConfigError("--out names the recipe that --pick writes; add --pick best, or leave it out")
    names = ("recipe", "target", "source", "compiler", "store", "shared")
    with ProgressView() as view:
        request = make_request(view, {name: given[name] for name in names})
        found = api.search(request, **wanted, storage=given["storage"], say=warn)
    recipe = api.pick(request, found, given["pick"], Path(given["out"]) if given["out"] else None)
    if given["json"]:
        print_json(found | {"recipe": str(recipe) if recipe else None})
        return
    show_search(found)
    print(f"picture: {found['folder']}/front.svg")
    if recipe:
        print(f"recipe: {recipe}")
        advise(f"invoke bench --recipe {recipe.stem} --target {given['target']}")
    else:
        advise("invoke search ... --pick best (or smallest, or a trial's number) writes a recipe of it")
