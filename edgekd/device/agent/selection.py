"""Measuring every variant of a release on this device, and remembering which one to run.

Each variant lives in a process of its own, so one that crashes takes nothing with it. The choice is made
by choice.py and kept as `selected.json` in the release; it holds as long as the device, its runtimes and
the rule stay the same.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

from .candidate import Candidate, reason_missing
from .choice import ORDER, choose, noise_of
from .engines import architecture, installed
from .files import read_table, write_whole
from .machine import is_emulated
from .measure import ROUNDS, Clock, Key, plan_runs, summary, take_turns, warm_up
from .messages import AgentError, Ticker, emit

SELECTED = "selected.json"
SCHEMA = 1
RULE = 1  # raised when choice.py decides otherwise for the same measurements
COUNTED_RUNS = 5
MEASURED = ("latency_us", "throughput_per_s", "p50_us", "noise", "instructions", "instructions_noise")
BY_PROCESS = ("import_us", "load_us", "first_us", "cold_start_us", "peak_rss_bytes", "rss_rise_bytes")


def survey(directory: Path, bundle: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every variant of the verified bundle and choose: what `selected.json` holds of it.

    Raises AgentError `runtime` when no variant can run here, `mismatch` for a file replaced under us.
    """
    emulated = emulation(arguments)
    crew = [Candidate(directory, bundle, name) for name in bundle["variants"]]
    with contextlib.ExitStack() as closing:
        for done, each in enumerate(crew):
            closing.callback(each.close)
            emit("progress", label=f"load {each.name}", done=done, total=len(crew))
            each.begin()
            each.judge(sample_count(bundle, arguments.samples))
            if each.is_sound and not emulated:
                each.more_threads(thread_counts(os.cpu_count() or 1, arguments.threads)[1:])
        found = measure(crew, arguments)
    rows = [row_of(each, threads, found) for each in crew for threads in each.threads or [1]]
    decided = choose(rows, max_drop=bundle["budget"]["max_accuracy_drop"], emulated=emulated)
    table = [row | verdict for row, verdict in zip(rows, decided.pop("verdicts"), strict=True)]
    return {**decided, "emulated": emulated, "budget": bundle["budget"], "candidates": table}


def thread_counts(cores: int, most: int) -> list[int]:
    """1 to the number of cores, above four only powers of two and the end; `most` limits it, 0 does not."""
    last = min(cores, most) if most else cores
    return [n for n in range(1, last + 1) if n <= 4 or n == last or not n & (n - 1)]


def sample_count(bundle: dict[str, Any], limit: int) -> int:
    """How many samples accuracy is measured on; none where nothing scores them."""
    count = int(bundle["samples"]["count"])
    return min(limit or count, count) if bundle["samples"]["metric"] else 0


def emulation(arguments: argparse.Namespace) -> bool:
    """Whether times say nothing here: as told, or as the device itself says."""
    return is_emulated() if arguments.emulated == "auto" else bool(arguments.emulated == "yes")


def measure(crew: list[Candidate], arguments: argparse.Namespace) -> dict[Key, dict[str, Any]]:
    """Times of every sound candidate by turns, and counts of instructions with one thread."""
    found: dict[Key, dict[str, Any]] = {}
    clocks: dict[Key, Clock] = {}
    for each in crew:
        if not each.is_sound:
            continue
        found[each.name, 1] = counted(each.attempt("instructions", threads=1, count=COUNTED_RUNS))
        for threads in each.threads:
            clocks[each.name, threads] = functools.partial(each.clock, threads)
    estimates: dict[Key, float] = {}
    for key, clock in clocks.items():
        if (estimate := warm_up(clock, arguments.warmup, arguments.max_seconds / 8)) is not None:
            estimates[key] = estimate
    counts = plan_runs(estimates, arguments.runs, arguments.max_seconds)
    for key, rounds in take_turns(clocks, counts, Ticker("measure", ROUNDS)).items():
        told = summary(rounds)
        noise = noise_of(told.pop("round_medians_us"))
        found[key] = found.get(key, {}) | told | {"p50_us": told["latency_us"]["p50"], "noise": noise}
    return found


def counted(counts: list[int] | None) -> dict[str, Any]:
    """The median of exact counts and their relative spread; nothing where they cannot be had."""
    if not counts or not min(counts):
        return {}
    middle = median(counts)
    return {"instructions": middle, "instructions_noise": (max(counts) - min(counts)) / middle}


def row_of(each: Candidate, threads: int, found: dict[Key, dict[str, Any]]) -> dict[str, Any]:
    """The candidate's row of the table. What belongs to the process stands with its first thread count."""
    row: dict[str, Any] = {"variant": each.name, "engine": each.variant["engine"], "threads": threads}
    own = dict.fromkeys(MEASURED) | found.get((each.name, threads), {})
    facts = each.facts if threads == 1 else each.facts | dict.fromkeys(BY_PROCESS)
    return row | facts | own | each.score() | {"golden": each.golden, "failure": each.failure}


def fingerprint() -> dict[str, Any]:
    """What a choice holds for: the machine, its runtimes, the rule."""
    return {"architecture": architecture(), "cores": os.cpu_count(), "engines": installed(), "rule": RULE}


def remembered(final: Path) -> dict[str, Any] | None:
    """The release's choice, while it still holds; None when it has to be made (again)."""
    path = final / SELECTED
    if not path.is_file():
        return None
    try:
        table = read_table(path, SCHEMA)
    except AgentError:
        return None  # a choice can always be made again
    return table if table.get("fingerprint") == fingerprint() and table.get("chosen") else None


def preferred(final: Path, bundle: dict[str, Any]) -> tuple[str, int]:
    """Variant and threads to serve: those chosen for the release in `final`, else the first that can run.

    Raises AgentError `runtime` when none can.
    """
    known = remembered(final)
    if known is not None and known["chosen"]["variant"] in bundle["variants"]:
        return str(known["chosen"]["variant"]), int(known["chosen"]["threads"])
    reasons = {name: reason_missing(bundle["variants"][name]) for name in ORDER if name in bundle["variants"]}
    for name, reason in reasons.items():
        if reason is None:
            return name, 1
    whys = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise AgentError("runtime", f"no variant can run here ({whys})")


def remember(final: Path, release: str, surveyed: dict[str, Any]) -> bool:
    """Keep the choice in the release's directory; False where that cannot be written."""
    head = {"schema": SCHEMA, "kind": "edgekd-selection", "release": release}
    table = {**head, "fingerprint": fingerprint(), "when": int(time.time()), **surveyed}
    try:
        write_whole(final / SELECTED, json.dumps(table, indent=1) + "\n")
    except OSError:
        return False
    return True
