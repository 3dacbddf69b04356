"""Snapshots of a virtual Pi: booted once, then continued in a second as often as one likes.

A snapshot is a disk file with the machine's memory inside. It belongs to one image, one core and one QEMU.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgekd.device.virtual.image import Image, locked
from edgekd.device.virtual.machine import VirtualPi
from edgekd.progress import Progress, silent

BOOTED = "booted"
# Programs that every login needs, read once so that they lie in the snapshot's memory.
WARM_UP = (
    "python3 -c 'import argparse, ctypes, hashlib, json, pathlib, shutil, signal, zipfile'; sudo -n true"
)


def ensure_booted(image: Image, cpu: str, progress: Progress = silent) -> str:
    """The name of the snapshot of the image just after its start, taken now unless it is there."""

    def prepare(pi: VirtualPi) -> None:
        pi.shell(WARM_UP)

    ensure_snapshot(image, cpu, BOOTED, "", prepare, progress)
    return BOOTED


def ensure_provisioned(
    image: Image, cpu: str, root: str = "edgekd", progress: Progress = silent, wheels: Path | None = None
) -> str:
    """The name of a snapshot of a machine that was provisioned under `root`, taken now unless it is there.

    It is named by the lock of wheels: another lock, another snapshot. wheels: where fetched ones are kept.
    """
    from edgekd.device.provisioning.choose import LOCK
    from edgekd.device.provisioning.provision import provision

    ensure_booted(image, cpu, progress)
    name = f"provisioned-{hashlib.sha256(LOCK.read_bytes() + root.encode()).hexdigest()[:8]}"

    def prepare(pi: VirtualPi) -> None:
        with pi.connect() as transport:
            provision(transport, root, cache=wheels, progress=progress)

    ensure_snapshot(image, cpu, name, BOOTED, prepare, progress)
    return name


def ensure_snapshot(
    image: Image,
    cpu: str,
    name: str,
    parent: str,
    prepare: Callable[[VirtualPi], None],
    progress: Progress = silent,
) -> Path:
    """The snapshot `name`, taken now unless it is there: `parent` ("" boots the disk) after `prepare`.

    Other processes that want the same one wait. Raises what `prepare` raises; then there is no snapshot.
    """
    path = image.snapshot(name, cpu)
    if path.is_file():
        return path
    with locked(path.with_suffix(".lock")):
        if path.is_file():
            return path
        progress(f"virtual Pi: snapshot {name}", 0, 1)
        with tempfile.TemporaryDirectory(prefix=".taking-", dir=path.parent) as folder:
            pi = VirtualPi.start(image, Path(folder), cpu=cpu, snapshot=parent)
            try:
                prepare(pi)
                pi.save(name, forget=parent)
                os.replace(pi.release_disk(), path)
            finally:
                pi.close()
        progress(f"virtual Pi: snapshot {name}", 1, 1)
    return path
