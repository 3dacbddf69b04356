"""Deploying a bundle to a Linux device: whole or not at all, resumable, and nothing when nothing changed.

A release is a bundle and the agent, named by the digest of its manifest. One conversation with the agent
does it all: it tells what is there, we send what is missing, it checks, syncs and renames.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.device.archive import FILE, agent_archive
from edgekd.device.session import AgentSession
from edgekd.device.transport import CHUNK_BYTES, Transport
from edgekd.errors import BudgetError, DeviceError
from edgekd.export.linux import read_bundle
from edgekd.progress import Progress, silent

SCHEMA = 1
KEEP_RELEASES = 2  # beside the current one
SLACK_BYTES = 1 << 18  # manifest, directories, history
BLOCK_BYTES = 4096
SLOWEST_BYTES_PER_S = 8192  # a link slower than this is given up
SLOWEST_DISK_BYTES_PER_S = 2 << 20  # the device says nothing while it checks and syncs


@dataclass(frozen=True)
class Release:
    """What is to be on the device: contents by path, and the manifest whose digest names it."""

    name: str
    manifest: str
    contents: dict[str, bytes]


@dataclass(frozen=True)
class DeployResult:
    """What a deploy did. `unchanged`: the release was current and whole, nothing was sent."""

    release: str
    root: str
    unchanged: bool
    releases: tuple[str, ...]
    removed: tuple[str, ...]
    free_bytes: int
    uploaded_bytes: int = 0
    resumed_bytes: int = 0  # that an earlier, interrupted deploy had left, and that were not sent again
    upload_s: float = 0.0
    service: dict[str, Any] | None = None  # unit and health, where a service serves the directory


def make_release(bundle: Path) -> Release:
    """The release of a bundle directory, after each of its files was verified.

    Raises ArtifactError naming the file that is missing or broken.
    """
    table = read_bundle(bundle)
    contents = {FILE: agent_archive(), "bundle/bundle.json": (bundle / "bundle.json").read_bytes()}
    for name in sorted(table["files"]):
        contents[f"bundle/{name}"] = (bundle / name).read_bytes()
    files = {
        path: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        for path, data in contents.items()
    }
    manifest = {"schema": SCHEMA, "kind": "edgekd-release", "name": table["name"], "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Release(f"{table['name']}-{digest[:12]}", text, contents)


def deploy(
    transport: Transport,
    bundle: Path | Release,
    root: str,
    progress: Progress = silent,
    *,
    owner: str | None = None,
    keep: int = KEEP_RELEASES,
    wait_s: float = 3.0,
) -> DeployResult:
    """Make `bundle` the current release under `root` (absolute, or relative to the login's home).

    Args:
        bundle: a directory, or the release that was made of it (once, for many devices).
        owner: who deploys, for the lock's message; this login and host name when None.
        keep: releases that stay beside the current one.
        wait_s: how long to wait for another deploy to end.

    Raises ArtifactError (the bundle is broken), BudgetError (space: need and have), DeviceError (away,
    refuses, cut, locked), VerifyError (a file arrived changed; a host key).
    """
    release = bundle if isinstance(bundle, Release) else make_release(bundle)
    size_bytes = sum(map(len, release.contents.values()))
    stall_s = transport.timeout_s + wait_s + size_bytes / SLOWEST_DISK_BYTES_PER_S
    total_s = 4 * stall_s + size_bytes / SLOWEST_BYTES_PER_S
    request = {
        "release": release.name,
        "manifest": release.manifest,
        "owner": owner or default_owner(),
        "keep": keep,
        "wait_s": wait_s,
        "stall_s": max(30, round(3 * stall_s)),
    }
    arguments = ["deploy", "--root", device_path(root)]
    with AgentSession(transport, arguments, stall_s=stall_s, total_s=total_s, progress=progress) as session:
        session.send_request(request)
        state = session.receive()
        if state["type"] == "result":  # the first answer: the release is current and whole
            return _result(release.name, root, state, unchanged=True)
        plan = plan_upload(release, state["have"])
        check_space(transport.name, root, plan, state["free_bytes"])
        begin = time.monotonic()
        sent_bytes = upload(session, release, plan, progress)
        result = session.receive()
        upload_s = time.monotonic() - begin
    if result.get("release") != release.name or result.get("current") != release.name:
        raise DeviceError(f"{transport.name}: the agent installed {result.get('current')!r}; deploy again")
    resumed_bytes = 0 if state["installed"] else size_bytes - sent_bytes
    sizes: dict[str, Any] = {"uploaded_bytes": sent_bytes, "resumed_bytes": resumed_bytes}
    return _result(release.name, root, result, unchanged=False, upload_s=upload_s, **sizes)


def _result(release: str, root: str, told: dict[str, Any], **more: Any) -> DeployResult:
    return DeployResult(
        release=release,
        root=root,
        releases=tuple(told["releases"]),
        removed=tuple(told["removed"]),
        free_bytes=told["free_bytes"],
        service=told["service"],
        **more,
    )


def rollback(
    transport: Transport, root: str, *, owner: str | None = None, wait_s: float = 3.0
) -> dict[str, Any]:
    """Make the release before the current one current; a second call goes one further back.

    Returns `release` (current now), `left` (what was), `releases`, `free_bytes`, `service`. Raises
    DeviceError where there is none before, VerifyError where its files are not what was sent.
    """
    request = {"owner": owner or default_owner(), "wait_s": wait_s}
    told = ("release", "left", "releases", "free_bytes", "service")
    with _asked(transport, root, "rollback", stall_s=4 * transport.timeout_s + wait_s) as session:
        session.send_request(request)
        answer = session.receive()
    return {key: answer[key] for key in told}


def device_logs(transport: Transport, root: str, lines: int) -> dict[str, Any]:
    """The last `lines` lines of the directory's `journal`, with what `device_status` tells of it."""
    with _asked(transport, root, "logs", "--lines", str(lines)) as session:
        return session.receive()


def default_owner() -> str:
    """Who asks, for the device's lock and journal: this login and host name."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def device_path(root: str) -> str:
    """The root as the device's shell-less agent takes it: `~/` is the login's home, where it starts."""
    return "." if root in ("", "~") else root.removeprefix("~/")


def plan_upload(release: Release, have: dict[str, Any]) -> list[dict[str, Any]]:
    """What to send: path, offset and size_bytes of each file that is not there whole.

    A part is built on only when its digest is that of our own first bytes; else the file is sent anew.
    """
    plan: list[dict[str, Any]] = []
    for path, data in release.contents.items():
        here = have.get(path, {"size_bytes": 0, "sha256": ""})
        offset = here["size_bytes"]
        if offset > len(data) or hashlib.sha256(data[:offset]).hexdigest() != here["sha256"]:
            offset = 0
        if path in have and offset == len(data):
            continue
        plan.append({"path": path, "offset": offset, "size_bytes": len(data) - offset})
    return plan


def check_space(name: str, root: str, plan: list[dict[str, Any]], free_bytes: int) -> None:
    """Refuse an upload that cannot fit, before its first byte."""
    if not plan:
        return
    blocks = sum(-(-part["size_bytes"] // BLOCK_BYTES) for part in plan)
    need_bytes = blocks * BLOCK_BYTES + SLACK_BYTES
    if need_bytes > free_bytes:
        raise BudgetError(
            f"{name}: {free_bytes} bytes are free at {root} and the release needs {need_bytes}; make room"
        )


def upload(session: AgentSession, release: Release, plan: list[dict[str, Any]], progress: Progress) -> int:
    """Announce the plan, then send the bytes in its order; returns how many."""
    total_bytes = sum(part["size_bytes"] for part in plan)
    sent_bytes = 0
    session.send_request({"send": plan})
    for part in plan:
        data = release.contents[part["path"]][part["offset"] :]
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            session.send(chunk)
            sent_bytes += len(chunk)
            progress("upload", sent_bytes, total_bytes)
    return sent_bytes


def device_status(transport: Transport, root: str) -> dict[str, Any]:
    """What the device's directory holds (current, releases, free_bytes) and what the device is (machine)."""
    with _asked(transport, root, "status") as session:
        return session.receive()


def _asked(
    transport: Transport, root: str, command: str, *options: str, stall_s: float | None = None
) -> AgentSession:
    """A run of one of the agent's short commands."""
    stall_s = stall_s or transport.timeout_s
    arguments = [command, "--root", device_path(root), *options]
    return AgentSession(transport, arguments, stall_s=stall_s, total_s=3 * stall_s)
