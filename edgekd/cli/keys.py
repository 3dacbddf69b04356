"""The tasks of a fleet's keys: `keys.init`, `.status`, `.rotate`, `.refresh`, `.recover`, `.drill`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgekd.cli.command import advise, command, number, print_json
from edgekd.cli.passphrases import ask, ask_new
from edgekd.errors import ConfigError, RolloutError, VerifyError

LOST = (
    ("the online key", "nothing new can be chosen until it is replaced: keys.rotate, with two root keys"),
    ("one key of targets", "nothing: the other signs, and keys.rotate replaces it"),
    ("one root key", "nothing: the other two replace it with keys.rotate; do it the same day"),
    ("two root keys", "everything: no key can be replaced ever again, every device is provisioned anew"),
)


def folder_of(given: dict[str, Any]) -> Path | None:
    """The fleet's folder that was named."""
    return Path(given["fleet"]) if given["fleet"] else None


@command("fleet", "name", "online_days", "paper", "json", group="keys")
def init(**given: Any) -> None:
    """Begin a fleet: six keys, two signed repositories to be put on any static host, paper backups."""
    from edgekd import api_fleet
    from edgekd.report.tables import show_table

    made = api_fleet.keys_init(
        folder_of(given),
        name=given["name"],
        online_days=number(given["online_days"], "online-days") or 7,
        paper=_paper(given),
        ask=ask_new,
    )
    if given["json"]:
        print_json(made)
        return
    rows = [tuple(key.values()) for key in made["keys"]]
    show_table(f"Fleet {made['fleet']}", ("key", "signs", "lies in"), rows)
    print()
    show_table("If it is lost", ("what", "what is lost with it"), LOST)
    paper = f"{made['paper']}: print it, seal each sheet by itself, delete the file"
    print(f"\npaper backups: {paper}", file=sys.stderr)
    advise("give root-1 and root-2 to two people, seal root-3, remove their files here", "edgekd keys.drill")


@command("fleet", "json", "strict", group="keys")
def status(**given: Any) -> None:
    """What expires when, which keys are in force, and what should be done."""
    from edgekd import api_fleet
    from edgekd.report.tables import show_table

    found = api_fleet.keys_status(folder_of(given))
    if given["json"]:
        print_json(found)
    else:
        columns = ("repository", "role", "version", "days_left", "keys", "threshold")
        rows = [[_text(row[name]) for name in columns] for row in found["roles"]]
        show_table(f"Fleet {found['fleet']}", columns, rows, right=(2, 3, 5))
        print()
        rows = [
            [row["name"], row["duty"], row["where"], row["in_force"], row["here"]] for row in found["keys"]
        ]
        show_table("Keys", ("key", "signs", "lies in", "in force", "within reach"), rows)
    for warning in found["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if given["strict"] and found["warnings"]:
        raise RolloutError(f"{len(found['warnings'])} warnings; the first: {found['warnings'][0]}")


@command("fleet", "signer", "public", "paper", "json", positional=("key_name",), group="keys")
def rotate(key_name: str, **given: Any) -> None:
    """Replace a key (root-1, targets-2, online-1 …) that was lost or stolen, or whose holder left."""
    from edgekd import api_fleet

    done = api_fleet.keys_rotate(
        folder_of(given),
        name=key_name,
        signer=given["signer"],
        public=Path(given["public"]) if given["public"] else None,
        paper=_paper(given),
        ask=ask,
        ask_new=ask_new,
    )
    if given["json"]:
        print_json(done)
        return
    print(f"{key_name} is replaced by {done['new']}")
    show_outcome(done)
    if done["paper"]:
        print(f"paper backup: {done['paper']}: print it, seal it, delete the file", file=sys.stderr)


@command("fleet", "offline", "json", group="keys")
def refresh(**given: Any) -> None:
    """Sign anew what expires: run it daily from cron; with --offline, what the offline keys sign, too."""
    from edgekd import api_fleet

    done = api_fleet.keys_refresh(folder_of(given), offline=given["offline"], ask=ask)
    if given["json"]:
        print_json(done)
        return
    show_outcome(done)


@command("json", group="keys")
def drill(**given: Any) -> None:
    """Rehearse: every role rotated, keys lost, a device that was away, each move of a stolen online key."""
    from edgekd import api_fleet
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    with ProgressView() as view:
        steps = api_fleet.keys_drill(view)
    wrong = [step for step in steps if not step["is_right"]]
    if given["json"]:
        print_json(steps)
    else:
        rows = [[step["part"], step["what"], step["got"], step["is_right"]] for step in steps]
        show_table("Drill, on a fleet of its own", ("part", "what", "came of it", "as it must"), rows)
    if wrong:
        raise VerifyError(f"{wrong[0]['what']}: {wrong[0]['got']}, and it must be {wrong[0]['expected']}")


@command("fleet", "paper", positional=("key_name",), group="keys")
def recover(key_name: str, **given: Any) -> None:
    """Make a key's file again from its sheet of paper, typed into a file."""
    from edgekd import api_fleet

    if not given["paper"]:
        raise ConfigError("no sheet is named; type its four lines into a file and add --paper FILE")
    sheet = Path(given["paper"])
    file = api_fleet.keys_recover(folder_of(given), name=key_name, paper=sheet, ask_new=ask_new)
    print(f"{key_name}: {file}")


def show_outcome(done: dict[str, Any]) -> None:
    """What was signed and published, or which signatures lack and how to get them."""
    print(f"signed by {', '.join(done['signed_by']) or 'nobody'}")
    for file in done["published"]:
        print(f"published {file}")
    for lack in done["lacking"]:
        print(f"waiting: {lack}")
    if done["lacking"]:
        advise("carry the fleet's folder to the holder of a further key: edgekd release.sign --keys NAME")
    else:
        advise("copy the fleet's host/ to your static host")


def _paper(given: dict[str, Any]) -> Path | None:
    return Path(given["paper"]) if given["paper"] else None


def _text(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
