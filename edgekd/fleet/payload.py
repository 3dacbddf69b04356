"""The files of releases on the static host: each once, named by its hash, there before anything names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekd.errors import VerifyError
from edgekd.fleet import formats
from edgekd.fleet.formats import FileEntry, Release
from edgekd.store import disk_error, sha256_file, sync_directory, write_atomically


def entries(contents: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """A release's `files` of the bytes by their paths."""
    return {path: entry(data) for path, data in sorted(contents.items())}


def entry(data: bytes) -> FileEntry:
    """What a release says of one file."""
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def place(folder: Path, path: str, sha256: str) -> Path:
    """Where a target lies below the host's folder."""
    return folder / formats.RELEASES_TARGETS / formats.hashed_path(path, sha256)


def put(folder: Path, path: str, data: bytes) -> Path:
    """Write one target, whole or not at all; one that is there with the same bytes stays.

    Raises BudgetError for a full disk.
    """
    digest = hashlib.sha256(data).hexdigest()
    file = place(folder, path, digest)
    try:
        if not file.is_file() or sha256_file(file) != digest:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, data)
            sync_directory(file.parent)
    except OSError as error:
        raise disk_error(error, folder) from error
    return file


def put_release(folder: Path, release: Release, data: bytes, contents: Mapping[str, bytes]) -> None:
    """Write a release's file and every file that it names. VerifyError where `contents` has other bytes."""
    for path, expected in release.files.items():
        found = contents.get(path)
        if found is None or entry(found) != expected:
            raise VerifyError(f"{release.model} {release.release}: {path} is not what the release names")
        put(folder, formats.payload_path(release.model, path), found)
    put(folder, formats.release_path(release.model, release.release), data)


def missing(folder: Path, releases: Iterable[Release]) -> list[str]:
    """Files that releases name and the host's folder lacks or holds with other bytes."""
    found = []
    for release in releases:
        for path, expected in release.files.items():
            file = place(folder, formats.payload_path(release.model, path), expected.sha256)
            if not file.is_file() or sha256_file(file) != expected.sha256:
                found.append(f"{release.model} {release.release}: {path}")
    return found
