"""A disk with a page cache, in memory: what was not synced survives a power cut in any subset.

`TornDisk` behaves as agent/disk.py's `Disk` says and no better:
* bytes are kept by sectors of 512; those written since the file's fsync survive one by one or not at all,
  and the file's size grows with them or without them (what is missing reads as zeros);
* names (made, renamed, removed) since the fsync of the directory that receives them survive one by one;
  a rename is whole: never neither name, never both;
* a call can be cut (`PowerCut`, half of an append's bytes in the cache) or refused (OSError).
`cut(rng)` gives the disk that the next start finds.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator

SECTOR_BYTES = 512
CHUNK_BYTES = 1 << 16


class PowerCut(BaseException):
    """The power is gone; nothing may catch this."""


class File:
    """What a file holds, what of it survives, and the sectors in between."""

    __slots__ = ("data", "dirty", "kept")

    def __init__(self, data: bytes = b"") -> None:
        self.data, self.kept = bytearray(data), data
        self.dirty: set[int] = set()

    def torn(self, rng: random.Random, share: float) -> bytes:
        """The bytes after a cut: each sector of the cache survives with probability `share`."""
        if not self.dirty and len(self.data) == len(self.kept):
            return self.kept
        size_bytes = len(self.data) if rng.random() < share else len(self.kept)
        survived = bytearray(self.kept.ljust(size_bytes, b"\0"))
        for sector in self.dirty:
            if rng.random() < share:
                begin = sector * SECTOR_BYTES
                piece = self.data[begin : begin + SECTOR_BYTES]
                survived = survived.ljust(begin, b"\0") if len(survived) < begin else survived
                survived[begin : begin + len(piece)] = piece
        return bytes(survived)


class Folder:
    """The names in a directory now, and those that survive."""

    __slots__ = ("kept", "names")

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.kept: dict[str, Node] = {}


Node = File | Folder | str  # a str is a link's target
Change = tuple[Folder, str, "Node | None"]


class TornDisk:
    """The disk. cut_at: the number of the changing call at which the power goes, None for never; refuse:
    call number -> errno; calls: how many there were."""

    def __init__(self, root: Folder | None = None) -> None:
        self.root = root or Folder()
        self.cut_at: int | None = None
        self.refuse: dict[int, int] = {}
        self.full = self.read_only = False
        self.calls = 0
        self._pending: list[tuple[Folder, tuple[Change, ...]]] = []

    # ---- what a cut leaves

    def cut(self, rng: random.Random) -> TornDisk:
        """The disk after the power came back. One draw says how much of the cache had been written out."""
        share = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for _, changes in self._pending:
            if rng.random() < share:
                for folder, name, node in changes:
                    _set(folder.kept, name, node)
        return TornDisk(_survivor(self.root, rng, share, {}))

    def copy(self) -> TornDisk:
        """The same disk with everything written out."""
        return TornDisk(_twin(self.root))

    # ---- reading

    def _find(self, path: str) -> Node | None:
        node: Node = self.root
        for part in path.split("/") if path else ():
            if type(node) is not Folder or part not in node.names:
                return None
            node = node.names[part]
        return node

    def _folder(self, path: str) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise _refusal(errno.ENOTDIR if node is not None else errno.ENOENT, path)
        return node

    def _file(self, path: str) -> File:
        node = self._find(path)
        if not isinstance(node, File):
            raise _refusal(errno.EISDIR if isinstance(node, Folder) else errno.ENOENT, path)
        return node

    def kind(self, path: str) -> str | None:
        node = self._find(path)
        names = {File: "file", Folder: "dir", str: "link"}
        return None if node is None else names[type(node)]

    def size_bytes(self, path: str) -> int:
        return len(self._file(path).data)

    def read(self, path: str) -> bytes:
        return bytes(self._file(path).data)

    def chunks(self, path: str) -> Iterator[bytes]:
        data = self.read(path)
        for begin in range(0, len(data), CHUNK_BYTES):
            yield data[begin : begin + CHUNK_BYTES]

    def names(self, path: str) -> list[str]:
        return sorted(self._folder(path).names)

    def readlink(self, path: str) -> str:
        node = self._find(path)
        if not isinstance(node, str):
            raise _refusal(errno.EINVAL, path)
        return node

    def free_bytes(self) -> int:
        return 1 << 30

    # ---- changing

    def _count(self, path: str, grows: bool = False) -> None:
        self.calls += 1
        if self.cut_at is not None and self.calls >= self.cut_at:
            raise PowerCut
        if self.read_only:
            raise _refusal(errno.EROFS, path)
        if self.full and grows:
            raise _refusal(errno.ENOSPC, path)
        if self.calls in self.refuse:
            raise _refusal(self.refuse[self.calls], path)

    def _change(self, receiver: Folder, *changes: Change) -> None:
        for folder, name, node in changes:
            _set(folder.names, name, node)
        self._pending.append((receiver, changes))

    def append(self, path: str, data: bytes) -> None:
        try:
            self._count(path, grows=True)
        except (PowerCut, OSError):
            if not self.read_only:
                self._append(path, data[: len(data) // 2])
            raise
        self._append(path, data)

    def _append(self, path: str, data: bytes) -> None:
        folder, name = self._place(path)
        node = folder.names.get(name)
        if node is None:
            node = File()
            self._change(folder, (folder, name, node))
        if not isinstance(node, File):
            raise _refusal(errno.ELOOP if isinstance(node, str) else errno.EISDIR, path)
        begin = len(node.data)
        node.data += data
        node.dirty.update(range(begin // SECTOR_BYTES, -(-len(node.data) // SECTOR_BYTES)))

    def fsync(self, path: str) -> None:
        self._count(path)
        node = self._file(path)
        node.kept = bytes(node.data)
        node.dirty.clear()

    def fsync_dir(self, path: str) -> None:
        self._count(path)
        folder, left = self._folder(path), []
        for receiver, changes in self._pending:
            if receiver is folder:
                for each, name, node in changes:
                    _set(each.kept, name, node)
            else:
                left.append((receiver, changes))
        self._pending = left

    def rename(self, old: str, new: str) -> None:
        self._count(old)
        source, source_name = self._place(old)
        target, target_name = self._place(new)
        node, there = source.names.get(source_name), target.names.get(target_name)
        if node is None:
            raise _refusal(errno.ENOENT, old)
        if isinstance(there, Folder) and (not isinstance(node, Folder) or there.names):
            raise _refusal(errno.ENOTEMPTY if isinstance(node, Folder) else errno.EISDIR, new)
        if isinstance(node, Folder) and there is not None and not isinstance(there, Folder):
            raise _refusal(errno.ENOTDIR, new)
        self._change(target, (source, source_name, None), (target, target_name, node))

    def symlink(self, target: str, path: str) -> None:
        self._count(path, grows=True)
        self._make(path, target)

    def mkdir(self, path: str) -> None:
        self._count(path, grows=True)
        self._make(path, Folder())

    def _make(self, path: str, node: Node) -> None:
        folder, name = self._place(path)
        if name in folder.names:
            raise _refusal(errno.EEXIST, path)
        self._change(folder, (folder, name, node))

    def unlink(self, path: str) -> None:
        self._count(path)
        folder, name = self._place(path)
        if isinstance(folder.names.get(name), Folder) or name not in folder.names:
            raise _refusal(errno.EISDIR if name in folder.names else errno.ENOENT, path)
        self._change(folder, (folder, name, None))

    def rmdir(self, path: str) -> None:
        self._count(path)
        if self._folder(path).names:
            raise _refusal(errno.ENOTEMPTY, path)
        folder, name = self._place(path)
        self._change(folder, (folder, name, None))

    def seal(self, path: str) -> None:
        self._count(path)

    def _place(self, path: str) -> tuple[Folder, str]:
        parent, _, name = path.rpartition("/")
        return self._folder(parent), name


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _survivor(folder: Folder, rng: random.Random, share: float, done: dict[int, Node]) -> Folder:
    fresh = Folder()
    for name, node in folder.kept.items():
        if id(node) not in done:
            if isinstance(node, File):
                done[id(node)] = File(node.torn(rng, share))
            else:
                done[id(node)] = node if isinstance(node, str) else _survivor(node, rng, share, done)
        fresh.names[name] = done[id(node)]
    fresh.kept = dict(fresh.names)
    return fresh


def _twin(folder: Folder) -> Folder:
    fresh = Folder()
    for name, node in folder.names.items():
        if isinstance(node, File):
            fresh.names[name] = File(bytes(node.data))
        else:
            fresh.names[name] = node if isinstance(node, str) else _twin(node)
    fresh.kept = dict(fresh.names)
    return fresh


def _refusal(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
