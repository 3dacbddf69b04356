"""Soak `pi-cuts`: power cuts on a virtual Pi's ext4, under the agent's own code and under the cut model.

On the Pi the shipped installer takes one release after the other (tests/fleet/cuts.py on a real disk), a
file grows without fsync, a name comes and goes. The emulator is killed at a random moment; what the boot
finds must be what the promises say, and nothing that `TornDisk` could not have left:

* what serves is whole, and is the last release that was told to be installed, or the next one;
* of the growing file all that was synced is there; behind it each sector holds what was written, or zeros;
* the name that moves is there exactly once;
* the next installation goes through.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.transport import LinkCutError
from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import CPUS, VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from edgekd.errors import EdgekdError
from edgekd.fleet.shipping import agent_archive

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 12.0  # of work before a cut; an installation takes a second or two there

COMMON = """
import hashlib, json, os, random, sys
home = os.path.expanduser("~/cuts")
sys.path[:0] = [home, home + "/agent.pyz"]
from pathlib import Path
from edgekd.fleet.agent import slots
from edgekd.fleet.agent.disk import RealDisk
from tests.fleet.cuts import Device, release
disk, probe = RealDisk(Path(home + "/disk")), RealDisk(Path(home + "/probe"))
def pattern(count):
    return random.Random(7).randbytes(count)
"""
WORK = (
    COMMON
    + """
device = Device(disk)
number = device.installer.state.confirmed.release if device.installer.state.confirmed else 0
print("ready", flush=True)
while True:
    number += 1
    device.offer(release(number), rollout=f"r{number}")
    print("installed", number, flush=True)
    for _ in range(5):
        size = probe.size_bytes("log")
        probe.append("log", pattern(size + 700)[size:])
        print("written", size + 700, flush=True)
        old, new = ("a", "b") if probe.kind("a") else ("b", "a")
        probe.rename(old, new)
    if number % 3 == 0:
        size = probe.size_bytes("log")
        probe.fsync("log")
        print("synced", size, flush=True)
"""
)
PREPARE = (
    COMMON
    + """
for name in ("disk", "probe"):
    os.makedirs(f"{home}/{name}", exist_ok=True)
for name in ("log", "a"):
    probe.append(name, b"")
    probe.fsync(name)
probe.fsync_dir("")
os.sync()
"""
)
CHECK = (
    COMMON
    + """
serving = slots.current(disk)
log = probe.read("log")
wanted = pattern(len(log))
sectors = [(log[i:i + 512], wanted[i:i + 512]) for i in range(0, len(log), 512)]
wrong = [i for i, (have, want) in enumerate(sectors) if have != want and have.strip(b"\\0") and
         not want.startswith(have.rstrip(b"\\0"))]
state = Device(disk).installer.state
found = {
    "serving": slots.release_of(disk, serving) if serving else None,
    "whole": serving is None or slots.is_whole(disk, serving),
    "state": state.confirmed.release if state.confirmed else None,
    "log": len(log), "good": next((512 * i for i, (a, b) in enumerate(sectors) if a != b), len(log)),
    "wrong": wrong, "names": [name for name in ("a", "b") if probe.kind(name)],
}
probe.unlink("log")
probe.append("log", b"")
probe.fsync("log")
probe.fsync_dir("")
number = (state.confirmed.release if state.confirmed else 0) + 1
Device(disk).offer(release(number), rollout=f"r{number}")
current = slots.current(disk)
found["next"] = slots.release_of(disk, current) == number and slots.is_whole(disk, current)
print(json.dumps(found))
"""
)


def pi_cuts(seed: int, count: int) -> dict[str, Any]:
    """`count` power cuts; failures: what broke; seen: what the disk had made of un-synced bytes."""
    image = ensure_image("bookworm")
    ensure_booted(image, CPUS[0])
    failures: list[str] = []
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, VirtualPi.start(image, Path(folder) / "pi") as pi:
        _send(pi)
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            told = _work(pi, float(rng.random()) * LONGEST_S)
            pi.power_on()
            found = json.loads(_python(pi, CHECK).splitlines()[-1])
            wrong = _broken(found, told)
            failures += [f"cut {number + 1}: {each}: {found}, {told}" for each in wrong]
            seen[_tail(found, told)] += 1
            seen["the next release was serving" if _is_ahead(found, told) else "the last one"] += 1
            print(f"{number + 1}/{count}: {told} -> {found}", file=sys.stderr, flush=True)
    counts = {"cuts": count, "broken": len(failures)}
    return {"counts": counts, "seen": dict(seen), "differing_bytes": 0, "failures": failures}


def _send(pi: VirtualPi) -> None:
    """The agent's file and the story's code, synced."""
    pi.shell("mkdir -p cuts/tests/fleet")
    files = {name: (ROOT / "tests" / "fleet" / name).read_bytes() for name in ("cuts.py", "torn_disk.py")}
    contents = {f"cuts/tests/fleet/{name}": data for name, data in files.items()}
    contents |= {"cuts/agent.pyz": agent_archive(), "cuts/tests/__init__.py": b""}
    contents |= {"cuts/tests/fleet/__init__.py": b""}
    with pi.connect() as link:
        for path, data in contents.items():
            talk = link.start(["sh", "-c", f"head -c {len(data)} > {path} && sync"])
            talk.send(data, 120.0)
            talk.finish(120.0)
            talk.close()
    _python(pi, PREPARE)


def _python(pi: VirtualPi, program: str) -> str:
    return pi.shell(f"python3 - <<'EOF'\n{program}\nEOF", timeout_s=300.0)


def _work(pi: VirtualPi, for_s: float) -> dict[str, int]:
    """Let it install until the power goes: the last number of each word that it said."""
    text, end_s = b"", 0.0
    with contextlib.suppress(LinkCutError, OSError), pi.connect() as link:
        talk = link.start([link.python, "-c", WORK])
        while not end_s or time.monotonic() < end_s:
            piece = talk.receive(60.0)
            if not piece:
                raise EdgekdError(f"the work on the Pi has ended: {talk.finish(5.0)[1]}")
            text += piece
            if not end_s and b"ready" in text:
                end_s = time.monotonic() + for_s
        pi.cut_power()
        with contextlib.suppress(LinkCutError, OSError):
            while piece := talk.receive(2.0):
                text += piece
    rows = [line.split() for line in text.decode(errors="replace").splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _broken(found: dict[str, Any], told: dict[str, int]) -> list[str]:
    last = told.get("installed")
    checks = {
        "what serves is not whole": found["whole"],
        "state and link differ behind a start": found["serving"] is None
        or found["state"] in (found["serving"], found["serving"] + 1),
        "an installed release is gone": last is None or found["serving"] in (last, last + 1),
        "synced bytes are gone": found["good"] >= told.get("synced", 0),
        "a sector holds what was never written": not found["wrong"],
        "more bytes than were written": "written" not in told or found["log"] <= told["written"] + 3500,
        "the name is not there exactly once": len(found["names"]) == 1,
        "the next installation fails": found["next"],
    }
    return [what for what, is_right in checks.items() if not is_right]


def _tail(found: dict[str, Any], told: dict[str, int]) -> str:
    written = told.get("written", 0)
    if found["good"] < found["log"]:
        return "un-synced tail: zeros or torn"
    return "un-synced tail: lost" if found["log"] < written else "un-synced tail: kept"


def _is_ahead(found: dict[str, Any], told: dict[str, int]) -> bool:
    return bool(found["serving"] and found["serving"] > told.get("installed", found["serving"]))
