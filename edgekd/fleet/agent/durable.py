"""What must survive a power cut: whole files, links and trees, in the order of calls that makes them so.

Each function leaves the old or the new state whichever moment it is cut at, and may simply be called again.
"""

from __future__ import annotations

import errno
import hashlib

from edgekd.fleet.agent.disk import Disk

FULL = (errno.ENOSPC, errno.EDQUOT)


def parent_of(path: str) -> str:
    """The directory of `path`, "" for the root."""
    return path.rpartition("/")[0]


def write_whole(disk: Disk, path: str, data: bytes) -> None:
    """Replace the file `path` by `data`: its bytes are on the disk before its name is."""
    fresh = path + ".new"
    remove(disk, fresh)
    disk.append(fresh, data)
    disk.fsync(fresh)
    disk.rename(fresh, path)
    disk.fsync_dir(parent_of(path))


def point(disk: Disk, path: str, target: str) -> None:
    """Let the link `path` name `target`, durably, by renaming a new link over it."""
    if disk.kind(path) == "link" and disk.readlink(path) == target:
        return
    fresh = path + ".new"
    remove(disk, fresh)
    disk.symlink(target, fresh)
    disk.rename(fresh, path)
    disk.fsync_dir(parent_of(path))


def make_directory(disk: Disk, path: str) -> None:
    """Make the directory `path`, durably, where it is absent."""
    if disk.kind(path) != "dir":
        remove(disk, path)
        disk.mkdir(path)
        disk.fsync_dir(parent_of(path))


def remove(disk: Disk, path: str) -> None:
    """Remove whatever is at `path`, a tree too. Not durable: what comes back is removed again."""
    kind = disk.kind(path)
    if kind == "dir":
        for name in disk.names(path):
            remove(disk, f"{path}/{name}")
        disk.rmdir(path)
    elif kind is not None:
        disk.unlink(path)


def digest(disk: Disk, path: str) -> str:
    """Hex SHA-256 of a file."""
    state = hashlib.sha256()
    for piece in disk.chunks(path):
        state.update(piece)
    return state.hexdigest()
