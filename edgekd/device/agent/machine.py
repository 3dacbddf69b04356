"""What this device is and what a process of it takes; None where it does not tell."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any


def memory_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process; None where /proc does not tell."""
    status_file = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status_file.read_text()) if status_file.exists() else None
    return int(found[1]) * 1024 if found else None


def machine() -> dict[str, Any]:
    """What this device is; None where it does not tell."""
    cpu = board = system = None
    with contextlib.suppress(OSError):
        found = re.search(
            r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M
        )
        cpu = found[1].strip() if found else None
    with contextlib.suppress(OSError):
        board = Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME")
    facts = {"architecture": platform.machine(), "cpu": cpu, "board": board, "os": system}
    return {**facts, "cores": os.cpu_count(), "kernel": platform.release()}


def is_emulated() -> bool:
    """Whether the device says that it is QEMU's board `virt`, where times are no device's."""
    with contextlib.suppress(OSError):
        return b"linux,dummy-virt" in Path("/proc/device-tree/model").read_bytes()
    return False
