"""Where the files lie that ship with edgekd beside its code: target profiles, recipes, C sources.

In a checkout they are at the repository root; in an installed wheel they are package data
(`edgekd/_data/`, put there by pyproject.toml). Callers need not know which.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import ArtifactError

NAMES = ("targets", "recipes", "firmware_stubs")

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """The directory of `name`, one of NAMES. ArtifactError when the installation lacks it."""
    if name not in NAMES:
        raise ValueError(f"no resource directory is named {name!r}: one of {', '.join(NAMES)}")
    for candidate in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise ArtifactError(f"this edgekd lacks its directory {name}/: install it again, or use a whole checkout")
