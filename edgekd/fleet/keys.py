"""The life of a fleet's keys: begin, sign anew what expires, replace a key, recover one from paper.

Losing keys: the online key or one key of targets: replaced by root, minutes. One root key: replaced with the
other two. Two root keys: nothing can be replaced ever again, and every device must be provisioned anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Targets

from edgekd.errors import ConfigError, RolloutError
from edgekd.fleet import formats, keyfiles
from edgekd.fleet.formats import FleetPolicy
from edgekd.fleet.home import Home, named, open_home
from edgekd.fleet.keyring import FILE, OURS, Ask, Entry, Keyring
from edgekd.fleet.pair import ONLINE_DAYS, Duties, Pair, begin
from edgekd.fleet.repository import TOP_LEVEL, StaticRepository
from edgekd.store import disk_error

COUNTS = {"root": 3, "targets": 2, "online": 1}
RENEW_BELOW = 0.5  # of its life left: what is signed anew without being asked
ROLES_OF = {"targets": "releases", "online": "rollout"}  # whose targets, snapshot and timestamp a duty signs


@dataclass(frozen=True)
class Elsewhere:
    """A key behind a signer: its URI (securesystemslib's) and its public half."""

    uri: str
    public: Key


@dataclass(frozen=True)
class Made:
    """What `init` made: the fleet, and the sheets of paper by key (file keys of root and targets)."""

    home: Home
    sheets: Mapping[str, str]


def init(
    folder: Path,
    fleet: str,
    now: datetime,
    ask: Ask,
    *,
    online_days: int = ONLINE_DAYS,
    elsewhere: Mapping[str, Elsewhere] | None = None,
    rounds: int = keyfiles.ROUNDS,
) -> Made:
    """Begin a fleet in `folder`, whole or not at all: keys, both repositories, signed, published to `host/`.

    ask: gives the passphrase of each new key by its name (root-1 … online-1); elsewhere: keys that lie in an
    HSM or a KMS, by that name; online_days: 7, up to 30. Raises ConfigError for a folder that has a fleet, a
    short passphrase, or a number of days out of range.
    """
    if (folder / FILE).exists() or (folder / "keys").exists():
        raise ConfigError(f"{folder}: a fleet is there already; name another folder with --fleet")
    if not 1 <= online_days <= formats.MOST_AHEAD_DAYS:
        raise ConfigError(f"--online-days is {online_days}; it must be from 1 to {formats.MOST_AHEAD_DAYS}")
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        made = _fill(fresh, fleet, now, ask, online_days, elsewhere or {}, rounds)
        folder.mkdir(exist_ok=True)
        for path in sorted(fresh.iterdir(), key=lambda path: path.name == FILE):
            os.rename(path, folder / path.name)  # keys.json last: it makes the folder a fleet's
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Made(open_home(folder, now), made)


def _fill(
    folder: Path,
    fleet: str,
    now: datetime,
    ask: Ask,
    online_days: int,
    elsewhere: Mapping[str, Elsewhere],
    rounds: int,
) -> dict[str, str]:
    ring, sheets = Keyring(folder, fleet, online_days, {}), {}
    signers: dict[str, CryptoSigner] = {}
    for duty, count in COUNTS.items():
        for _ in range(count):
            name = ring.next_name(duty)
            if name in elsewhere:
                ring = ring.with_entry(Entry(name, duty, elsewhere[name].uri, elsewhere[name].public))
                continue
            ring, signers[name] = _new_file_key(ring, name, duty, ask, rounds)
            if duty != "online":
                sheets[name] = keyfiles.paper(signers[name], name, fleet)
    if unknown := sorted(set(elsewhere) - set(ring.entries)):
        raise ConfigError(f"no key of a new fleet is named {unknown[0]}; they are {', '.join(ring.entries)}")
    home = Home(folder, ring, now)
    pair = home.open()
    policy = FleetPolicy(formats.SCHEMA, fleet, max(formats.MAX_AHEAD_DAYS, online_days))
    duties = Duties(_publics(ring, "root"), _publics(ring, "targets"), _publics(ring, "online"))
    begin(pair, duties, policy)
    for _, repository in named(pair):
        repository.sign([*signers.values(), *(ring.signer(name, ask) for name in elsewhere)])
    home.publish(pair)
    ring.save()
    return sheets


def _publics(ring: Keyring, duty: str) -> Sequence[Key]:
    return [entry.public for entry in ring.entries.values() if entry.duty == duty]


def _new_file_key(ring: Keyring, name: str, duty: str, ask: Ask, rounds: int) -> tuple[Keyring, CryptoSigner]:
    signer = keyfiles.generate()
    relative = f"keys/{name}.key"
    keyfiles.write_key(ring.folder / relative, signer, ask(name), rounds)
    return ring.with_entry(Entry(name, duty, f"{OURS}:{relative}", signer.public_key)), signer


# ---- replacing a key ------------------------------------------------------------------------------------


def in_force(home: Home, pair: Pair) -> dict[str, str]:
    """Name and duty of each key that the published roots name."""
    found = {}
    for repository_name, repository in named(pair):
        root = repository.root()
        for role in TOP_LEVEL:
            for keyid in root.roles[role].keyids:
                duty = "root" if role == "root" else _duty(repository_name)
                found[home.ring.named(keyid)] = duty
    return found


def _duty(repository: str) -> str:
    return next(duty for duty, name in ROLES_OF.items() if name == repository)


def rotate(
    home: Home,
    name: str,
    ask: Ask,
    *,
    ask_new: Ask | None = None,
    elsewhere: Elsewhere | None = None,
    rounds: int = keyfiles.ROUNDS,
) -> dict[str, Any]:
    """Replace a key that was lost, stolen, or whose holder left, in both repositories.

    Signs with the keys that are here and publishes; where a signature lacks (root 2 of 3), the change is kept
    in `proposed/` for the holder of a further key. Returns what `Home.finish` does, with "new", the name of
    the key that replaces it, and "sheet", its paper backup or None. Raises ConfigError for a key that is not
    in force, RolloutError while an earlier change waits.
    """
    pair = home.open_clean()
    duty = in_force(home, pair).get(name)
    if duty is None:
        home.ring.entry(name)
        raise ConfigError(f"key {name} is not in force any more; edgekd keys.status lists those that are")
    old, new = home.ring.entry(name), home.ring.next_name(duty)
    sheet = None
    if elsewhere:
        ring = home.ring.with_entry(Entry(new, duty, elsewhere.uri, elsewhere.public))
    else:
        ring, signer = _new_file_key(home.ring, new, duty, ask_new or ask, rounds)
        sheet = keyfiles.paper(signer, new, ring.fleet) if duty != "online" else None
    ring.save()
    home.ring = ring
    replace(pair, duty, old.public, ring.entry(new).public)
    home.save(pair)  # the new key is there: what names it must not be lost
    return home.finish(pair, ask) | {"new": new, "replaced": name, "sheet": sheet}


def replace(pair: Pair, duty: str, old: Key, new: Key) -> None:
    """Put `new` in the place of `old` (pending): in both roots, or in those roles that the duty signs."""
    for name, repository in named(pair):
        if duty != "root" and ROLES_OF[duty] != name:
            continue
        roles = ["root"] if duty == "root" else ["targets", "snapshot", "timestamp"]
        with repository.edit_root() as root:
            for role in roles:
                root.revoke_key(old.keyid, role)
                root.add_key(new, role)
        if duty != "root":
            _sign_again(repository, old, new)


def _sign_again(repository: StaticRepository, old: Key, new: Key) -> None:
    """New versions of every role that the old key may have signed, so that the new one signs them."""
    with repository.edit_targets() as targets:
        for role in repository.delegated():
            _delegate_to(targets, role, old, new)
    for role in repository.delegated():
        repository.touch(role)
    repository.refresh()


def _delegate_to(targets: Targets, role: str, old: Key, new: Key) -> None:
    delegations = targets.delegations
    if delegations and delegations.roles and old.keyid in delegations.roles[role].keyids:
        targets.revoke_key(old.keyid, role)
        targets.add_key(new, role)


# ---- what expires ---------------------------------------------------------------------------------------


def refresh(home: Home, ask: Ask, *, offline: bool = False) -> dict[str, Any]:
    """Sign anew what expires: daily, from cron, `rollout` by the online key; with `offline`, everything.

    The timestamp always; snapshot and targets with less than half of their life left, so that most days cost
    a device one small file. Returns what `Home.finish` does. Raises RolloutError while a change waits.
    """
    pair = home.open_clean()
    if offline:
        for _, repository in named(pair):
            for role in ("root", "targets", *repository.delegated()):
                repository.touch(role)
            repository.refresh()
        return home.finish(pair, ask)
    for role in ("targets", "snapshot"):
        if left(pair.rollout, role, home.now) < RENEW_BELOW:
            pair.rollout.touch(role)
    pair.rollout.refresh()
    return home.finish(pair, ask)


def left(repository: StaticRepository, role: str, now: datetime) -> float:
    """The share of a role's life that is left: 1 when it was signed, 0 or less when it has expired."""
    signed = repository.open(role).signed
    began = signed.unrecognized_fields.get(formats.SIGNED_AT, 0)
    life = signed.expires.timestamp() - began
    return (signed.expires.timestamp() - now.timestamp()) / life if life > 0 else 0.0


def recover(home: Home, name: str, paper: str, where: str, ask: Ask, rounds: int = keyfiles.ROUNDS) -> Path:
    """Make a key's file again from its sheet of paper, under a new passphrase; its path.

    Raises ArtifactError for a mistyped line, VerifyError for another key's sheet, ConfigError where the key
    has no file of ours or its file is there.
    """
    entry, file = home.ring.entry(name), home.ring.file(name)
    if file is None:
        raise ConfigError(f"key {name} is behind a signer ({entry.uri.partition(':')[0]}) and has no paper")
    signer = keyfiles.from_paper(paper, entry.public, where)
    keyfiles.write_key(file, signer, ask(name), rounds)
    return file


def refuse_expired(home: Home, pair: Pair) -> None:
    """RolloutError where the offline part has expired: devices would refuse whatever is chosen."""
    for role in ("root", "targets", "timestamp"):
        if left(pair.releases, role, home.now) <= 0:
            raise RolloutError(
                f"releases: {role} has expired, and devices install nothing; "
                f"sign it anew with keys.refresh --offline"
            )
