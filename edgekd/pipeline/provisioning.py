"""Provisioning a device and examining one: effects, done anew each time; a provisioning leaves a record."""

from __future__ import annotations

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
    with open_device(request, host.address) as transport:
        result = provision(
            transport,
            root,
            runtimes=runtimes,
            cache=Path(cache).expanduser() if cache else None,
            progress=request.progress,
        )
    late = result.clock_off_s > CLOCK_TOLERANCE_S
    record = {
        "target": request.need_target().name,
        "to": to or None,
        "outcome": "nothing to do, the runtime is there" if result.unchanged else "provisioned",
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


def doctor_device(request: Request, to: str) -> list[dict[str, Any]]:
    """One row a check: {"check", "state" ("ok", "look" or "bad"), "found", "mend"}."""
    root, host = device_root(request), one_host(request, to)
    return examine_device(lambda: open_device(request, host.address), root)
