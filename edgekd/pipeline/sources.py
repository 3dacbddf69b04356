"""What a recipe's own files count for in a key: their content, wherever they lie."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from edgekd.errors import ConfigError
from edgekd.store import sha256_file


def digest_of(path: Path) -> str:
    """A file's SHA-256; a folder's over its files' names, lengths and times of change.

    A folder of images is not read anew at each command: a copy of it on another machine counts as another.
    Raises ConfigError where there is nothing.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there; set its path in the recipe, or give --source")
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, changed_ns: int) -> str:
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        stat = file.stat()
        digest.update(f"{file.relative_to(path).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
