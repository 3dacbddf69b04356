"""The device directory: the release that is current, those that were, and how a new one takes its place.

Each change is one rename after an fsync; docs/formats/linux.md has the order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import damaged, read_table, sha256_file, sync, verify_files, write_whole
from .messages import AgentError

RELEASE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}-[0-9a-f]{12}")


@contextlib.contextmanager
def locked(root: Path, owner: str, wait_s: float) -> Iterator[None]:
    """Hold the directory's lock. It lives with this process: a cut link, kill or reboot frees it."""
    end = time.monotonic() + wait_s
    with (root / "lock").open("a+", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    stream.seek(0)
                    text = f"{root} is being deployed to by {stream.read() or 'another'}; wait for it"
                    raise AgentError("locked", text) from None
                time.sleep(0.05)
        stream.truncate(0)
        stream.write(f"{owner} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
        stream.flush()
        yield
        stream.truncate(0)


def describe_root(root: Path) -> dict[str, Any]:
    """The directory in words: current release, all releases, free space."""
    link, releases, space = root / "current", root / "releases", os.statvfs(root)
    current = os.path.basename(os.readlink(link)) if link.is_symlink() else None
    names = sorted(p.name for p in releases.iterdir()) if releases.is_dir() else []
    return {"current": current, "releases": names, "free_bytes": space.f_bavail * space.f_frsize}


def install(root: Path, release: str, files: dict[str, Any], manifest_text: str) -> None:
    """Turn what lies in incoming/ into the current release.

    Order: check, fsync, rename the directory, rename the symlink. Cut anywhere, `current` names a whole
    release, and calling again finishes. A release that is there but damaged is mended file by file.
    """
    final, staging = root / "releases" / release, root / "incoming" / release
    manifest = final / "release.json"
    if staging.is_dir() or not manifest.is_file() or sha256_file(manifest)[:12] != release[-12:]:
        place(final, staging, files, manifest_text)
    verify_files(final, files)
    activate(root, release)


def place(final: Path, staging: Path, files: dict[str, Any], manifest_text: str) -> None:
    """Move the checked files from incoming/ into the release."""
    staging.mkdir(exist_ok=True)
    staged = {n: e for n, e in files.items() if (staging / n).is_file()}
    try:
        verify_files(staging, staged)
    except AgentError:
        shutil.rmtree(staging)
        raise
    write_whole(staging / "release.json", manifest_text)
    names = [*staged, "release.json"]
    for name in names:
        os.chmod(staging / name, 0o444)
        sync(staging / name)
    if final.is_dir():
        for name in names:
            (final / name).parent.mkdir(exist_ok=True)
            os.replace(staging / name, final / name)
        shutil.rmtree(staging)
    else:
        sync(staging / "bundle")
        os.rename(staging, final)
    for directory in (final / "bundle", final, final.parent):
        sync(directory)


def activate(root: Path, release: str) -> None:
    """Let `current` name the release: a new symlink renamed over the old one."""
    current, fresh = root / "current", root / "current.new"
    target = f"releases/{release}"
    if current.is_symlink() and os.readlink(current) == target:
        return
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, current)
    sync(root)


def find_release(root: Path) -> str:
    """The name of the current release, its files verified."""
    if not (root / "current").is_symlink():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    release = os.path.basename(os.readlink(root / "current"))
    check_release(root / "releases" / release)
    return release


def check_release(final: Path) -> None:
    """Hold a release's manifest to its name and its files to the manifest; AgentError `mismatch`."""
    manifest = final / "release.json"
    if not manifest.is_file() or sha256_file(manifest)[:12] != final.name[-12:]:
        raise damaged(manifest)
    verify_files(final, read_table(manifest)["files"])
