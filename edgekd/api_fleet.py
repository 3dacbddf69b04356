"""Fleets for a program or a notebook: keys and signed releases; what the command line calls.

Every function raises EdgekdError with one sentence; nothing prints. `folder` is the fleet's
(edgekd/fleet/home.py); None means `fleet/` of the project. `ask` gives the passphrase of a key by its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.api import project_root
from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from edgekd.fleet.home import Home
    from edgekd.fleet.keys import Elsewhere

Ask = Callable[[str], str]
NEEDED = ("cryptography", "cyclonedx", "securesystemslib", "tuf")


def fleet_folder(folder: Path | None = None) -> Path:
    """The fleet's folder: the one named, else `fleet/` of the project around the working directory."""
    return folder or project_root(Path.cwd()) / "fleet"


def open_fleet(folder: Path | None = None) -> Home:
    """The fleet as it is now. Raises ConfigError where there is none."""
    need_packages()
    from edgekd.fleet.home import open_home

    return open_home(fleet_folder(folder), datetime.now(UTC))


def need_packages() -> None:
    """Raise MissingDependencyError where the packages of fleets are not installed."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise MissingDependencyError(
            f"fleets need {', '.join(absent)}; install them with: pip install 'edgekd[fleet]'"
        )


def keys_init(
    folder: Path | None = None,
    *,
    name: str = "",
    online_days: int = 7,
    paper: Path | None = None,
    ask: Ask,
) -> dict[str, Any]:
    """Begin a fleet: keys, both repositories signed and published to `host/`, sheets of paper.

    paper: the file that the sheets are written to, mode 0600 (default: paper.txt in the folder). Returns
    {"fleet", "folder", "paper", "keys": [{"name", "duty", "where"}]}.
    """
    need_packages()
    from edgekd.fleet import keys, sheets

    place = fleet_folder(folder)
    file = paper or place / sheets.FILE
    sheets.refuse(file)
    fleet = name or "".join(c if c.isalnum() else "-" for c in place.resolve().parent.name.lower())
    made = keys.init(place, fleet, datetime.now(UTC), ask, online_days=online_days)
    sheets.write(file, made.sheets.values())
    ring = made.home.ring
    rows = [{"name": e.name, "duty": e.duty, "where": e.uri} for e in ring.entries.values()]
    return {"fleet": fleet, "folder": str(place), "paper": str(file), "keys": rows}


def keys_status(folder: Path | None = None) -> dict[str, Any]:
    """What expires when, which keys are in force, what waits, what to do about it (keystatus.py)."""
    home = open_fleet(folder)
    from edgekd.fleet.keystatus import status

    return status(home)


def keys_rotate(
    folder: Path | None = None,
    *,
    name: str,
    signer: str = "",
    public: Path | None = None,
    paper: Path | None = None,
    ask: Ask,
    ask_new: Ask | None = None,
) -> dict[str, Any]:
    """Replace a key; what `edgekd.fleet.keys.rotate` returns, its sheet written to `paper`.

    signer, public: the URI and the public half of a key that lies in an HSM or a KMS.
    """
    home = open_fleet(folder)
    from edgekd.fleet import keys, sheets

    file = paper or home.folder / sheets.FILE
    elsewhere = _elsewhere(signer, public)
    if elsewhere is None and home.ring.entry(name).duty != "online":
        sheets.refuse(file)
    done = keys.rotate(home, name, ask, ask_new=ask_new, elsewhere=elsewhere)
    sheet = done.pop("sheet")
    if sheet:
        sheets.write(file, [sheet])
    return done | {"paper": str(file) if sheet else None}


def keys_refresh(folder: Path | None = None, *, offline: bool = False, ask: Ask) -> dict[str, Any]:
    """Sign anew what expires; what `edgekd.fleet.keys.refresh` returns."""
    home = open_fleet(folder)
    from edgekd.fleet.keys import refresh

    return refresh(home, ask, offline=offline)


def keys_drill(progress: Progress = silent) -> list[dict[str, Any]]:
    """Rehearse rotations, losses and thefts on a fleet of its own (edgekd/fleet/drill.py).

    Returns [{"part", "what", "expected", "got", "is_right"}].
    """
    need_packages()
    from edgekd.fleet.drill import drill

    with tempfile.TemporaryDirectory(prefix="edgekd-drill-") as scratch:
        steps = drill(Path(scratch), datetime.now(UTC), progress)
    return [{**vars(step), "is_right": step.is_right} for step in steps]


def keys_recover(folder: Path | None = None, *, name: str, paper: Path, ask_new: Ask) -> Path:
    """Make a key's file again from its sheet; its path."""
    home = open_fleet(folder)
    from edgekd.fleet.keys import recover

    try:
        text = paper.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ArtifactError(f"{paper}: cannot be read as text; type the sheet's four lines into it") from None
    return recover(home, name, text, str(paper), ask_new)


def _elsewhere(signer: str, public: Path | None) -> Elsewhere | None:
    from edgekd.fleet.keyring import key_of_pem
    from edgekd.fleet.keys import Elsewhere

    if bool(signer) != bool(public):
        raise ConfigError("--signer names a key elsewhere and --public its public half; give both")
    return Elsewhere(signer, key_of_pem(public)) if signer and public else None


def known_keys(folder: Path | None = None) -> Mapping[str, str]:
    """Name and duty of every key that the fleet has had."""
    return {name: entry.duty for name, entry in open_fleet(folder).ring.entries.items()}


# ---- devices --------------------------------------------------------------------------------------------


def devices(folder: Path | None = None, *, inventory: str = "", where: str = "") -> list[dict[str, Any]]:
    """The devices of the inventory and those that are enrolled, the ones that fit `where` (fleet/devices.py).

    inventory: its file (default: the project's inventory.toml, where there is one).
    """
    from dataclasses import asdict

    from edgekd.device.inventory import FILE, load_inventory
    from edgekd.fleet import devices as known

    place = Path(inventory) if inventory else project_root(Path.cwd()) / FILE
    hosts = load_inventory(place) if inventory or place.is_file() else None
    found = known.all_devices(hosts, known.enrolled(fleet_folder(folder)))
    return [asdict(each) for each in known.where(found, where)]


# ---- releases -------------------------------------------------------------------------------------------


def release_create(
    folder: Path | None = None,
    *,
    request: Any,
    hardware: Sequence[str] = (),
    number: int = 0,
    label: str = "",
    licence: str = "",
    bom: Path | None = None,
    limits: Path | None = None,
    slot_bytes: int = 0,
) -> dict[str, Any]:
    """Propose a release of what the request makes for its target; it waits for release_sign.

    hardware: target profiles that it may run on (default: the request's target); number 0: the next one;
    limits: a TOML file of health limits; bom: an ML-BOM of your own. Returns {"model", "release", "hardware",
    "payload_bytes", "files", "waiting"}.
    """
    home = open_fleet(folder)
    from edgekd import api
    from edgekd.fleet import releasing

    given = releasing.read_limits(limits) if limits else None
    parts = api.release_parts(request, version=label or "next", licence=licence, bom=bom)
    names = tuple(hardware) or (request.need_target().name,)
    wish = releasing.Wish(names, number, label, slot_bytes, given)
    release = releasing.propose(home, parts, wish)
    return {
        "model": release.model,
        "release": release.release,
        "hardware": list(release.hardware),
        "payload_bytes": release.payload_bytes,
        "files": len(release.files),
        "waiting": str(home.proposed),
    }


def release_sign(folder: Path | None = None, *, names: Sequence[str] = (), ask: Ask) -> dict[str, Any]:
    """Sign what waits; what `edgekd.fleet.releasing.sign` returns."""
    home = open_fleet(folder)
    from edgekd.fleet.releasing import sign

    return sign(home, ask, names)


def release_publish(folder: Path | None = None) -> dict[str, Any]:
    """Bring what is signed to the host's folder; what `edgekd.fleet.releasing.publish` returns."""
    home = open_fleet(folder)
    from edgekd.fleet.releasing import publish

    return publish(home) | {"host": str(home.host)}


def release_floor(folder: Path | None = None, *, model: str, number: int) -> None:
    """Propose that no device runs a smaller release of `model` any more, now or ever."""
    home = open_fleet(folder)
    from edgekd.fleet.releasing import raise_floor

    raise_floor(home, model, number)


def release_withdraw(folder: Path | None = None, *, model: str, number: int) -> None:
    """Propose that a release is signed no longer."""
    home = open_fleet(folder)
    from edgekd.fleet.releasing import withdraw

    withdraw(home, model, number)


def releases(folder: Path | None = None) -> list[dict[str, Any]]:
    """Every live release, with its model's floor and what of it is chosen where."""
    home = open_fleet(folder)
    from edgekd.fleet.listing import releases as listed

    return listed(home)


# ---- devices over SSH -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reach:
    """Some devices and the way to them (edgekd/fleet/driving.py), of the fleet in `folder`."""

    folder: Path
    hosts: Sequence[Any]
    way: Any


def reach(
    folder: Path | None = None,
    to: str = "",
    *,
    inventory: str = "",
    target: str = "",
    key: str = "",
    ssh_config: str = "",
    agent_root: str = "",
    deadline_s: float | None = None,
) -> Reach:
    """The devices that `to` names: addresses, hosts or @groups of the inventory, a comma between them.

    target: the profile of those for which the inventory says none; agent_root: where the agent lies there
    (default: edgekd-agent in the login's home). Connects to nothing. Raises ConfigError.
    """
    need_packages()
    from edgekd.api import targets
    from edgekd.device.inventory import FILE, find_hosts, load_inventory
    from edgekd.device.many import DEADLINE_S
    from edgekd.fleet.driving import Way
    from edgekd.fleet.remote import ROOT

    project = project_root(Path.cwd())
    place = Path(inventory) if inventory else project / FILE
    if not to:
        raise ConfigError("no device is named; add --to with addresses, names or @groups of the inventory")
    hosts = find_hosts(to, load_inventory(place) if inventory or place.is_file() else None)
    known = targets()
    for host in hosts:
        if (host.target or target) not in known:
            raise ConfigError(
                f"{host.name}: its target {host.target or target!r} is unknown; name one with --target or in "
                f"the inventory"
            )
    way = Way(
        {host.name: known[host.target or target] for host in hosts},
        project / ".edgekd" / "known_hosts",
        agent_root or ROOT,
        Path(key) if key else None,
        Path(ssh_config) if ssh_config else None,
        deadline_s=deadline_s or DEADLINE_S,
    )
    return Reach(fleet_folder(folder), hosts, way)


def enrol(
    asked: Reach,
    tell: Any,
    *,
    hardware: str = "",
    models: tuple[str, ...] = (),
    url: str = "",
    restart: tuple[str, ...] = (),
    report_url: str = "",
    clock: str = "",
    user: str = "",
    again: bool = False,
) -> dict[str, Any]:
    """Put the agent on devices and keep their public keys; a row each, "counts" and "exit_code".

    clock: "synced" (default with `url`) or "system" (default without: what comes over the pinned session
    needs no clock to be new); user: whom trials run as. Raises ConfigError.
    """
    from edgekd.fleet import driving

    terms = driving.Terms(
        hardware,
        models,
        url,
        clock or ("synced" if url else "system"),
        user,
        restart=restart,
        report_url=report_url,
    )
    now = datetime.now(UTC)
    return driving.enrol(asked.hosts, asked.way, terms, asked.folder, now, tell, again=again)


def enrol_new(asked: Reach, tell: Any, **terms: Any) -> dict[str, Any]:
    """Enrol those of the devices that are not enrolled yet; as `enrol`, with its terms."""
    from dataclasses import replace

    from edgekd.fleet import devices as known

    there = known.enrolled(asked.folder)
    new = [host for host in asked.hosts if host.name not in there]
    if not new:
        return {"hosts": [], "counts": {}, "exit_code": 0}
    return enrol(replace(asked, hosts=new), tell, **terms)


def push(asked: Reach, tell: Any) -> dict[str, Any]:
    """Let devices install what the rollout chooses for them; as `enrol`."""
    from edgekd.fleet import driving

    return driving.push_to(asked.hosts, asked.way, asked.folder, datetime.now(UTC), tell)


def status(asked: Reach, tell: Any) -> dict[str, Any]:
    """What devices run; as `enrol`."""
    from edgekd.fleet import driving

    return driving.report_of(asked.hosts, asked.way, tell)
