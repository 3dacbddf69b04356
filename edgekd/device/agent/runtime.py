"""The private environment that `invoke provision` leaves on a device: where it lies, and how to use it.

`<root>/runtime/current` names one of `<root>/runtime/env-<digest>`; each is laid out as a virtual environment
(bin/python, lib/pythonX.Y/site-packages), so it can be used by hand as well.
"""

from __future__ import annotations

import sys
from pathlib import Path


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
