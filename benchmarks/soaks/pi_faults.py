"""Deploys to a virtual Raspberry Pi whose power, cable or reset button is touched at a random moment of each.

A power cut kills the emulator: what the guest had not synced is gone, as on a board. Afterwards `current`
must name the old or the new release with its every byte, and a repeated deploy must finish.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soaks.device_faults import at_share, ended
from edgekd.device.deploy import Release, deploy, make_release
from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import CPUS, VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from edgekd.errors import EdgekdError
from edgekd.progress import silent
from tests.device.support import make_bundle

PATIENT_S, STALL_S = 120.0, 20.0
BOOT_S = 600.0  # beside other work
AFTER_UPLOAD_S = 3.0  # checking, syncing and renaming take about so long there

# Read there: the current release's name and whether its files are what its manifest says.
CHECK = """
import hashlib, json, os
root = os.path.expanduser("~/root")
name = os.readlink(root + "/current").removeprefix("releases/")
text = open(root + "/current/release.json", "rb").read()
right = hashlib.sha256(text).hexdigest()[:12] == name[-12:]
for path, entry in json.loads(text)["files"].items():
    data = open(root + "/current/" + path, "rb").read()
    right = right and hashlib.sha256(data).hexdigest() == entry["sha256"]
print(name if right else "damaged " + name)
"""

Fault = Callable[[VirtualPi], None]
FAULTS: dict[str, tuple[Fault, Fault]] = {  # what is done, and what brings it back
    "power cut": (VirtualPi.cut_power, lambda pi: pi.power_on(BOOT_S) and None),
    "cable pulled": (lambda pi: pi.set_link(False), lambda pi: pi.set_link(True)),
    "stands still": (VirtualPi.freeze, VirtualPi.thaw),
    "reset button": (VirtualPi.reset, lambda pi: pi.wait_until_up(BOOT_S) and None),
}


class Trials:
    """One machine, two releases that take turns, what was found."""

    def __init__(self, pi: VirtualPi, releases: tuple[Release, Release]) -> None:
        self.pi, self.releases, self.turn = pi, releases, 0
        self.told: dict[str, dict[str, int]] = {}
        self.failures: list[str] = []
        self.put(0)

    def put(
        self, which: int, progress: Any = silent, timeout_s: float = PATIENT_S, wait_s: float = 90.0
    ) -> None:
        """Deploy a release; the one before it goes, so that the next deploy sends everything again."""
        with self.pi.connect(timeout_s) as transport:
            deploy(transport, self.releases[which], "root", progress, keep=0, wait_s=wait_s)

    def current(self) -> str:
        """What the device runs."""
        try:
            return self.pi.shell(f"python3 - <<'EOF'\n{CHECK}\nEOF").strip()
        except EdgekdError as error:
            return f"nothing whole: {error}"

    def one(self, name: str, rng: np.random.Generator) -> None:
        """A deploy with the fault, the check, the repeat, the check."""
        act, mend = FAULTS[name]
        counts = self.told.setdefault(name, dict.fromkeys(("trials", "stopped", "old", "new"), 0))
        share = float(rng.random()) * 1.5  # a third of the faults fall behind the upload
        timer = threading.Timer(max(0.0, share - 1) * 2 * AFTER_UPLOAD_S, act, [self.pi])
        try:
            self.put(1 - self.turn, at_share(min(share, 1.0), timer.start), STALL_S, 1.0)
        except EdgekdError:
            counts["stopped"] += 1
        ended(timer)
        try:
            mend(self.pi)
        except EdgekdError as error:
            self.failures.append(f"{name}: it did not come back: {error}; {self.pi.console()[-300:]!r}")
        names = [release.name for release in self.releases]
        found = self.current()
        counts["trials"] += 1
        counts["new" if found == names[1 - self.turn] else "old"] += 1
        self._expect(found in names, f"{name}: the device runs {found}")
        try:
            self.put(1 - self.turn)
        except EdgekdError as error:
            self.failures.append(f"{name}: the repeat ended with: {error}")
        found = self.current()
        self._expect(found == names[1 - self.turn], f"{name}: after the repeat the device runs {found}")
        self.turn = 1 - self.turn

    def _expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.failures.append(otherwise)


def pi_faults(seed: int, count: int, *, only: tuple[str, ...] = tuple(FAULTS)) -> dict[str, Any]:
    """`count` trials of each fault, in turn, on one virtual Pi."""
    image = ensure_image("bookworm")
    ensure_booted(image, CPUS[0])
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bundles = [make_bundle(folder / "made", seed % 1000 + i, samples=400) for i in (0, 1)]
        with VirtualPi.start(image, folder / "pi") as pi:
            trials = Trials(pi, (make_release(bundles[0]), make_release(bundles[1])))
            for number in range(count):
                for place, name in enumerate(only):
                    trials.one(name, np.random.default_rng([seed, number, place]))
                    state = json.dumps(trials.told[name])
                    print(f"{number + 1}/{count} {name}: {state}", file=sys.stderr, flush=True)
    failures = trials.failures
    return {"faults": trials.told, "failures": failures, "differing_bytes": len(failures)}
