"""Deploys over a real OpenSSH server with a fault at a random moment of each: old or new, whole, and mended.

Each trial: a device holds one release, a deploy of another meets the fault, then `current` must name either
release with its every byte, and a repeated deploy must finish with the other. Power cuts of a virtual Pi
are in benchmarks/soaks/pi_faults.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.deploy import Release, deploy, make_release
from edgekd.errors import EdgekdError
from edgekd.progress import silent
from tests.device.support import Sshd, descendants, make_bundle, proxy_to, script

SAMPLES = 1600  # of the bundle: some 500 kB, so that a fault finds the upload on its way
DISK_BYTES = 6 << 20
PATIENT_S, STALL_S = 15.0, 2.0  # how long a deployer waits; where nothing moves any more
HERE = Path(__file__).resolve().parent


@dataclass
class Device:
    """An SSH server, a disk of its own, and the two releases that take turns on it."""

    server: Sshd
    disk: Path
    releases: tuple[Release, Release]
    shim: Path
    folder: Path
    turn: int = 0
    told: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.disk / "root"

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.releases[1 - self.turn].contents.values()))

    def put(self, which: int, progress: Any = silent, wait_s: float = 1.0, **options: Any) -> None:
        """Deploy a release; the one before it goes, so that the next deploy sends everything again."""
        with self.server.connect(**{"timeout_s": PATIENT_S, **options}) as transport:
            deploy(transport, self.releases[which], str(self.root), progress, keep=0, wait_s=wait_s)


Fault = Callable[[Device, np.random.Generator], None]


def at_share(share: float, act: Callable[[], None]) -> Any:
    """A Progress that acts once, when so much of the upload is sent."""
    acted: list[int] = []

    def progress(label: str, done: int, total: int) -> None:
        if label == "upload" and done >= share * total and not acted:
            acted.append(done)
            act()

    return progress


def ended(timer: threading.Timer) -> None:
    """Wait for what a timer does; a deploy that ended before it came so far finds it done afterwards."""
    if timer.ident is None:
        timer.start()
    timer.join()


def cut_link(device: Device, rng: np.random.Generator) -> None:
    """The link ends after so many bytes, as when a cable is pulled and the peer's system says so."""
    _through_proxy(device, int(rng.integers(1, device.size_bytes)), "cut_after")


def reset_link(device: Device, rng: np.random.Generator) -> None:
    """The link is reset after so many bytes."""
    _through_proxy(device, int(rng.integers(1, device.size_bytes)), "reset_after")


def silent_link(device: Device, rng: np.random.Generator) -> None:
    """Nothing passes any more after so many bytes, and nobody says so."""
    _through_proxy(device, int(rng.integers(1, device.size_bytes)), "freeze_after")


def _through_proxy(device: Device, after_bytes: int, how: str) -> None:
    with proxy_to(device.server.port) as proxy:
        device.server.pin(proxy.port, "host_key")
        setattr(proxy, how, proxy.passed_bytes + after_bytes)
        stall_s = STALL_S if how == "freeze_after" else PATIENT_S
        device.put(1 - device.turn, port=proxy.port, timeout_s=stall_s)


def frozen_device(device: Device, rng: np.random.Generator) -> None:
    """Every process of the device stands still; it goes on when the deployer has given up."""
    stopped: list[int] = []

    def freeze() -> None:
        stopped.extend(descendants(device.server.process.pid))
        _signal(stopped, signal.SIGSTOP)

    try:
        device.put(1 - device.turn, at_share(rng.random(), freeze), timeout_s=STALL_S)
    finally:
        _signal(stopped, signal.SIGCONT)


def killed_agent(device: Device, rng: np.random.Generator) -> None:
    """The agent's process is killed on the device, in the upload or while it installs."""
    _kill_later(device, rng, lambda: _signal(descendants(device.server.process.pid)[1:], signal.SIGKILL))


def switched_off(device: Device, rng: np.random.Generator) -> None:
    """All processes of the device die at once, its server too; it comes up again a second later."""
    try:
        _kill_later(device, rng, device.server.cut_power)
    finally:
        device.server.cut_power()
        device.server.start()


def _kill_later(device: Device, rng: np.random.Generator, act: Callable[[], None]) -> None:
    """Act at a random moment: a share of the upload, and up to 0.1 s later, when it may install already."""
    wait_s = float(rng.random()) * 0.1
    timer = threading.Timer(wait_s, act)
    try:
        device.put(1 - device.turn, at_share(rng.random(), timer.start))
    finally:
        ended(timer)


def killed_deployer(device: Device, rng: np.random.Generator) -> None:
    """The deployer's own process is killed with the upload on its way."""
    share = rng.random()
    options = device.server.options()
    bundle = device.folder / f"bundle-{1 - device.turn}"
    command = [sys.executable, str(HERE / "one_deploy.py"), str(bundle), str(device.root)]
    command += [str(options.port), str(options.key_file), str(options.known_hosts[0]), str(options.user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if float(line) >= share:
                break
        time.sleep(float(rng.random()) * 0.05)
        process.kill()


def full_disk(device: Device, rng: np.random.Generator) -> None:
    """The device's disk fills up with the upload on its way."""
    filler = device.disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    try:
        device.put(1 - device.turn, at_share(rng.random(), fill))
    finally:
        filler.unlink(missing_ok=True)


def write_errors(device: Device, rng: np.random.Generator) -> None:
    """A change below the root (write, fsync, rename, ...) fails with EIO, or all from then on do."""
    wrapper = script(
        device.folder / "python-io",
        f"export LD_PRELOAD={device.shim} FAULT_ROOT={device.root} FAULT_AT={int(rng.integers(0, 130))}",
        f"export FAULT_STAYS={int(rng.integers(0, 2))}",
        f'exec {sys.executable} "$@"',
    )
    device.put(1 - device.turn, python=str(wrapper))


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


FAULTS: dict[str, Fault] = {
    "link cut": cut_link,
    "link reset": reset_link,
    "link silent": silent_link,
    "device frozen": frozen_device,
    "agent killed": killed_agent,
    "device switched off": switched_off,
    "deployer killed": killed_deployer,
    "disk full": full_disk,
    "write errors": write_errors,
}


def trial(device: Device, name: str, rng: np.random.Generator) -> list[str]:
    """One deploy with the fault, the check, the repeat; returns what was not as it must be."""
    counts, failures = device.told.setdefault(name, dict.fromkeys(("trials", "stopped", "old", "new"), 0)), []
    names = [release.name for release in device.releases]
    try:
        FAULTS[name](device, rng)
    except EdgekdError:
        counts["stopped"] += 1
    found = current_whole(device.root)
    if found not in names:
        failures.append(f"{name}: the device runs {found}")
    counts["trials"] += 1
    counts["new" if found == names[1 - device.turn] else "old"] += 1
    try:
        device.put(1 - device.turn, wait_s=60.0)
    except EdgekdError as error:
        failures.append(f"{name}: the repeat ended with: {error}")
    if (found := current_whole(device.root)) != names[1 - device.turn]:
        failures.append(f"{name}: after the repeat the device runs {found}")
    device.turn = 1 - device.turn
    return failures


def current_whole(root: Path) -> str:
    """The current release's name, or what is wrong with it.

    An agent whose deployer was killed may be at work still: what it replaces meanwhile is looked at again.
    """
    while True:
        try:
            release = os.readlink(root / "current").removeprefix("releases/")
        except OSError as error:
            return f"nothing current: {error}"
        wrong = what_is_wrong(root / "releases" / release)
        with contextlib.suppress(OSError):
            if os.readlink(root / "current").removeprefix("releases/") == release:
                return wrong or release


def what_is_wrong(release: Path) -> str:
    """In words, where a release's files are not what its name and manifest say; else empty."""
    try:
        text = (release / "release.json").read_bytes()
        if hashlib.sha256(text).hexdigest()[:12] != release.name[-12:]:
            return f"{release.name} with another manifest"
        for name, entry in json.loads(text)["files"].items():
            if hashlib.sha256((release / name).read_bytes()).hexdigest() != entry["sha256"]:
                return f"{release.name} with another {name}"
    except (OSError, ValueError) as error:
        return f"{release.name} not whole: {error}"
    return ""


@contextlib.contextmanager
def made(seed: int) -> Iterator[Device]:
    """A device with the first release on it. Its disk is a tmpfs where that may be mounted."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bundles = [make_bundle(folder / "made", seed % 1000 + i, samples=SAMPLES) for i in (0, 1)]
        for number, bundle in enumerate(bundles):
            shutil.copytree(bundle, folder / f"bundle-{number}")
        disk = folder / "disk"
        disk.mkdir()
        mounted = (
            os.getuid() == 0
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=False
            ).returncode
        )
        shim = folder / "shim.so"
        source = HERE / "io_errors.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        server = Sshd(folder / "sshd")
        first, second = map(make_release, bundles)
        device = Device(server, disk, (first, second), shim, folder)
        try:
            device.put(0)
            yield device
        finally:
            server.cut_power()
            if mounted:
                subprocess.run(["umount", "-l", disk], check=False)


def device_faults(seed: int, count: int) -> dict[str, Any]:
    """`count` trials of each fault, in turn; without the right to mount a disk, all but `disk full`."""
    failures: list[str] = []
    with made(seed) as device:
        names = [name for name in FAULTS if name != "disk full" or os.path.ismount(device.disk)]
        for number in range(count):
            for place, name in enumerate(names):
                failures += trial(device, name, np.random.default_rng([seed, number, place]))
                print(f"{number + 1}/{count} {name}: {device.told[name]}", file=sys.stderr, flush=True)
    return {"faults": device.told, "failures": failures, "differing_bytes": len(failures)}
