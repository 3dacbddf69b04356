"""Provisioning a device and examining one: effects, done anew each time; a provisioning leaves a record."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from edgekd.device.provisioning.examine import examine_device
from edgekd.device.provisioning.provision import CLOCK_TOLERANCE_S, provision
from edgekd.pipeline.effects import device_root, one_host, open_device
from edgekd.pipeline.request import Request


def provision_device(request: Request, to: str, runtimes: tuple[str, ...], cache: str) -> dict[str, Any]:
    """Give the device its runtime; the record that the store keeps."""
    root, host = device_root(request), one_host(request, to)
    wheels = Path(cache).expanduser() if cache else None
    is_new = not to and not runtimes and start_provisioned(request, root, wheels)
    with open_device(request, host.address) as transport:
        result = provision(
            transport,
            root,
            runtimes=runtimes,
            cache=wheels,
            progress=request.progress,
        )
    unchanged = "provisioned, kept with the image" if is_new else "nothing to do, the runtime is there"
    late = result.clock_off_s > CLOCK_TOLERANCE_S
    record = {
        "target": request.need_target().name,
        "to": to or None,
        "outcome": unchanged if result.unchanged else "provisioned",
        "environment": result.environment,
        "runtimes": list(result.runtimes),
        "packages": list(result.packages),
        "python": result.facts["python"],
        "libc": result.facts["libc"],
        "machine": result.facts["machine"],
        "uploaded_bytes": result.uploaded_bytes,
        "seconds": result.seconds,
        "removed": list(result.removed),
        "note": result.note or None,
        "clock": f"off by {result.clock_off_s:,.0f} s; set it there" if late else None,
        "when": int(time.time()),
    }
    request.store.append_record("provision", record)
    return record


def start_provisioned(request: Request, root: str, wheels: Path | None) -> bool:
    """Start a virtual device that is off from its image's snapshot of a provisioned one; False for any other.

    The snapshot is made the first time, by the provisioning that any device gets; then it lies in the cache.
    """
    target = request.need_target("linux")
    if target.virtual is None:
        return False
    from edgekd.device.virtual import control, snapshots

    if control.status(target, request.store.root)["state"] != "off":
        return False
    make = functools.partial(snapshots.ensure_provisioned, root=root, wheels=wheels)
    control.switch_on(target, request.store.root, snapshot=make, progress=request.progress)
    return True


def doctor_device(request: Request, to: str) -> list[dict[str, Any]]:
    """One row a check: {"check", "state" ("ok", "look" or "bad"), "found", "mend"}."""
    root, host = device_root(request), one_host(request, to)
    return examine_device(lambda: open_device(request, host.address), root)
