"""Provisioning a device that has no internet: read it, choose, fetch here, carry over, install, prove.

Two conversations with the agent: the first only reads; the second sends what is missing and installs it whole
or not at all. The environment is named by a digest of the wheels' own digests: the same lock and device give
the same name, so a second call finds it there and changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.device.deploy import BLOCK_BYTES, SLACK_BYTES, SLOWEST_BYTES_PER_S, default_owner, device_path
from edgekd.device.provisioning.choose import Choice, choose, read_lock, userland
from edgekd.device.provisioning.wheels import THINNED, Packed, packed_wheels
from edgekd.device.session import AgentSession
from edgekd.device.transport import CHUNK_BYTES, Transport
from edgekd.errors import BudgetError, DeviceError
from edgekd.progress import Progress, silent

CLOCK_TOLERANCE_S = 300.0
SILENCE_S = 600.0  # while a slow card takes thousands of files, and the runtime starts for the first time
# x + x for a float [1, 4], for each engine: what an environment is proved with.
_ONNX = (
    "CAcSBmVkZ2VrZDo9Cg4KAXgKAXgSAXkiA0FkZBIBZ1oTCgF4Eg4KDAgBEggKAggBCgIIBGITCgF5Eg4KDAgBEggKAggBCgII"
    "BEIECgAQDQ=="
)
_TFLITE = (
    "GAAAAFRGTDMAAA4AGAAUABAADAAIAAQADgAAABQAAAAcAAAAJAAAAPQAAAADAAAAAQAAAAQAAAAU////BgAAAGVkZ2VrZAAA"
    "AQAAABAAAAAMABQAEAAMAAgABAAMAAAAEAAAAFAAAABUAAAAWAAAAAEAAAAUAAAAAAAOABQAAAAQAAwACwAEAA4AAAAQAAAA"
    "AAAACwwAAAAQAAAAeP///wEAAAABAAAAAgAAAAAAAAAAAAAAAQAAAAEAAAABAAAAAAAAAAIAAAA0AAAABAAAAOD///8IAAAA"
    "DAAAAAEAAAB5AAAAAgAAAAEAAAAEAAAADAAMAAgAAAAAAAQADAAAAAgAAAAMAAAAAQAAAHgAAAACAAAAAQAAAAQAAAABAAAA"
    "CAAAAAQABAAEAAAA"
)
PROOFS = {
    "onnxruntime": ("proof.onnx", base64.b64decode(_ONNX)),
    "litert": ("proof.tflite", base64.b64decode(_TFLITE)),
    "tflite-runtime": ("proof.tflite", base64.b64decode(_TFLITE)),
}


@dataclass(frozen=True)
class ProvisionResult:
    """What a provisioning did. `unchanged`: the environment was there and current, nothing was sent."""

    environment: str
    runtimes: tuple[str, ...]
    packages: tuple[str, ...]  # name==version
    unchanged: bool
    uploaded_bytes: int
    seconds: float
    facts: dict[str, Any]
    clock_off_s: float
    note: str
    removed: tuple[str, ...] = ()


def read_facts(transport: Transport, root: str) -> dict[str, Any]:
    """What the device says of itself (docs/formats/linux.md, `facts`), and how far off its clock is."""
    stall_s = 2 * transport.timeout_s
    arguments = ["facts", "--root", device_path(root)]
    began = time.time()
    with AgentSession(transport, arguments, stall_s=stall_s, total_s=2 * stall_s) as session:
        facts = session.receive()
    ended = time.time()
    off_s = max(began - facts["clock_s"], facts["clock_s"] - ended, 0.0)
    return facts | {"clock_off_s": off_s}


def provision(
    transport: Transport,
    root: str,
    *,
    runtimes: Sequence[str] = (),
    cache: Path | None = None,
    owner: str | None = None,
    wait_s: float = 3.0,
    progress: Progress = silent,
) -> ProvisionResult:
    """Give the device under `root` the runtimes, in an environment of edgekd's own.

    Args:
        runtimes: by name (onnxruntime, litert, tflite-runtime); empty: all that it can have.
        cache: where fetched wheels are kept; the user's cache directory when None.
        owner, wait_s: for the lock on the device, as in `deploy`.

    Raises MissingDependencyError (no wheel for it, a library that lacks, a runtime that does not run there),
    BudgetError (space: need and have, before anything is sent), DeviceError, VerifyError.
    """
    began = time.monotonic()
    facts = read_facts(transport, root)
    choice = choose(transport.name, facts, runtimes, read_lock())
    check_place(transport.name, facts)
    name = environment_name(choice, facts)

    def result(unchanged: bool, sent_bytes: int, removed: Sequence[str] = ()) -> ProvisionResult:
        return ProvisionResult(
            environment=name,
            runtimes=choice.runtimes,
            packages=packages_of(choice),
            unchanged=unchanged,
            uploaded_bytes=sent_bytes,
            seconds=round(time.monotonic() - began, 1),
            facts=facts,
            clock_off_s=facts["clock_off_s"],
            note=choice.note,
            removed=tuple(removed),
        )

    if (facts["environment"] or {}).get("name") == name:
        return result(True, 0)
    progress("wheels", 0, 1)
    python = ".".join(facts["python"].split(".")[:2])
    packed = packed_wheels(choice.wheels, userland(transport.name, facts), python, cache)
    sent_bytes, told = _install(
        transport, root, request_of(name, choice, packed, owner, wait_s), packed, progress
    )
    return result(not told["changed"], sent_bytes, told["removed"])


def packages_of(choice: Choice) -> tuple[str, ...]:
    """`name==version` of each wheel."""
    return tuple("==".join(wheel.file.split("-")[:2]) for wheel in choice.wheels)


def environment_name(choice: Choice, facts: dict[str, Any]) -> str:
    """`env-` and twelve digits: of the wheels, how they are thinned, and the Python that they are for."""
    told = [THINNED, facts["python"].rsplit(".", 1)[0], [[w.file, w.sha256] for w in choice.wheels]]
    return f"env-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}"


def check_place(name: str, facts: dict[str, Any]) -> None:
    """Refuse a root that cannot be written, before anything is fetched or sent."""
    if facts["is_read_only"]:
        raise DeviceError(
            f"{name}: {facts['root']} lies on a file system that is mounted read-only; remount it, "
            "or set connection.root to another"
        )
    if not facts["is_writable"]:
        raise DeviceError(f"{name}: {facts['root']} cannot be written; set connection.root to another")


def request_of(
    name: str, choice: Choice, packed: Sequence[Packed], owner: str | None, wait_s: float
) -> dict[str, Any]:
    """What the agent is asked to install."""
    files = {each.name: {"sha256": each.sha256, "size_bytes": each.size_bytes} for each in packed}
    for file, data in proofs_of(choice).values():
        files[file] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    return {
        "name": name,
        "files": files,
        "proofs": {engine: file for engine, (file, _) in proofs_of(choice).items()},
        "table": {"schema": 1, "name": name, "runtimes": choice.runtimes, "packages": packages_of(choice)},
        "owner": owner or default_owner(),
        "wait_s": wait_s,
        "stall_s": round(SILENCE_S),
    }


def proofs_of(choice: Choice) -> dict[str, tuple[str, bytes]]:
    """The proof of each chosen runtime: file name and model."""
    return {engine: PROOFS[engine] for engine in choice.runtimes}


def _install(
    transport: Transport, root: str, request: dict[str, Any], packed: Sequence[Packed], progress: Progress
) -> tuple[int, dict[str, Any]]:
    """The conversation: state in, what is missing out, result in. Returns the bytes sent, and the result."""
    size_bytes = sum(each.size_bytes for each in packed)
    total_s = 4 * SILENCE_S + size_bytes / SLOWEST_BYTES_PER_S
    arguments = ["provision", "--root", device_path(root)]
    with AgentSession(transport, arguments, stall_s=SILENCE_S, total_s=total_s, progress=progress) as session:
        session.send_request(request)
        state = session.receive()
        plan = [] if state["installed"] else plan_files(request["files"], state["have"])
        if not state["installed"]:
            check_space(transport.name, root, packed, plan, state["free_bytes"])
        session.send_request({"send": plan})
        sent_bytes = _send(session, plan, _contents(packed, request), progress)
        return sent_bytes, session.receive()


def _contents(packed: Sequence[Packed], request: dict[str, Any]) -> dict[str, bytes]:
    contents = {each.name: each.path.read_bytes() for each in packed}
    return contents | {PROOFS[engine][0]: PROOFS[engine][1] for engine in request["proofs"]}


def plan_files(files: dict[str, Any], have: dict[str, Any]) -> list[dict[str, Any]]:
    """What to send whole: files that an interrupted call did not leave whole."""
    return [
        {"path": name, "offset": 0, "size_bytes": told["size_bytes"]}
        for name, told in files.items()
        if have.get(name, {}).get("sha256") != told["sha256"]
    ]


def check_space(
    name: str, root: str, packed: Sequence[Packed], plan: Sequence[dict[str, Any]], free_bytes: int
) -> None:
    """Refuse before the first byte what cannot fit: the files that are sent, and what they unpack to."""
    sent = sum(-(-part["size_bytes"] // BLOCK_BYTES) * BLOCK_BYTES for part in plan)
    need_bytes = sent + sum(each.unpacked_bytes for each in packed) + SLACK_BYTES
    if need_bytes > free_bytes:
        raise BudgetError(
            f"{name}: {free_bytes} bytes are free at {root} and the runtime needs {need_bytes} while it is "
            "installed; make room"
        )


def _send(
    session: AgentSession, plan: Sequence[dict[str, Any]], contents: dict[str, bytes], progress: Progress
) -> int:
    total_bytes, sent_bytes = sum(part["size_bytes"] for part in plan), 0
    for part in plan:
        data = contents[part["path"]]
        for start in range(0, len(data), CHUNK_BYTES):
            session.send(data[start : start + CHUNK_BYTES])
            sent_bytes += len(data[start : start + CHUNK_BYTES])
            progress("upload", sent_bytes, total_bytes)
    return sent_bytes
