"""Files on the device: digests, writes that survive a power cut, tables of our schema."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .messages import AgentError

SCHEMA = 1


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """fsync a file or a directory: after this a power cut cannot lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text`: the old or the new content survives, never half."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def read_table(path: Path, schema: int = SCHEMA) -> dict[str, Any]:
    """A JSON object of our schema from a file; AgentError `mismatch` when it is none."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise damaged(path) from None
    if not isinstance(table, dict) or table.get("schema") != schema:
        raise AgentError("mismatch", f"{path} is not of schema {schema}; deploy again with one edgekd")
    return table


def damaged(path: Path) -> AgentError:
    """The refusal to use a release that is not what was sent."""
    return AgentError("mismatch", f"{path} is missing or not what was sent; deploy again to mend it")


def verify_files(directory: Path, files: dict[str, Any]) -> None:
    """Hold each file of `directory` to its sha256; AgentError `mismatch` names the first that differs."""
    for name, expected in files.items():
        path = directory / name
        if not path.is_file() or sha256_file(path) != expected["sha256"]:
            raise damaged(path)
