"""The file of paper backups on its way to the printer: mode 0600, never written over, to be deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import ConfigError
from edgekd.store import disk_error

FILE = "paper.txt"


def refuse(file: Path) -> None:
    """Raise ConfigError where sheets of before have not been printed and deleted."""
    if file.exists():
        raise ConfigError(f"{file}: sheets lie there already; print and delete it, or name another --paper")


def write(file: Path, sheets: Iterable[str]) -> None:
    """Write the sheets, a page each."""
    refuse(file)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write("\f".join(sheets))
    except OSError as error:
        file.unlink(missing_ok=True)
        raise disk_error(error, file.parent) from error
