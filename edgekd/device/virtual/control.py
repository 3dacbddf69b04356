"""Virtual devices by target: switch on, switch off, say how they are, and where SSH finds them.

A target with a table [virtual] has one machine for a project, in a folder of its own beside the store.
It runs until it is switched off; whoever reaches the target while it is off switches it on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgekd.device.virtual.image import Image, ensure_image, locked
from edgekd.device.virtual.machine import VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from edgekd.errors import ConfigError, VerifyError
from edgekd.progress import Progress, silent
from edgekd.target import Target, Virtual


class Snapshot(Protocol):
    """Makes a snapshot of an image on a core unless it is there; returns its name."""

    def __call__(self, image: Image, cpu: str, *, progress: Progress) -> str: ...


@dataclass(frozen=True)
class Reached:
    """A target whose machine runs: the profile with its address, the key, the pinned host key's file."""

    target: Target
    key_file: Path
    known_hosts: Path


def machine_folder(store: Path, target: Target) -> Path:
    """Where the target's machine keeps its disk; `store` is the project's .edgekd."""
    return store / "virtual" / target.name


def switch_on(
    target: Target,
    store: Path,
    *,
    release: str = "",
    cache: Path | None = None,
    port: int = 0,
    snapshot: Snapshot = ensure_booted,
    progress: Progress = silent,
) -> VirtualPi:
    """The target's machine, running: as it is, or new from a snapshot (image and snapshot are made first).

    release: of Debian, in place of the profile's; cache: where images are kept; port: for its SSH, a free
    one when 0; snapshot: makes the one that a new machine continues.

    Raises ConfigError for a target that is no virtual one, VerifyError where the running machine is of
    another release.
    """
    virtual = virtual_of(target)
    folder = machine_folder(store, target)
    with locked(folder / "lock"):
        running = VirtualPi.attach(folder)
        if running is not None:
            if release and running.image.release != release:
                raise VerifyError(
                    f"{target.name} runs {running.image.release}; switch it off first: "
                    f"invoke device.down --target {target.name}"
                )
            return running
        image = ensure_image(release or virtual.release, cache, progress)
        name = snapshot(image, virtual.cpu, progress=progress)
        pi = VirtualPi.start(image, folder, port=port, cpu=virtual.cpu, snapshot=name)
        (folder / "known_hosts").write_text(pi.known_hosts_line, "utf-8")
    return pi


def switch_off(target: Target, store: Path) -> bool:
    """End the target's machine and forget its disk; False where it did not run."""
    virtual_of(target)
    folder = machine_folder(store, target)
    if not folder.is_dir():
        return False
    with locked(folder / "lock"):
        pi = VirtualPi.attach(folder)
        if pi is None:
            return False
        pi.close()
    return True


def status(target: Target, store: Path) -> dict[str, Any]:
    """How the target's machine is: state, address, key, image, and the memory that its QEMU takes."""
    virtual = virtual_of(target)
    pi = VirtualPi.attach(machine_folder(store, target))
    if pi is None:
        return {"target": target.name, "state": "off", "release": virtual.release, "cpu": virtual.cpu}
    return {
        "target": target.name,
        "state": pi.state(),
        "release": pi.image.release,
        "cpu": pi.cpu,
        "host": pi.host,
        "port": pi.port,
        "user": pi.user,
        "key": str(pi.key),
        "known_hosts": str(pi.folder / "known_hosts"),
        "pid": pi.pid,
        "memory_bytes": pi.memory_bytes(),
        "image": str(pi.image.folder),
    }


def reach(target: Target, store: Path, progress: Progress = silent) -> Reached:
    """Where the target's machine is to be reached; it is switched on where it is off."""
    pi = switch_on(target, store, progress=progress)
    if target.connection is None:
        raise ConfigError(f"target {target.name} has no table [connection]; add it")
    connection = dataclasses.replace(target.connection, host=pi.host, port=pi.port, user=pi.user)
    located = dataclasses.replace(target, connection=connection)
    return Reached(located, pi.key, pi.folder / "known_hosts")


def virtual_of(target: Target) -> Virtual:
    """The target's table [virtual]; ConfigError for a device that is no emulator."""
    if target.virtual is None:
        raise ConfigError(
            f"target {target.name} is no virtual device: nothing is to be switched; take pi-sim or pi-sim-a76"
        )
    return target.virtual
