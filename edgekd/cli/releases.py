"""The tasks of signed releases: `release.create`, `.sign`, `.publish`, `.show`, `.floor`, `.withdraw`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.cli.command import COMMON, advise, command, make_request, number, print_json
from edgekd.cli.keys import folder_of
from edgekd.cli.passphrases import ask
from edgekd.errors import ConfigError

OWN = ("fleet", "hardware", "number", "label", "licence", "bom", "limits", "slot_bytes")


@command(*COMMON, *OWN, "publish", group="release")
def create(**given: Any) -> None:
    """Propose a release of the recipe for the target: bundle, bench record, vectors, ML-BOM, limits.

    With --publish it is signed and published at once, where the keys are here.
    """
    from edgekd import api_fleet
    from edgekd.report.screen import ProgressView
    from edgekd.report.tables import show_table

    own = {name: given.pop(name) for name in OWN}
    at_once = given.pop("publish")
    if not given["target"]:
        raise ConfigError("no target is named; add --target NAME, what the release is for")
    with ProgressView() as view:
        made = api_fleet.release_create(
            folder_of(own),
            request=make_request(view, given),
            hardware=_words(own["hardware"]),
            number=number(own["number"], "number") or 0,
            label=own["label"],
            licence=own["licence"],
            bom=Path(own["bom"]) if own["bom"] else None,
            limits=Path(own["limits"]) if own["limits"] else None,
            slot_bytes=number(own["slot_bytes"], "slot-bytes") or 0,
        )
    if at_once:
        made |= _publish_now(own)
    if given["json"]:
        print_json(made)
        return
    rows = [(k, ", ".join(v) if isinstance(v, list) else v) for k, v in made.items()]
    word = "published" if at_once else "proposed"
    show_table(f"{made['model']} release {made['release']}, {word}", ("what", "value"), rows)
    if at_once:
        advise(f"edgekd fleet.start --name {made['model']} --number {made['release']} --to @all")
    else:
        advise("edgekd release.sign", "edgekd release.publish")


def _publish_now(own: dict[str, Any]) -> dict[str, Any]:
    """Sign and publish what was proposed: by whom, and how many files. VerifyError where a key lacks."""
    from edgekd import api_fleet

    signed = api_fleet.release_sign(folder_of(own), ask=ask)
    done = api_fleet.release_publish(folder_of(own))
    return {"waiting": "", "signed_by": signed["signed_by"], "published": len(done["published"])}


@command("fleet", "keys", "json", group="release")
def sign(**given: Any) -> None:
    """Sign what waits: with --keys NAME (a comma between several), else with the keys that are here."""
    from edgekd import api_fleet

    done = api_fleet.release_sign(folder_of(given), names=_words(given["keys"]), ask=ask)
    if given["json"]:
        print_json(done)
        return
    _show_changes(done)
    print(f"signed by {', '.join(done['signed_by']) or 'nobody: everything needed is signed'}")
    for lack in done["lacking"]:
        print(f"waiting: {lack}")
    if done["lacking"]:
        advise("carry the fleet's folder to the holder of a further key: edgekd release.sign --keys NAME")
    else:
        advise("edgekd release.publish")


@command("fleet", "json", group="release")
def publish(**given: Any) -> None:
    """Bring what is signed to the fleet's host/, whole or not at all."""
    from edgekd import api_fleet

    done = api_fleet.release_publish(folder_of(given))
    if given["json"]:
        print_json(done)
        return
    _show_changes(done)
    for file in done["published"]:
        print(f"published {file}")
    advise(f"copy {done['host']} to your static host", "edgekd fleet.push")


@command("fleet", "json", group="release")
def show(**given: Any) -> None:
    """The live releases, each model's floor, and what is chosen where."""
    from edgekd import api_fleet
    from edgekd.report.tables import show_table

    found = api_fleet.releases(folder_of(given))
    if given["json"]:
        print_json(found)
        return
    columns = ("model", "release", "label", "hardware", "payload_bytes", "floor")
    rows = []
    for row in found:
        chosen = ", ".join(f"{where} {ppm / 10_000:g} %" for where, ppm in row["chosen"].items())
        rows.append([*(_text(row[name]) for name in columns), chosen or None])
    show_table("Releases", (*columns, "chosen"), rows, right=(1, 4, 5))


@command("fleet", positional=("model_name", "release_number"), group="release")
def floor(model_name: str, release_number: str, **given: Any) -> None:
    """Propose a floor: no device runs a smaller release of the model, now or ever."""
    from edgekd import api_fleet

    api_fleet.release_floor(folder_of(given), model=model_name, number=_number(release_number))
    advise("edgekd release.sign", "edgekd release.publish")


@command("fleet", positional=("model_name", "release_number"), group="release")
def withdraw(model_name: str, release_number: str, **given: Any) -> None:
    """Propose that a release is signed no longer: no device installs it."""
    from edgekd import api_fleet

    api_fleet.release_withdraw(folder_of(given), model=model_name, number=_number(release_number))
    advise("edgekd release.sign", "edgekd release.publish")


def _show_changes(done: dict[str, Any]) -> None:
    for change in done["changes"]:
        print(change)


def _number(text: str) -> int:
    found = number(text, "release")
    if found is None:
        raise ConfigError("no release is named; add its number")
    return found


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _text(value: Any) -> Any:
    return ", ".join(value) if not isinstance(value, str | int) else value
