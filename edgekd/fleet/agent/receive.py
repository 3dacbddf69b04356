"""`edgekd-agent receive`: take signed files over standard input, then install from them.

One line of JSON, {"files": [[path, bytes], ...]}, then the files' bytes in that order. They lie in inbox/
until the visit is over; what is wrong with them is found there as on any host.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import BinaryIO

from edgekd.fleet.agent.refusals import Refused

INBOX = "inbox"
PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,7}")
CHUNK_BYTES, MOST_FILES = 1 << 16, 4096
SILENCE_S = 60  # a link that brings nothing for so long ends the agent, and frees its lock


def receive(root: Path, source: BinaryIO) -> Path:
    """The folder that now holds what came. Refused: malformed, unreachable (the link ended), too-big."""
    inbox = root / INBOX
    shutil.rmtree(inbox, ignore_errors=True)
    signal.alarm(SILENCE_S)
    try:
        files = _listed(source.readline(1 << 20))
        free_bytes = shutil.disk_usage(root).free
        if sum(size for _, size in files) > free_bytes:
            raise Refused("too-big", f"what is sent does not fit into the {free_bytes} bytes free in {root}")
        for path, size in files:
            place = inbox / path
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(source, place, size)
    finally:
        signal.alarm(0)
    return inbox


def _listed(line: bytes) -> list[tuple[str, int]]:
    try:
        rows = json.loads(line)["files"]
        found = [(str(path), int(size)) for path, size in rows]
    except (ValueError, KeyError, TypeError):
        raise Refused(
            "malformed", "what was sent does not begin with a list of files; send it again"
        ) from None
    if len(found) > MOST_FILES or not all(PATH.fullmatch(path) and size >= 0 for path, size in found):
        raise Refused("malformed", "what was sent lists a file outside the inbox, or too many")
    return found


def _copy(source: BinaryIO, place: Path, size: int) -> None:
    with place.open("wb") as stream:
        while size:
            signal.alarm(SILENCE_S)
            piece = source.read(min(size, CHUNK_BYTES))
            if not piece:
                raise Refused("unreachable", "the link ended in the middle of a file; push again")
            stream.write(piece)
            size -= len(piece)
