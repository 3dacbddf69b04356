"""Run a step's program: its output passes to stderr, its failure becomes one sentence.

Part of bootstrap.py: standard library only, no part of the package.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# What a failing program says, and what a person does about it; the first that fits wins.
CAUSES = (
    (
        ("No space left on device", "Errno 28", "Disk quota exceeded", "not enough space on the disk"),
        "the disk is full ({free}): make room, then run this again",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "SSLError"),
        "the package index's certificate is not trusted: tell pip your network's own (pip config set"
        " global.cert FILE), then run this again",
    ),
    (
        (
            *("NewConnectionError", "NameResolutionError", "Failed to establish", "ProxyError"),
            *("Temporary failure in name resolution", "Network is unreachable", "ConnectTimeout"),
            *("ReadTimeout", "Read timed out", "IncompleteRead", "Connection refused", "Connection reset"),
            *("Connection aborted", "Connection broken", "ConnectionResetError"),
        ),
        "the package index does not answer: check the network (or pip's own settings: pip config list),"
        " then run this again",
    ),
    (
        ("Permission denied", "Errno 13"),
        "a file of .venv cannot be written: mend its owner or remove .venv, then run this again",
    ),
)


class StepError(Exception):
    """One sentence: what is wrong and how to mend it."""


def run(command: Sequence[str], what: str, *, quiet: bool = False) -> str:
    """Run `command` and return what it printed on stdout when `quiet`; StepError when it fails.

    Unless quiet, its stdout passes to our stderr as it comes. `what` begins the sentence of an
    unknown failure ("pip could not install packages").
    """
    shown = subprocess.PIPE if quiet else sys.stderr.fileno()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise StepError(f"{what}: {command[0]} does not start ({error.strerror})") from None
    with process:
        try:
            output, errors = process.communicate()
        except KeyboardInterrupt:  # the program has had the signal too: let it tidy up first
            stop(process)
            raise
    if process.returncode:
        raise StepError(explain(what, f"{errors}\n{output or ''}"))
    return output or ""


def stop(process: subprocess.Popen[str]) -> None:
    """Wait for a program that was interrupted; end it when it takes longer than a few seconds."""
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.terminate()


def free_space() -> int:
    """The bytes free where the checkout lies, or .venv if that is a place of its own."""
    root = Path(__file__).resolve().parent.parent
    return min(shutil.disk_usage(place).free for place in (root, root / ".venv") if place.exists())


def explain(what: str, text: str) -> str:
    """The sentence for a failed program that printed `text`."""
    free_bytes = free_space()
    for signs, sentence in CAUSES:
        if any(sign in text for sign in signs):
            return sentence.format(free=f"{free_bytes // 1_000_000} MB are free")
    if free_bytes < 1_000_000:  # a program that fails without saying why
        return CAUSES[0][1].format(free="nothing is free")
    absent = re.search(r"\(constraint\) (\S+)", text)
    absent = absent or re.search(r"No matching distribution found for ([^\s;]+)", text)
    if absent:
        version = ".".join(map(str, sys.version_info[:2]))
        return (
            f"pip finds no {absent[1]} for Python {version} on {sys.platform}: use another Python, or look at"
            " the index and the constraints in pip's own settings (pip config list)"
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    errors = [line for line in lines if "ERROR" in line or "error:" in line] or lines or ["it says nothing"]
    return f"{what}: {errors[-1].strip().removeprefix('ERROR: ')}"
