"""What a device is, as far as provisioning and `doctor --target` need it; None for what it does not tell."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import struct
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from .conditions import conditions
from .machine import machine
from .messages import emit
from .runtime import adopt, read_environment

THROTTLED = {  # bits of `vcgencmd get_throttled`
    0: "under-voltage now",
    1: "frequency capped now",
    2: "throttled now",
    3: "near its temperature limit now",
    16: "under-voltage since its start",
    17: "frequency was capped since its start",
    18: "was throttled since its start",
    19: "was near its temperature limit since its start",
}


def facts(arguments: argparse.Namespace) -> None:
    """Emit what this device is and what its root holds. Changes nothing, the root need not be there."""
    root = Path(arguments.root)
    place = next(folder for folder in (root, *root.resolve().parents) if folder.is_dir())
    space, now = os.statvfs(place), conditions()
    emit(
        "result",
        **interpreter(),
        libc=libc(),
        has_libstdcxx=has_libstdcxx(),
        machine=machine(),
        root=str(root.resolve()),
        free_bytes=space.f_bavail * space.f_frsize,
        is_writable=os.access(place, os.W_OK | os.X_OK),
        is_read_only=bool(space.f_flag & os.ST_RDONLY),
        clock_s=time.time(),
        environment=read_environment(root / "runtime" / "current"),
        packages=packages(root),
        governor=now["governor"],
        temperature_c=now["temperature_c"],
        throttled=alarms(now["throttled_bits"]),
    )


def interpreter() -> dict[str, Any]:
    """The Python that runs this: version, implementation, word size, and whether it has no global lock."""
    flags = getattr(sys, "abiflags", "")
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "architecture": platform.machine(),
        "word_bits": 8 * struct.calcsize("P"),
        "free_threaded": "t" in flags,
    }


def libc() -> str | None:
    """`glibc 2.36`, `musl`, or None: the C library decides which wheels load."""
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        found = None
    if found:
        return found
    return "musl" if any(Path("/lib").glob("ld-musl-*")) else None


def has_libstdcxx() -> bool:
    """Whether C++ programs can run: both runtimes and numpy need the library."""
    try:
        ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return False
    return True


def packages(root: Path) -> dict[str, str]:
    """The runtimes that this Python can import, provisioned ones first, with their versions."""
    adopt(root)
    found = {}
    for name in ("numpy", "onnxruntime", "ai-edge-litert", "tflite-runtime"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def alarms(bits: int | None) -> list[str] | None:
    """What a Raspberry Pi says of its power and heat, [] when all is well; None on other boards."""
    return None if bits is None else [text for bit, text in THROTTLED.items() if bits >> bit & 1]
