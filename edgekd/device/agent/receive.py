"""The device's side of a deploy: what is here, the missing bytes, then the installation."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from .files import sha256_file
from .history import note, prune, read_history
from .install import RELEASE_NAME, describe_root, install, locked
from .messages import AgentError, emit

CHUNK_BYTES = 1 << 16
FILE_NAME = re.compile(r"(?:bundle/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_request(release: str, manifest_text: str) -> dict[str, Any]:
    """The manifest's file table, after its digest, names and types were held to the release's name."""
    digest = hashlib.sha256(manifest_text.encode()).hexdigest()
    if not RELEASE_NAME.fullmatch(release) or not release.endswith(digest[:12]):
        raise AgentError("mismatch", f"the manifest does not belong to release {release!r}; deploy again")
    files: dict[str, Any] = json.loads(manifest_text)["files"]
    if bad := [name for name in files if not FILE_NAME.fullmatch(name)]:
        raise AgentError("mismatch", f"the manifest names a file {bad[0]!r} outside the release")
    return files


def survey(root: Path, release: str, files: dict[str, Any]) -> dict[str, Any]:
    """What of `files` is here: whole in the release, or whole or in part in incoming/."""
    final, staging = root / "releases" / release, root / "incoming" / release
    have: dict[str, Any] = {}
    for name, expected in files.items():
        for path in (final / name, staging / name):
            if not path.is_file():
                continue
            size_bytes, digest = path.stat().st_size, sha256_file(path)
            whole = digest == expected["sha256"]
            if whole or (path.is_relative_to(staging) and size_bytes < expected["size_bytes"]):
                have[name] = {"size_bytes": size_bytes, "sha256": digest}
                break
    return {"installed": final.is_dir(), "have": have, **describe_root(root)}


def receive(staging: Path, plan: list[dict[str, Any]], source: BufferedReader, stall_s: int) -> None:
    """Append the announced bytes to the files in incoming/; a full disk leaves nothing behind."""
    try:
        for part in plan:
            path = staging / part["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if not part["offset"]:
                path.unlink(missing_ok=True)
            with path.open("r+b" if part["offset"] else "wb") as stream:
                stream.truncate(part["offset"])
                stream.seek(part["offset"])
                copy_exactly(source, stream, part["size_bytes"], stall_s)
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(staging, ignore_errors=True)
        raise


def copy_exactly(source: BufferedReader, stream: BinaryIO, size_bytes: int, stall_s: int) -> None:
    """Move `size_bytes` from the link into a file; what came before a cut is kept."""
    while size_bytes:
        signal.alarm(stall_s)  # a link silent for this long ends the process, and so frees the lock
        chunk = source.read1(min(size_bytes, CHUNK_BYTES))
        signal.alarm(0)
        if not chunk:
            raise AgentError("cut", "the link ended in the middle of a file; deploy again")
        stream.write(chunk)
        stream.flush()
        size_bytes -= len(chunk)


def deploy(arguments: argparse.Namespace) -> None:
    """The device's side of a deploy: request line in, state out, plan and bytes in, result out."""
    root, source = Path(arguments.root), cast(BufferedReader, sys.stdin.buffer)
    request = json.loads(source.readline())
    release, manifest_text, stall_s = request["release"], request["manifest"], int(request["stall_s"])
    files = check_request(release, manifest_text)
    for directory in (root, root / "releases", root / "incoming"):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(root, request["owner"], request["wait_s"]):
        for other in (root / "incoming").iterdir():
            if other.name != release:
                shutil.rmtree(other)
        here = survey(root, release, files)
        if stands(root, release, files, here):
            serves = service_of(root, release, request["owner"])
            emit("result", unchanged=True, release=release, removed=[], service=serves, **describe_root(root))
            return
        emit("state", **here)
        signal.alarm(stall_s)
        line = source.readline()
        signal.alarm(0)
        if not line:
            raise AgentError("cut", "the deployer went away; deploy again")
        receive(root / "incoming" / release, json.loads(line)["send"], source, stall_s)
        install(root, release, files, manifest_text)
        note(root, "deployed", release, request["owner"])
        told: dict[str, Any] = {"service": service_of(root, release, request["owner"])}
        told["removed"] = prune(root, release, request["keep"])
        emit("result", unchanged=False, release=release, **told, **describe_root(root))


def service_of(root: Path, release: str, owner: str) -> dict[str, Any] | None:
    """What the service says of the release (service.settle); None, and nothing of it loaded, without one."""
    if not (root / "service.json").is_file():
        return None
    from .service import settle

    return settle(root, release, owner)


def stands(root: Path, release: str, files: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether the release is current and whole, and nothing of it is still on its way."""
    manifest = root / "releases" / release / "release.json"
    if here["current"] != release or (root / "incoming" / release).exists() or not manifest.is_file():
        return False
    whole = all(here["have"].get(n, {}).get("sha256") == e["sha256"] for n, e in files.items())
    known = (root / "history.json").is_file() and read_history(root)[0][-1] == release
    return whole and known and sha256_file(manifest)[:12] == release[-12:]
