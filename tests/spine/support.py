"""What the spine's tests share: the command line as a process, and a recipe that trains in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
EDGEKD = "import sys; sys.argv[0] = 'edgekd'; from edgekd.cli import main; main()"

QUICK = """
name = "quick"
description = "digits in a few epochs: for mechanics, not for accuracy"
seed = 5
[teacher]
width = 8
epochs = 2
[knowledge]
views = 2
[student]
channels = [8, 16]
strides = [2, 1]
[distill]
epochs = 4
"""

# A net of some 100,000 instructions: QEMU's clock ticks once in 40, too coarse for a smaller one.
WIDER = QUICK.replace('"quick"', '"wider"').replace("[8, 16]", "[16, 32, 24]").replace("[2, 1]", "[1, 2, 1]")


def make_project(folder: Path) -> Path:
    """A user's project with the recipes `quick` and `wider`."""
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / ".edgekd").mkdir(exist_ok=True)
    (folder / "recipes" / "quick.toml").write_text(QUICK)
    (folder / "recipes" / "wider.toml").write_text(WIDER)
    return folder


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def start(project: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", EDGEKD, *arguments]
    return subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def edgekd(project: Path, *arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", EDGEKD, *arguments]
    return subprocess.run(
        command,
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def record(project: Path, *arguments: str) -> dict[str, Any]:
    """The bench record that `edgekd bench ... --json` prints; fails with stderr where there is none."""
    done = edgekd(project, "bench", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def artifacts(project: Path) -> dict[str, list[Path]]:
    """Stage -> the directories of its artifacts."""
    found: dict[str, list[Path]] = {}
    for path in sorted((project / ".edgekd" / "artifacts").glob("*/*")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def digests(project: Path) -> dict[str, list[str]]:
    """Stage -> the digests of its artifacts."""
    return {
        stage: [json.loads((path / "manifest.json").read_text())["digest"] for path in paths]
        for stage, paths in artifacts(project).items()
    }
