"""Which devices a fleet has: the inventory says where they are, `devices.json` what their enrolment found.

    fleet/devices.json  {"schema": 1, "devices": {id: {"public_key", "hardware", "models", "enrolled_at"}}}

The public key is what a device signs its reports with; it was made there, and read over the pinned SSH
session. A device may be in the one and not in the other: to be enrolled, or reached by pull alone.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.declaration import suggest
from edgekd.device.inventory import Inventory
from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.fleet import formats
from edgekd.fleet.fields import FormatError
from edgekd.store import disk_error, write_atomically

SCHEMA = 1
FILE = "devices.json"
KEYS = ("device", "address", "group", "hardware", "model", "enrolled")
ED25519 = re.compile(r"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}=?")


@dataclass(frozen=True)
class Enrolled:
    """What enrolment found on a device. public_key: an OpenSSH line without comment; enrolled_at: Unix s."""

    public_key: str
    hardware: str
    models: tuple[str, ...]
    enrolled_at: int


@dataclass(frozen=True)
class Device:
    """One device as both files know it; `address` is "" for one that only pulls."""

    device: str
    address: str
    groups: tuple[str, ...]
    labels: Mapping[str, str]
    hardware: str
    models: tuple[str, ...]
    enrolled: bool


def enrolled(folder: Path) -> dict[str, Enrolled]:
    """The enrolled devices of a fleet by id. Raises ArtifactError for a damaged file."""
    path = folder / FILE
    try:
        table = json.loads(path.read_bytes())
        known = table["schema"] == SCHEMA
        found = {name: _enrolled(name, each) for name, each in table["devices"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{path}: damaged; bring it back from a backup, or enrol anew") from None
    if not known:
        raise ArtifactError(f"{path}: of schema {table['schema']!r}; this edgekd reads {SCHEMA}")
    return found


def _enrolled(name: str, table: Mapping[str, Any]) -> Enrolled:
    formats.check_name(name)
    models = tuple(str(each) for each in table["models"])
    return Enrolled(str(table["public_key"]), str(table["hardware"]), models, int(table["enrolled_at"]))


def add(folder: Path, device: str, found: Enrolled, *, again: bool = False) -> None:
    """Keep what an enrolment found; two operators at once are kept apart.

    again: a device that was provisioned anew may have another key. Raises VerifyError for another key without
    it, and for a key that another device has (a cloned card: each makes its own), ConfigError for names that
    cannot be or a key that is no Ed25519 one.
    """
    try:
        for name in (device, found.hardware, *found.models):
            formats.check_name(name)
    except FormatError as error:
        raise ConfigError(str(error)) from None
    if not ED25519.fullmatch(found.public_key):
        raise ConfigError(f"{device}: its key is no Ed25519 key in OpenSSH's form; enrol it again")
    with _locked(folder):
        known = enrolled(folder)
        _refuse_clones(known, device, found, again)
        table = {name: asdict(each) for name, each in sorted({**known, device: found}.items())}
        text = json.dumps({"schema": SCHEMA, "devices": table}, indent=1) + "\n"
        try:
            write_atomically(folder / FILE, text.encode())
        except OSError as error:
            raise disk_error(error, folder) from error


def _refuse_clones(known: Mapping[str, Enrolled], device: str, found: Enrolled, again: bool) -> None:
    twin = next((n for n, e in known.items() if e.public_key == found.public_key and n != device), None)
    if twin:
        raise VerifyError(
            f"{device} has the key of {twin}: one is a copy of the other's card; remove the agent's key on "
            f"{device}, and enrol it again"
        )
    if device in known and known[device].public_key != found.public_key and not again:
        raise VerifyError(
            f"{device} is enrolled with another key; if it was provisioned anew, enrol it with --again"
        )


def remove(folder: Path, device: str) -> None:
    """Forget a device: its reports count no longer. ConfigError for one that is not enrolled."""
    with _locked(folder):
        known = enrolled(folder)
        if device not in known:
            raise ConfigError(f"no device {device!r} is enrolled{suggest(device, known)}")
        table = {name: asdict(each) for name, each in known.items() if name != device}
        text = json.dumps({"schema": SCHEMA, "devices": table}, indent=1) + "\n"
        write_atomically(folder / FILE, text.encode())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for whoever changes the file now."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no fleet is here ({error.strerror}); begin one with keys.init"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def all_devices(inventory: Inventory | None, known: Mapping[str, Enrolled]) -> list[Device]:
    """Every device that the inventory or an enrolment knows, the inventory's first and in its order."""
    hosts = dict(inventory.hosts) if inventory else {}
    found = []
    for name in [*hosts, *sorted(set(known) - set(hosts))]:
        host, there = hosts.get(name), known.get(name)
        found.append(
            Device(
                device=name,
                address=host.address if host else "",
                groups=host.groups if host else (),
                labels=host.labels if host else {},
                hardware=there.hardware if there else host.target if host else "",
                models=there.models if there else host.models if host else (),
                enrolled=there is not None,
            )
        )
    return found


def where(devices: Iterable[Device], text: str) -> list[Device]:
    """The devices that fit every term of `text`: `KEY=PATTERN` or `KEY!=PATTERN`, a comma between them.

    KEY: device, address, group, hardware, model, enrolled (yes or no), or a label's name; PATTERN may hold *
    and ?. Raises ConfigError for a term that is none, and for a key that no device has.
    """
    given = list(devices)
    labels = {label for device in given for label in device.labels}
    for term in (part.strip() for part in text.split(",") if part.strip()):
        read = re.fullmatch(r"([\w.-]+)(!?=)(.*)", term)
        if not read:
            raise ConfigError(f"--where: {term!r} is no KEY=PATTERN or KEY!=PATTERN")
        key, sign, pattern = read.groups()
        if key not in KEYS and key not in labels:
            raise ConfigError(f"--where: nothing is known of {key!r}{suggest(key, {*KEYS, *labels})}")
        given = [each for each in given if _fits(each, key, pattern) == (sign == "=")]
    return given


def _fits(device: Device, key: str, pattern: str) -> bool:
    values = {
        "device": (device.device,),
        "address": (device.address,),
        "group": device.groups,
        "hardware": (device.hardware,),
        "model": device.models,
        "enrolled": ("yes" if device.enrolled else "no",),
    }.get(key, (device.labels.get(key, ""),))
    return any(fnmatch.fnmatchcase(value, pattern) for value in values)
