"""The private environment that `invoke provision` leaves on a device: where it lies, and how to use it.

`<root>/runtime/current` names one of `<root>/runtime/env-<digest>`; each is laid out as a virtual environment
(bin/python, lib/pythonX.Y/site-packages), so it can be used by hand as well. environment.json in it, written
last, says what it holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TABLE = "environment.json"


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment lie, for the Python that runs this."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def adopt(root: Path) -> bool:
    """Let imports find the packages that were provisioned under `root`; False where there are none."""
    found = site_packages(root / "runtime" / "current")
    if not found.is_dir():
        return False
    path = str(found.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
    return True


def read_environment(folder: Path) -> dict[str, Any] | None:
    """environment.json of an environment that is whole and for this Python; None for anything else."""
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return table if isinstance(table, dict) and site_packages(folder).is_dir() else None
