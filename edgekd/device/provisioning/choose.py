"""Which wheels a device needs: a pure function of what the device says of itself and of the lock.

The lock (lock.json, written by requirements/lock_devices.py) names, for each runtime, architecture and
Python, the wheels and their sha256. Every reason why a device cannot have a runtime is one sentence here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError, DeviceError, MissingDependencyError

LOCK = Path(__file__).with_name("lock.json")
RUNTIMES = ("onnxruntime", "litert")  # what a device gets, unless it can have less
LAST_RESORT = "tflite-runtime"  # for 32-bit Arm: nothing else is built for it
OTHER_NAMES = {"armv6l": "armv6l", "armv8l": "armv7l", "arm64": "aarch64", "AMD64": "x86_64"}
GLIBC = re.compile(r"glibc (\d+)\.(\d+)")
MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
LEGACY = {"manylinux2014_": (2, 17), "manylinux2010_": (2, 12), "manylinux1_": (2, 5)}


@dataclass(frozen=True)
class Wheel:
    """One file of the package index."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Choice:
    """What a device is to have: the runtimes, and the wheels of all of them."""

    runtimes: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    note: str = ""  # what the user should know besides


def read_lock() -> dict[str, Any]:
    """The lock's table."""
    table: dict[str, Any] = json.loads(LOCK.read_text("utf-8"))
    return table


def choose(name: str, facts: Mapping[str, Any], wanted: Sequence[str], lock: Mapping[str, Any]) -> Choice:
    """The wheels for the device `name` that says `facts` (the agent's).

    Args:
        wanted: runtimes by name; empty: all that the device can have.

    Raises DeviceError or MissingDependencyError in one sentence when it can have none of them.
    """
    known = sorted({row["runtime"] for row in lock["environments"]})
    for runtime in wanted:
        if runtime not in known:
            raise ConfigError(f"runtime {runtime!r} does not exist; known: {', '.join(known)}")
    check_interpreter(name, facts)
    architecture = userland(name, facts)
    check_libraries(name, facts)
    python = ".".join(facts["python"].split(".")[:2])
    rows = {
        row["runtime"]: row["wheels"]
        for row in lock["environments"]
        if (row["architecture"], row["python"]) == (architecture, python)
        and all(loads(file, facts["libc"]) for file in row["wheels"])
    }
    if architecture == "armv7l":
        check_last_resort(name, facts, rows)
    chosen = tuple(wanted or (r for r in (*RUNTIMES, LAST_RESORT) if r in rows))
    if not chosen or any(runtime not in rows for runtime in chosen):
        raise MissingDependencyError(refusal(name, facts, architecture, chosen, lock))
    files = sorted({file for runtime in chosen for file in rows[runtime]})
    return Choice(chosen, tuple(Wheel(file, lock["wheels"][file]) for file in files), note_of(architecture))


def check_interpreter(name: str, facts: Mapping[str, Any]) -> None:
    """Refuse Pythons that no wheel is built for."""
    if facts["implementation"] != "CPython":
        raise DeviceError(
            f"{name} runs {facts['implementation']}; wheels are for CPython: set connection.python to one"
        )
    if facts["free_threaded"]:
        raise DeviceError(
            f"{name} runs a free-threaded Python ({facts['executable']}), which no runtime is built for; "
            "set connection.python to an ordinary one"
        )


def userland(name: str, facts: Mapping[str, Any]) -> str:
    """The architecture that wheels must be of. A 64-bit kernel may carry 32-bit programs: they decide."""
    architecture: str = OTHER_NAMES.get(facts["architecture"], facts["architecture"])
    if facts["word_bits"] == 64:
        return architecture
    if architecture in ("aarch64", "armv7l"):
        return "armv7l"
    if architecture == "armv6l":
        raise DeviceError(
            f"{name} has an Armv6 processor, for which no runtime is built; "
            "the bundle's generated C runs there without one"
        )
    raise DeviceError(
        f"{name} has a {facts['word_bits']}-bit userland on a {architecture} kernel, for which no "
        "runtime is built; install a 64-bit system"
    )


def check_libraries(name: str, facts: Mapping[str, Any]) -> None:
    """Refuse a C library that wheels do not load with, and a missing C++ library, before anything is sent."""
    if not GLIBC.match(facts["libc"] or ""):
        raise DeviceError(
            f"{name} has {facts['libc'] or 'an unknown C library'} and the runtimes are built for glibc; "
            "install a Debian-like system, or use the bundle's generated C, which needs neither"
        )
    if not facts["has_libstdcxx"]:
        raise MissingDependencyError(
            f"{name} lacks libstdc++.so.6, which the runtimes and numpy need; "
            "run there: sudo apt-get install libstdc++6"
        )


def check_last_resort(name: str, facts: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """32-bit Arm: only tflite-runtime exists, for one Python, and only with the system's own old numpy."""
    numpy = facts["packages"].get("numpy", "")
    if LAST_RESORT not in rows or not numpy or int(numpy.split(".")[0]) >= 2:
        kernel = "64-bit kernel, " if facts["architecture"] == "aarch64" else ""
        has = f"has Python {facts['python']} and {f'numpy {numpy}' if numpy else 'no numpy'}"
        raise MissingDependencyError(
            f"{name} has a 32-bit userland ({kernel}Arm), for which ONNX Runtime and LiteRT are not built: "
            f"only tflite-runtime 2.14.0 exists, for Python 3.11 with numpy 1 (sudo apt-get install "
            f"python3-numpy), and it {has}; install a 64-bit system, or use the bundle's generated C"
        )


def loads(file: str, libc: str) -> bool:
    """Whether a wheel's file runs with that glibc, by the tags in its name."""
    platform = file.removesuffix(".whl").rpartition("-")[2]
    found = GLIBC.match(libc)
    if platform == "any" or found is None:
        return platform == "any"
    have = int(found[1]), int(found[2])
    needed = [(int(major), int(minor)) for major, minor in MANYLINUX.findall(platform)]
    needed += [version for tag, version in LEGACY.items() if tag in platform]
    return bool(needed) and min(needed) <= have


def refusal(
    name: str, facts: Mapping[str, Any], architecture: str, wanted: Sequence[str], lock: Mapping[str, Any]
) -> str:
    """Why the device cannot have what is wanted, and what would do."""
    what = " and ".join(wanted) or "any runtime"
    rows = [r for r in lock["environments"] if not wanted or r["runtime"] in wanted]
    here = [row for row in rows if row["architecture"] == architecture]
    if not here:
        there = ", ".join(sorted({row["architecture"] for row in rows}))
        return f"{name} is {architecture}, and {what} has wheels for {there} alone; use the generated C"
    pythons = sorted({row["python"] for row in here}, key=lambda text: int(text.split(".")[1]))
    python = ".".join(facts["python"].split(".")[:2])
    if python not in pythons:
        return (
            f"{name} has Python {python}, and {what} has wheels for {', '.join(pythons)}; "
            "install one of these there and set connection.python"
        )
    return f"{name} has {facts['libc']}, older than the wheels of {what} need; install a newer system there"


def note_of(architecture: str) -> str:
    """A word about what was chosen."""
    if architecture == "armv7l":
        return "32-bit userland: tflite-runtime 2.14.0 is its last runtime; a 64-bit system has newer ones"
    return ""
