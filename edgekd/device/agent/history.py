"""The order of releases (history.json), going back to the one before, and the journal of what was done.

history.json says which releases were current, the last one is; `rolled_back` are those that a rollback
left, so that the next rollback goes further back and never to one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from .files import SCHEMA, write_whole
from .install import RELEASE_NAME, activate, check_release
from .messages import AgentError

JOURNAL = "journal.jsonl"
JOURNAL_BYTES = 1 << 16  # beyond this the older half of the lines goes


def read_history(root: Path) -> tuple[list[str], list[str]]:
    """(releases by the time they became current, those left by a rollback), of those that are there."""
    present = [p for p in (root / "releases").iterdir() if RELEASE_NAME.fullmatch(p.name)]
    names = [p.name for p in sorted(present, key=lambda p: p.stat().st_mtime)]
    try:
        table = json.loads((root / "history.json").read_text(encoding="utf-8"))
        known, left = ([str(n) for n in table.get(key, [])] for key in ("releases", "rolled_back"))
    except (OSError, ValueError, AttributeError, TypeError):
        known, left = [], []  # lost or never written: the order of installation is good enough
    order = [n for n in names if n not in known] + [n for n in known if n in names]
    return order, [n for n in left if n in names]


def write_history(root: Path, order: list[str], left: list[str]) -> None:
    """Replace history.json where it differs."""
    table = {"schema": SCHEMA, "releases": order} | ({"rolled_back": left} if left else {})
    path, text = root / "history.json", json.dumps(table) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def prune(root: Path, release: str, keep: int) -> list[str]:
    """Put `release` last and remove all but `keep` before it; returns the removed."""
    order, left = read_history(root)
    order = [n for n in order if n != release]
    removed, kept = (order[:-keep], order[-keep:]) if keep else (order, [])
    write_history(root, [*kept, release], [n for n in left if n in kept])
    for name in removed:
        shutil.rmtree(root / "releases" / name)
    return removed


def go_back(root: Path) -> str:
    """Activate the newest whole release before the current one that no rollback left; returns its name.

    history.json is written first: cut in between, the same call again goes to the same release.
    """
    current = os.path.basename(os.readlink(root / "current"))
    order, left = read_history(root)
    before = [n for n in order if n != current and n not in left]
    if not before:
        raise AgentError("empty", f"{root} holds no release before {current}; deploy the one that you want")
    release = before[-1]
    check_release(root / "releases" / release)
    write_history(
        root, [*(n for n in order if n != release), release], [*(n for n in left if n != current), current]
    )
    activate(root, release)
    return release


def note(root: Path, event: str, release: str, owner: str, **more: Any) -> None:
    """Append a line to the journal: when (the device's clock), what, which release, who asked for it.

    What was done stands without its line: a disk that is full by now is no failure.
    """
    path, line = root / JOURNAL, {"when": int(time.time()), "event": event, "release": release, "by": owner}
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size > JOURNAL_BYTES:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_whole(path, "".join(lines[len(lines) // 2 :]))
        with path.open("ab") as stream:  # the newline in front parts it from what a power cut left half
            stream.write(b"\n" * bool(stream.tell()) + json.dumps({**line, **more}).encode())


def read_journal(root: Path, limit: int) -> list[dict[str, Any]]:
    """The last `limit` lines of the journal; one that a power cut left half is passed over."""
    path, found = root / JOURNAL, []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in [line for line in lines if line][-limit:]:
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
