"""A team's shared cache: whole artifacts as tar files under any fsspec URL (a folder, s3://, gs://, sftp://).

`<url>/<stage>/<key>.tar` holds one artifact's directory, manifest included. What comes from there is
verified against its manifest before it enters the local store; it is trusted as far as those who can
write to the URL are.
"""

from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path
from typing import Any

from edgekd.errors import ArtifactError, MissingDependencyError


class SharedCache:
    """Fetches and offers artifacts; every failure of the far side is one ArtifactError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._system, self._root = _open(url)

    def fetch(self, stage: str, key: str, into: Path) -> bool:
        """Unpack the artifact into the fresh directory `into`; False where the cache lacks it."""
        name = f"{self._root}/{stage}/{key}.tar"
        try:
            if not self._system.exists(name):
                return False
            data = self._system.cat_file(name)
        except Exception as error:  # each fsspec back end raises its own kinds
            raise ArtifactError(f"the shared cache {self.url} cannot be read: {error}") from None
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(into, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise ArtifactError(
                f"{self.url}/{stage}/{key}.tar is broken ({error}); remove it there"
            ) from None
        return True

    def offer(self, stage: str, key: str, directory: Path) -> None:
        """Put the artifact in `directory` there, under its final name only once it is whole."""
        name = f"{self._root}/{stage}/{key}.tar"
        temporary = f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            if self._system.exists(name):
                return
            self._system.makedirs(f"{self._root}/{stage}", exist_ok=True)
            self._system.pipe_file(temporary, _pack(directory))
            self._system.mv(temporary, name)
        except Exception as error:  # as above; the local artifact is whole and stays
            raise ArtifactError(f"the shared cache {self.url} cannot be written: {error}") from None


def _open(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingDependencyError(
            "--shared needs the package fsspec; install it with: pip install fsspec"
        ) from None
    try:
        system, root = fsspec.core.url_to_fs(url)
    except Exception as error:  # an unknown protocol, or one whose package is absent
        raise ArtifactError(f"the shared cache {url!r} cannot be opened: {error}") from None
    return system, str(root).rstrip("/")


def _pack(directory: Path) -> bytes:
    """A tar with sorted names and no times or owners: the same artifact gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(p for p in directory.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(path.relative_to(directory).as_posix())
            data = path.read_bytes()
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
