"""The operating system as the agent sees it: the few calls that it makes on files, and the real ones.

Everything that the agent keeps goes through a `Disk`, so the tests can put a disk underneath that loses
un-synced data and renames, tears writes and fills up, and run the same code over it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 16


class Disk(Protocol):
    """A directory tree. Paths are relative to its root, with `/` between names; errors are OSError.

    Only `fsync` makes a file's bytes survive a power cut, and only `fsync_dir` the names in a directory.
    A rename, symlink or unlink is whole or not there; several of them may survive in any subset.
    """

    def kind(self, path: str) -> str | None:
        """What is at `path` itself: "file", "dir", "link", "other", or None for nothing."""

    def size_bytes(self, path: str) -> int:
        """The size of a file."""

    def read(self, path: str) -> bytes:
        """A whole file."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file in pieces of at most CHUNK_BYTES."""

    def names(self, path: str) -> list[str]:
        """What a directory holds, sorted."""

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""

    def free_bytes(self) -> int:
        """Space that is left for us."""

    def append(self, path: str, data: bytes) -> None:
        """Write behind the end of a file, which is created where it is absent; never through a link."""

    def fsync(self, path: str) -> None:
        """Make a file's bytes survive."""

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory survive."""

    def rename(self, old: str, new: str) -> None:
        """Move; a file or link at `new` is replaced at once."""

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link."""

    def unlink(self, path: str) -> None:
        """Remove a file or link."""

    def mkdir(self, path: str) -> None:
        """Make one directory."""

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def seal(self, path: str) -> None:
        """Take away everybody's right to write (a slot's file or directory is never changed)."""


class RealDisk:
    """The files below `root`, which exists."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path) if path else str(self.root)

    def kind(self, path: str) -> str | None:
        """What is at `path` itself."""
        try:
            mode = os.lstat(self._at(path)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(mode):
            return "file"
        return "dir" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"

    def size_bytes(self, path: str) -> int:
        """The size of a file."""
        return os.lstat(self._at(path)).st_size

    def read(self, path: str) -> bytes:
        """A whole file."""
        return b"".join(self.chunks(path))

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file in pieces."""
        handle = os.open(self._at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece

    def names(self, path: str) -> list[str]:
        """What a directory holds, sorted."""
        return sorted(os.listdir(self._at(path)))

    def readlink(self, path: str) -> str:
        """Where a symbolic link points."""
        return os.readlink(self._at(path))

    def free_bytes(self) -> int:
        """Space that is left for us."""
        space = os.statvfs(self.root)
        return space.f_bavail * space.f_frsize

    def append(self, path: str, data: bytes) -> None:
        """Write behind the end of a file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._at(path), flags, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            os.close(handle)

    def fsync(self, path: str) -> None:
        """Make a file's bytes survive."""
        _sync(self._at(path), os.O_RDONLY | os.O_NOFOLLOW)

    def fsync_dir(self, path: str) -> None:
        """Make the names in a directory survive."""
        _sync(self._at(path), os.O_RDONLY | os.O_DIRECTORY)

    def rename(self, old: str, new: str) -> None:
        """Move."""
        os.rename(self._at(old), self._at(new))

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link."""
        os.symlink(target, self._at(path))

    def unlink(self, path: str) -> None:
        """Remove a file or link."""
        os.unlink(self._at(path))

    def mkdir(self, path: str) -> None:
        """Make one directory."""
        os.mkdir(self._at(path), 0o755)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(self._at(path))

    def seal(self, path: str) -> None:
        """Take away the right to write."""
        place = self._at(path)
        os.chmod(place, 0o555 if os.path.isdir(place) else 0o444)


def _sync(place: str, flags: int) -> None:
    handle = os.open(place, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
