"""Bring a release into staging/, file by file, each held to its signed length and hash.

What a slot or an earlier, cut fetch already holds is not fetched again; a begun file goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgekd.fleet.agent import durable, slots
from edgekd.fleet.agent.disk import Disk
from edgekd.fleet.agent.refusals import Refused

SLACK_BYTES = 1 << 20  # directories, the state, metadata


@dataclass(frozen=True)
class Wanted:
    """One file of a release: where it lies in it, and what was signed of it."""

    path: str
    sha256: str
    size_bytes: int


# A file and the offset to begin at -> its bytes from there (or from 0 where the other side cannot skip:
# then the first piece is preceded by an empty one).
Source = Callable[[Wanted, int], Iterator[bytes]]


def fetch(disk: Disk, sha256: str, release_json: bytes, files: Iterable[Wanted], source: Source) -> int:
    """Fill staging/HASH; returns the bytes that came from `source`. release.json is written last.

    Raises Refused: too-big (free space), too-long, wrong-hash, and what `source` raises; OSError of the disk.
    """
    slots.clear_way(disk, sha256)
    durable.make_directory(disk, slots.staging(sha256))
    wanted = list(files)
    at_hand = _at_hand(disk)
    missing = [each for each in wanted if not _is_there(disk, f"{slots.staging(sha256)}/{each.path}", each)]
    need_bytes, free_bytes = sum(each.size_bytes for each in missing) + SLACK_BYTES, disk.free_bytes()
    if need_bytes > free_bytes:
        raise Refused(
            "too-big",
            f"the release needs {need_bytes} bytes and {free_bytes} are free; make room on the device",
        )
    fetched_bytes = 0
    for each in missing:
        place = f"{slots.staging(sha256)}/{each.path}"
        _make_way(disk, place, slots.staging(sha256))
        donor = at_hand.get(each.sha256)
        if donor is None or not _copy(disk, donor, each):
            fetched_bytes += _download(disk, each, source)
        disk.fsync(f"incoming/{each.sha256}")
        disk.rename(f"incoming/{each.sha256}", place)
    durable.write_whole(disk, f"{slots.staging(sha256)}/{slots.NOTE}", release_json)
    return fetched_bytes


def _is_there(disk: Disk, place: str, wanted: Wanted) -> bool:
    return (
        disk.kind(place) == "file"
        and disk.size_bytes(place) == wanted.size_bytes
        and durable.digest(disk, place) == wanted.sha256
    )


def _make_way(disk: Disk, place: str, base: str) -> None:
    """The directories above `place`, and nothing at it."""
    parts = place.removeprefix(base + "/").split("/")
    for count in range(1, len(parts)):
        durable.make_directory(disk, "/".join([base, *parts[:count]]))
    durable.remove(disk, place)


def _at_hand(disk: Disk) -> Mapping[str, str]:
    """SHA-256 -> place, of the files of the slots that say they have it."""
    found: dict[str, str] = {}
    for name in disk.names("slots"):
        try:
            files = slots.files_of(disk, slots.slot(name), name)
        except slots.IncompleteError:
            continue
        found |= {sha256: f"{slots.slot(name)}/{path}" for path, sha256 in files.items()}
    return found


def _copy(disk: Disk, donor: str, wanted: Wanted) -> bool:
    """Take a file from a slot; False where that one is not what it should be."""
    if not _is_there(disk, donor, wanted):
        return False
    place = f"incoming/{wanted.sha256}"
    durable.remove(disk, place)
    disk.append(place, b"")
    for piece in disk.chunks(donor):
        disk.append(place, piece)
    return durable.digest(disk, place) == wanted.sha256


def _download(disk: Disk, wanted: Wanted, source: Source) -> int:
    """Take a file from the source, going on where an earlier fetch ended; returns the bytes that came."""
    place = f"incoming/{wanted.sha256}"
    begun_bytes = disk.size_bytes(place) if disk.kind(place) == "file" else 0
    if begun_bytes > wanted.size_bytes or disk.kind(place) not in (None, "file"):
        durable.remove(disk, place)
        begun_bytes = 0
    came_bytes = _receive(disk, wanted, source, begun_bytes)
    if begun_bytes and durable.digest(disk, place) != wanted.sha256:  # a cut tore what had been begun
        durable.remove(disk, place)
        came_bytes += _receive(disk, wanted, source, 0)
    if durable.digest(disk, place) != wanted.sha256:
        durable.remove(disk, place)
        raise Refused(
            "wrong-hash", f"{wanted.path} came with other bytes than were signed; it is thrown away"
        )
    return came_bytes


def _receive(disk: Disk, wanted: Wanted, source: Source, offset: int) -> int:
    place, size_bytes, came_bytes = f"incoming/{wanted.sha256}", offset, 0
    if disk.kind(place) is None:
        disk.append(place, b"")
    if offset == wanted.size_bytes:
        return 0
    for piece in source(wanted, offset):
        if not piece and offset:  # the other side begins anew
            durable.remove(disk, place)
            disk.append(place, b"")
            offset = size_bytes = 0
        size_bytes, came_bytes = size_bytes + len(piece), came_bytes + len(piece)
        if size_bytes > wanted.size_bytes:
            durable.remove(disk, place)
            raise Refused("too-long", f"{wanted.path} is longer than the {wanted.size_bytes} bytes signed")
        disk.append(place, piece)
    return came_bytes
