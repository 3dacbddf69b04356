"""The task of a structure search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.cli.command import advise, command, make_request, number, print_json, warn
from edgekd.errors import ConfigError

_UNITS = {"max_ram": 1024, "max_flash": 1024, "max_cycles": 1000, "max_instructions": 1000}
_POWERS = {"k": 1, "m": 2, "g": 3}
_BUDGETS = {"max_ram": "max_ram_bytes", "max_flash": "max_flash_bytes"}


@command(
    *("recipe", "target", "source", "compiler", *_UNITS, "trials", "workers", "storage", "pick", "out"),
    *("store", "shared", "json"),
)
def search(**given: Any) -> None:
    """Look for students that fit the target: each trained a little, compared by accuracy and cost."""
    from edgekd import api
    from edgekd.report.screen import ProgressView
    from edgekd.report.search import show_search

    wanted: dict[str, Any] = {_BUDGETS.get(name, name): amount(given[name], name) for name in _UNITS}
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


def amount(text: str, option: str) -> int | None:
    """A number with k, M or G behind it: times 1,024 for bytes, times 1,000 for others."""
    if not text:
        return None
    power = _POWERS.get(text[-1].lower(), 0)
    digits = text[:-1] if power else text
    try:
        value = float(digits) * _UNITS[option] ** power
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15:
        raise ConfigError(
            f"--{option.replace('_', '-')} is {text!r}; it must be a number from 1, as 16k or 5M"
        )
    return int(value)
