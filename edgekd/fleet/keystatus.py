"""What expires when, which keys are in force and within reach, and what should be done about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from edgekd.errors import ConfigError
from edgekd.fleet import keyfiles, sheets
from edgekd.fleet.formats import SIGNED_AT
from edgekd.fleet.home import Home, named
from edgekd.fleet.keys import in_force, left
from edgekd.fleet.pair import Pair
from edgekd.fleet.repository import TOP_LEVEL, StaticRepository

WARN_BELOW = 0.3  # of a role's life
DAY_S = 86_400


def status(home: Home) -> dict[str, Any]:
    """Roles, keys, waiting changes and warnings of a fleet, as JSON data; nothing secret is asked for.

    {"fleet", "online_days", "roles": [{"repository", "role", "version", "expires", "days_left", "share_left",
    "keys", "threshold"}], "keys": [{"name", "duty", "where", "in_force", "here"}], "waiting": sentences,
    "warnings": sentences}.
    """
    pair = Pair(home.host, home.now, home.ring.online_days)
    roles = [row for name, each in named(pair) for row in _roles(home, name, each)]
    force = in_force(home, pair)
    keys = [_key(home, name, force) for name in home.ring.entries]
    waiting = [f"{name}: {home.told(each)}" for name, each in named(home.open()) if each.lacking()]
    return {
        "fleet": home.ring.fleet,
        "online_days": home.ring.online_days,
        "roles": roles,
        "keys": keys,
        "waiting": waiting,
        "warnings": [*_expiries(roles), *_reach(home, keys), *_waits(waiting), *_sheets(home)],
    }


def _roles(home: Home, name: str, repository: StaticRepository) -> list[dict[str, Any]]:
    rows = []
    for role in ("root", "targets", "snapshot", "timestamp", *repository.delegated()):
        signed = repository.open(role).signed
        delegator = repository.root() if role in TOP_LEVEL else repository.targets()
        held = delegator.get_delegated_role(role)
        rows.append(
            {
                "repository": name,
                "role": role,
                "version": signed.version,
                "signed": _time(signed.unrecognized_fields.get(SIGNED_AT, 0)),
                "expires": signed.expires.isoformat(),
                "days_left": round((signed.expires - home.now).total_seconds() / DAY_S, 1),
                "share_left": round(left(repository, role, home.now), 3),
                "keys": sorted(home.ring.named(keyid) for keyid in held.keyids),
                "threshold": held.threshold,
            }
        )
    return rows


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _key(home: Home, name: str, force: dict[str, str]) -> dict[str, Any]:
    entry = home.ring.entry(name)
    where = entry.uri if home.ring.file(name) else entry.uri.partition(":")[0]
    return {
        "name": name,
        "duty": entry.duty,
        "where": where,
        "in_force": name in force,
        "here": home.ring.is_here(name),
    }


def _expiries(roles: list[dict[str, Any]]) -> list[str]:
    """Warnings of roles with less than WARN_BELOW of their life left."""
    found = []
    for row in roles:
        mend = "keys.refresh" if row["repository"] == "rollout" and row["role"] != "root" else ""
        mend = mend or "keys.refresh --offline"
        what = f"{row['repository']}: {row['role']}"
        if row["share_left"] <= 0:
            found.append(f"{what} has expired, and devices install nothing until you run {mend}")
        elif row["share_left"] <= WARN_BELOW:
            found.append(f"{what} expires in {row['days_left']} days; run {mend}")
    return found


def _reach(home: Home, keys: list[dict[str, Any]]) -> list[str]:
    """Warnings of keys that others may read, and of roots that lie together."""
    found = []
    for row in keys:
        file = home.ring.file(row["name"])
        if file is not None and row["here"]:
            try:
                keyfiles.check_private(file)
            except ConfigError as error:
                found.append(str(error))
    together = [r["name"] for r in keys if r["duty"] == "root" and r["in_force"] and r["here"]]
    if len([name for name in together if home.ring.file(name)]) > 1:
        found.append(
            f"{' and '.join(together)} lie in one folder: who takes it has the fleet; "
            f"give each to another person, and remove it here"
        )
    return found


def _sheets(home: Home) -> list[str]:
    file = home.folder / sheets.FILE
    return [f"{file}: holds secrets unencrypted; print it and delete it"] if file.exists() else []


def _waits(waiting: list[str]) -> list[str]:
    return [f"a change waits for signatures ({each})" for each in waiting]
