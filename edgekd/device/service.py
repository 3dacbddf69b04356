"""The host's side of `--service` and of `run`: install the unit that serves the model, ask it one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.device.deploy import default_owner, device_path
from edgekd.device.session import AgentSession
from edgekd.device.transport import Transport
from edgekd.errors import DeviceError
from edgekd.progress import Progress, silent

QUIET_S = 120.0  # the device may say nothing for so long, as while it loads a runtime from a slow card


def install_service(
    transport: Transport,
    root: str,
    *,
    port: int = 0,
    memory_bytes: int = 256 << 20,
    owner: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Let systemd serve the current release, and wait until it answers.

    port: of the device's loopback, besides the unix socket; 0: none. memory_bytes: what the service may use.
    Returns `unit`, `socket`, `port`, `changed` (whether the units were written), `health`. Raises
    MissingDependencyError without systemd, DeviceError without the right, VerifyError where the model does
    not answer.
    """
    request = {"owner": owner or default_owner(), "wait_s": 3.0, "port": port, "memory_bytes": memory_bytes}
    arguments = ["service", "--root", device_path(root)]
    stall_s = transport.timeout_s + 60.0
    with AgentSession(transport, arguments, stall_s=stall_s, total_s=400.0, progress=progress) as session:
        session.send_request(request)
        answer = session.receive()
    return {key: answer[key] for key in ("unit", "socket", "port", "changed", "health")}


def run_sample(
    transport: Transport,
    root: str,
    sample: npt.NDArray[np.float32],
    *,
    variant: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """One inference of the current release on the device.

    sample: float32 [1, ...] as the model takes it (NCHW for images). variant: "" for the device's own
    choice. Returns `output`, `index`, `label`, `score`, `release`, `model`, `variant`, `threads`,
    `latency_us`, `load_us`, `shape`. Raises VerifyError where a file there was changed.
    """
    data = np.ascontiguousarray(sample, "<f4").tobytes()
    arguments = ["run", "--root", device_path(root), *(["--variant", variant] if variant else [])]
    with AgentSession(
        transport, arguments, stall_s=QUIET_S, total_s=2 * QUIET_S, progress=progress
    ) as session:
        session.send_request({"size_bytes": len(data)})
        session.send(data)
        answer = session.receive()
    return {key: value for key, value in answer.items() if key != "type"}


def sample_shape(transport: Transport, root: str) -> dict[str, Any]:
    """What `status` tells of the device; raises DeviceError where it holds no release.

    `current` is the release's name and `input_shape` what it takes, [1, ...].
    """
    arguments = ["status", "--root", device_path(root)]
    with AgentSession(transport, arguments, stall_s=QUIET_S, total_s=QUIET_S) as session:
        told = session.receive()
    if told["input_shape"] is None:
        raise DeviceError(f"{transport.name}: {root} holds no release that can be run; deploy first")
    return told
