"""The commands that look back: `rollback` to the release before, and `logs` of what was done and said."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from .history import go_back, note, read_journal
from .install import describe_root, locked
from .messages import AgentError, emit
from .service import ask, said, served_by, wait_for, why


def rollback(arguments: argparse.Namespace) -> None:
    """Make the release before the current one current: request line in (owner, wait_s), result out."""
    request, root = json.loads(sys.stdin.buffer.readline()), Path(arguments.root)
    if not (root / "current").is_symlink():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    with locked(root, request["owner"], request["wait_s"]):
        left, unit = os.path.basename(os.readlink(root / "current")), served_by(root)
        release = go_back(root)
        note(root, "rolled back", release, request["owner"], left=left)
        health = wait_for(root, unit, release) if unit else None
        if unit and health is None:
            raise AgentError(
                "unhealthy", f"{release} is current again and {unit} does not answer ({why(unit)})"
            )
        service = {"unit": unit, "health": health} if unit else None
        emit("result", release=release, left=left, service=service, **describe_root(root))


def logs(arguments: argparse.Namespace) -> None:
    """Say what was done to the directory, newest last, and what its service said and is."""
    root = Path(arguments.root)
    if not root.is_dir():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    unit = served_by(root)
    service = {"unit": unit, "health": ask(root), "said": said(unit, arguments.lines)} if unit else None
    emit("result", journal=read_journal(root, arguments.lines), service=service, **describe_root(root))
