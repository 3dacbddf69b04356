"""Slots: one immutable directory a release, named by the hash of its release.json, which lists every file.

    state.json                      state.py
    current -> slots/HASH           changed by rename only
    slots/HASH/                     release.json and the files that it lists; never changed
    staging/HASH/                   the same on its way
    incoming/HASH                   one file on its way, by its own hash

So a slot's name vouches for every byte in it: `is_whole` needs nothing but the slot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from edgekd.fleet.agent import durable
from edgekd.fleet.agent.disk import Disk

DIRECTORIES = ("slots", "staging", "incoming")
NOTE = "release.json"


class IncompleteError(Exception):
    """What should be a whole release is not."""


def slot(sha256: str) -> str:
    """Where a release lies."""
    return f"slots/{sha256}"


def staging(sha256: str) -> str:
    """Where it lies while it is on its way."""
    return f"staging/{sha256}"


def prepare(disk: Disk) -> None:
    """Make the directories, durably, where they are absent."""
    for name in DIRECTORIES:
        durable.make_directory(disk, name)


def files_of(disk: Disk, directory: str, sha256: str) -> dict[str, str]:
    """Path -> SHA-256 of a release's files, release.json left out; IncompleteError without a sound one."""
    if disk.kind(f"{directory}/{NOTE}") != "file":
        raise IncompleteError(f"{directory}/{NOTE} is missing")
    data = disk.read(f"{directory}/{NOTE}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IncompleteError(f"{directory}/{NOTE} is not what was signed")
    return {path: entry["sha256"] for path, entry in json.loads(data)["files"].items()}


def check(disk: Disk, directory: str, sha256: str) -> dict[str, str]:
    """Hold every file of a release to its hash: its files, or IncompleteError naming one that differs."""
    files = files_of(disk, directory, sha256)
    for path, expected in files.items():
        place = f"{directory}/{path}"
        if disk.kind(place) != "file" or durable.digest(disk, place) != expected:
            raise IncompleteError(f"{place} is missing or not what was signed")
    return files


def is_whole(disk: Disk, sha256: str) -> bool:
    """Whether the slot is there and each of its bytes is what was signed."""
    try:
        check(disk, slot(sha256), sha256)
        return True
    except IncompleteError:
        return False


def release_of(disk: Disk, sha256: str) -> int:
    """The release number that a whole slot says."""
    return int(json.loads(disk.read(f"{slot(sha256)}/{NOTE}"))["release"])


def stage(disk: Disk, sha256: str) -> None:
    """Turn staging/HASH into slots/HASH: check, fsync files, fsync directories, rename, fsync.

    A slot that is there and whole is left alone; one that is damaged is mended by renaming whole files over
    its own, so that it may be the one that serves. Raises IncompleteError.
    """
    if is_whole(disk, sha256):
        _sync(disk, slot(sha256), check(disk, slot(sha256), sha256))
        disk.fsync_dir("slots")
        return
    source, final = staging(sha256), slot(sha256)
    files = check(disk, source, sha256)
    _sync(disk, source, files)
    if disk.kind(final) == "dir":
        _mend(disk, source, final, [*files, NOTE])
    else:
        disk.rename(source, final)
    disk.fsync_dir("slots")
    disk.fsync_dir("staging")


def _sync(disk: Disk, directory: str, files: Iterable[str]) -> None:
    """Make a release's bytes and names survive."""
    for path in (*files, NOTE):
        disk.seal(f"{directory}/{path}")
        disk.fsync(f"{directory}/{path}")
    for each in directories_of(files):
        disk.fsync_dir(f"{directory}/{each}" if each else directory)


def directories_of(files: Iterable[str]) -> list[str]:
    """Every directory that the paths lie in, the deepest first, "" last."""
    found = {""}
    for path in files:
        parts = path.split("/")[:-1]
        found |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return sorted(found, key=lambda path: (-path.count("/") - bool(path), path))


def _mend(disk: Disk, source: str, final: str, files: list[str]) -> None:
    """Rename whole files over those of a damaged slot."""
    for each in reversed(directories_of(files)):
        if each:
            durable.make_directory(disk, f"{final}/{each}")
    for path in files:
        if disk.kind(f"{final}/{path}") == "dir":
            durable.remove(disk, f"{final}/{path}")
        disk.rename(f"{source}/{path}", f"{final}/{path}")
    for each in directories_of(files):
        disk.fsync_dir(f"{final}/{each}" if each else final)


def current(disk: Disk) -> str | None:
    """The hash that `current` names; None without one."""
    if disk.kind("current") != "link":
        return None
    return disk.readlink("current").rpartition("/")[2]


def clean(disk: Disk, wanted: Iterable[str]) -> None:
    """Remove the slots that nobody wants."""
    kept = set(wanted)
    for name in disk.names("slots"):
        if name not in kept:
            durable.remove(disk, slot(name))


def clear_way(disk: Disk, sha256: str | None) -> None:
    """Remove what other releases left in staging/; all of it, and incoming/, without a hash."""
    for name in disk.names("staging"):
        if name != sha256:
            durable.remove(disk, staging(name))
    if sha256 is None:
        for name in disk.names("incoming"):
            durable.remove(disk, f"incoming/{name}")
