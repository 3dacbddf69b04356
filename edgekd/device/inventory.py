"""Which devices there are: `inventory.toml`, and what `--to a,b,@group` means by it.

    [hosts]
    kitchen = { address = "pi@10.0.0.7", groups = ["canary"] }
    hall    = { address = "pi@10.0.0.8:2222", target = "rpi4", models = ["digits"], labels = { floor = "2" } }

A host is a frozen dataclass: what a fleet needs to know besides is one more field.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekd.declaration import build, setting, suggest
from edgekd.device.transport import parse_address
from edgekd.errors import ConfigError

FILE = "inventory.toml"
EVERY = "all"  # the group that every host is in


@dataclass(frozen=True)
class Host:
    """A device. address: `[user@]host[:port]`; groups: names that `--to @NAME` means it by; target: its
    profile; models: what a fleet runs on it; labels: what else is to be known, as text."""

    name: str = setting()
    address: str = setting()
    groups: tuple[str, ...] = setting(())
    target: str = setting("")
    models: tuple[str, ...] = setting(())
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """The hosts by name, in the file's order; `source` is what messages call it."""

    source: str
    hosts: Mapping[str, Host]

    def group(self, name: str) -> list[Host]:
        """The hosts of a group, in the file's order; ConfigError for one that no host is in."""
        found = [host for host in self.hosts.values() if name == EVERY or name in host.groups]
        if not found:
            known = {EVERY, *(group for host in self.hosts.values() for group in host.groups)}
            raise ConfigError(f"{self.source}: no host is in the group {name!r}{suggest(name, known)}")
        return found


def load_inventory(path: Path) -> Inventory:
    """Read an inventory. Raises ConfigError naming the file and the host where one is wrong."""
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; name another with --inventory"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend that line") from None
    if unknown := sorted(set(table) - {"hosts"}):
        raise ConfigError(f"{path}: unknown key {unknown[0]}{suggest(unknown[0], ['hosts'])}")
    entries = table.get("hosts", {})
    if not isinstance(entries, dict):
        raise ConfigError(f'{path}: hosts must be a table; write a line name = {{ address = "user@host" }}')
    return Inventory(str(path), {name: _host(path, name, entry) for name, entry in entries.items()})


def _host(path: Path, name: str, entry: object) -> Host:
    if not isinstance(entry, dict):
        raise ConfigError(f'{path}: hosts.{name} must be a table; write {name} = {{ address = "user@host" }}')
    if any(c in name for c in ",@:") or any(c.isspace() for c in name) or not name:
        raise ConfigError(f"{path}: host name {name!r} has a blank or one of , @ : in it; name it otherwise")
    labels = _labels(path, name, entry.get("labels", {}))
    plain = {key: value for key, value in entry.items() if key != "labels"}
    host = build(Host, {**plain, "name": name}, str(path), f"hosts.{name}")
    host = replace(host, labels=labels)
    try:
        parse_address(host.address)
    except ConfigError as error:
        raise ConfigError(f"{path}: hosts.{name}: {error}") from None
    return host


def _labels(path: Path, name: str, given: object) -> dict[str, str]:
    """Any names, with texts for values."""
    where = f"{path}: hosts.{name}.labels"
    if not isinstance(given, dict):
        raise ConfigError(f'{where} must be a table; write labels = {{ floor = "2" }}')
    for label, value in given.items():
        if not isinstance(value, str):
            raise ConfigError(f'{where}.{label} must be a text; write {label} = "{value}"')
    return dict(given)


def find_hosts(to: str, inventory: Inventory | None) -> list[Host]:
    """The hosts that `to` means: addresses, names of the inventory and @groups, a comma between them.

    Each once, in the order of `to`. Raises ConfigError for what is none of these, and for a group where
    there is no inventory.
    """
    found: dict[str, Host] = {}
    for word in (part.strip() for part in to.split(",")):
        for host in _meant(word, inventory):
            found.setdefault(host.address, host)
    return list(found.values())


def _meant(word: str, inventory: Inventory | None) -> list[Host]:
    if word.startswith("@"):
        if inventory is None:
            raise ConfigError(
                f"{word} is a group and there is no {FILE}; write one, or name addresses in --to"
            )
        return inventory.group(word[1:])
    if inventory and word in inventory.hosts:
        return [inventory.hosts[word]]
    parse_address(word)
    return [Host(word, word)]
