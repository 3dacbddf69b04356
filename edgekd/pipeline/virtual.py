"""Virtual devices for the command line and notebooks: on, off, status. Nothing of it is in the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgekd.device.virtual import control
from edgekd.pipeline.request import Request


def device_up(request: Request, release: str, cache: str, port: int | None) -> dict[str, Any]:
    """Switch the target's virtual device on; its status and the seconds it took."""
    began = time.monotonic()
    folder = Path(cache).expanduser() if cache else None
    target, store = request.need_target("linux"), request.store.root
    control.switch_on(target, store, release=release, cache=folder, port=port or 0, progress=request.progress)
    return control.status(target, store) | {"seconds": round(time.monotonic() - began, 1)}


def device_down(request: Request) -> dict[str, Any]:
    """Switch it off; its disk is forgotten."""
    target = request.need_target("linux")
    ran = control.switch_off(target, request.store.root)
    return {"target": target.name, "state": "off", "was_on": ran}


def device_status(request: Request) -> dict[str, Any]:
    """How it is, and how to log in."""
    return control.status(request.need_target("linux"), request.store.root)
