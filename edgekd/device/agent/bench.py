"""Measuring the current release: which variant is the fastest here, and what the chosen one costs."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from .candidate import Candidate
from .choice import noise_of
from .conditions import EnergyMeter, conditions, throttling
from .files import read_table, verify_files
from .install import find_release
from .machine import machine
from .measure import ROUNDS, plan_runs, summary, take_turns, warm_up
from .messages import AUTO, AgentError, Ticker, emit
from .runtime import adopt
from .selection import COUNTED_RUNS, emulation, remember, remembered, sample_count, survey

BUNDLE_SCHEMA = 2
EMULATED_MAX_S = 1.0  # of inferences timed: these times rank nothing


def bench(arguments: argparse.Namespace) -> None:
    """Verify the release, choose a variant unless one is named, and measure it; emits one result."""
    directory, bundle, release = find_bundle(arguments)
    arguments.max_seconds = seconds_of(arguments)
    selection, variant, threads = None, arguments.variant, arguments.threads or 1
    if variant == AUTO:
        selection = selection_of(directory, bundle, release, arguments)
        variant, threads = selection["chosen"]["variant"], selection["chosen"]["threads"]
    before = conditions()
    measured = measure_one(directory, bundle, variant, threads, arguments)
    after = conditions()
    facts = {"release": release, "split": bundle["split"], "machine": machine()}
    state = {"before": before, "after": after, "throttled": throttling(before, after)}
    emit("result", **facts, **measured, conditions=state, selection=selection)


def choose_variant(arguments: argparse.Namespace) -> None:
    """Measure all variants anew and keep the choice; emits the selection."""
    directory, bundle, release = find_bundle(arguments)
    arguments.again, arguments.max_seconds = True, seconds_of(arguments)
    emit("result", selection=selection_of(directory, bundle, release, arguments), machine=machine())


def seconds_of(arguments: argparse.Namespace) -> float:
    """How long inferences are timed: as asked, but briefly where times say nothing."""
    asked_s = float(arguments.max_seconds)
    return min(asked_s, EMULATED_MAX_S) if emulation(arguments) else asked_s


def selection_of(
    directory: Path, bundle: dict[str, Any], release: str | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The release's choice: as remembered, or made now. AgentError `runtime` when nothing can run."""
    known = None if release is None or arguments.again else remembered(directory.parent)
    if known is not None:
        return {k: v for k, v in known.items() if k not in ("schema", "kind", "release")} | {"reused": True}
    surveyed = survey(directory, bundle, arguments)
    if surveyed["chosen"] is None:
        kind = "mismatch" if any(row["golden"] for row in surveyed["candidates"]) else "runtime"
        whys = "; ".join(f"{row['variant']}: {row['why']}" for row in surveyed["candidates"])
        raise AgentError(kind, f"no variant can be used here ({whys}); install a runtime, or export anew")
    kept = release is not None and remember(directory.parent, release, surveyed)
    return surveyed | {"reused": False, "recorded": kept}


def measure_one(
    directory: Path, bundle: dict[str, Any], name: str, threads: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Everything about one variant, in a fresh process."""
    each, emulated = Candidate(directory, bundle, name), emulation(arguments)
    with contextlib.closing(each):
        emit("progress", label="load", done=0, total=1)
        each.begin(threads)
        refuse(each)
        key = (name, threads)
        clocks = {key: lambda count, max_s: each.clock(threads, count, max_s)}
        estimate = warm_up(clocks[key], arguments.warmup, arguments.max_seconds / 4) or 1.0
        meter, say = EnergyMeter(), Ticker("bench", ROUNDS)
        meter.start()
        counts = plan_runs({key: estimate}, arguments.runs, arguments.max_seconds)

        def between(done: int) -> None:
            say(done)
            meter.sample()

        rounds = take_turns(clocks, counts, between).get(key)
        energy = meter.stop()
        counts_of = {"threads": threads, "count": COUNTED_RUNS}
        instructions = each.attempt("instructions", **counts_of) if threads == 1 else None
        each.judge(sample_count(bundle, arguments.samples))
        refuse(each)
    told = summary(rounds or [])
    noise = noise_of(told.pop("round_medians_us"))
    inferences = told["latency_us"]["n"]
    spent = None if energy is None else {**energy, "uj": energy["joules"] * 1e6 / inferences}
    facts = {"variant": name, "engine": each.variant["engine"], "threads": threads, "emulated": emulated}
    scored = each.score() | {"golden": each.golden}
    measured = {"noise": noise, "energy": spent, "instructions": instructions}
    return facts | each.facts | told | scored | measured


def refuse(each: Candidate) -> None:
    """AgentError when the variant that is to be measured cannot be."""
    if each.failure:
        missing = "not installed" in each.failure or "does not load" in each.failure
        raise AgentError("runtime" if missing else "failed", f"{each.name}: {each.failure}")


def find_bundle(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any], str | None]:
    """The bundle asked for, its every byte verified: a directory's, or that of the current release."""
    release = None if arguments.bundle else find_release(Path(arguments.root))
    if release:
        adopt(Path(arguments.root))
    inside = Path(arguments.root, "releases", release, "bundle") if release else Path(arguments.bundle)
    bundle = read_table(inside / "bundle.json", BUNDLE_SCHEMA)
    verify_files(inside, bundle["files"])
    if arguments.variant != AUTO and arguments.variant not in bundle["variants"]:
        known = ", ".join(sorted(bundle["variants"]))
        raise AgentError("config", f"the bundle has no variant {arguments.variant!r}; it has {known}")
    return inside, bundle, release
