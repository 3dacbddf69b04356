"""One variant on trial: its process, and what was found out about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .arrays import Rows
from .crew import Hand, WorkerLost
from .engines import file_of, how_to_install, installed
from .messages import AgentError, Ticker
from .scoring import compare_golden, quality

CHUNK_SAMPLES = 32
FIRST_RUNS = 10  # before the memory is read
FACTS = ("import_us", "load_us", "first_us", "cold_start_us", "peak_rss_bytes", "rss_rise_bytes")
FILE_FACTS = ("file", "file_bytes", "tools")


class Candidate:
    """One variant's process. `failure` says in words why it is out; `threads`: counts that are loaded."""

    def __init__(self, directory: Path, bundle: dict[str, Any], name: str) -> None:
        self.name, self.variant = name, bundle["variants"][name]
        self._directory, self._bundle = directory, bundle
        self._hand: Hand | None = None
        self.failure: str | None = None
        self.facts: dict[str, Any] = dict.fromkeys((*FACTS, *FILE_FACTS))
        self.golden: dict[str, Any] | None = None
        self.answers: list[float] = []
        self.threads: list[int] = []

    @property
    def is_sound(self) -> bool:
        """Whether it runs and its golden outputs are right."""
        return not self.failure and self.golden is not None and bool(self.golden["within_tolerance"])

    def attempt(self, do: str, **given: Any) -> Any:
        """The worker's answer; None, and `failure` in words, when there is none.

        Raises AgentError `mismatch` for a file that was replaced under us.
        """
        if self._hand is None or self.failure:
            return None
        try:
            return self._hand.ask(do, **given)
        except WorkerLost as lost:
            self.failure = f"its process {lost} during {do!r}"
        except AgentError as error:
            if error.args[0] == "mismatch":
                raise
            self.failure = str(error.args[1])
        return None

    def begin(self, threads: int = 1) -> None:
        """Start the process, load cold, answer; memory is noted before anything else is done."""
        self.failure = reason_missing(self.variant)
        if self.failure:
            return
        self._hand = Hand(self._directory, self.name)
        loaded = self.attempt("load", threads=threads)
        if loaded is None:
            return
        cold_us = (time.perf_counter_ns() - self._hand.start_ns) / 1000
        self.threads = [threads]
        self.attempt("runs", threads=threads, count=FIRST_RUNS, max_s=1.0)
        self.facts |= {**loaded, "cold_start_us": cold_us, **(self.attempt("memory") or {})}

    def more_threads(self, counts: list[int]) -> None:
        """Load the model again for other thread counts, where the engine can use them."""
        for count in counts:
            if self.variant["engine"] == "native" or self.attempt("load", threads=count) is None:
                return
            self.threads.append(count)

    def judge(self, samples: int) -> None:
        """Golden outputs, then the answers on `samples` samples, by the first thread count."""
        rule, threads = self.variant["golden"], self.threads[0] if self.threads else 1
        golden = Rows(self._directory / rule["file"])
        outputs = self.attempt("golden", threads=threads, count=len(golden))
        if outputs is None:
            return
        self.golden = compare_golden(outputs, [golden.row(i).tolist() for i in range(len(golden))], rule)
        say = Ticker(f"accuracy of {self.name}", samples)
        while self.is_sound and len(self.answers) < samples:
            count = min(CHUNK_SAMPLES, samples - len(self.answers))
            asked = {"threads": threads, "first": len(self.answers), "count": count}
            self.answers += self.attempt("answers", **asked) or []
            say(len(self.answers))

    def clock(self, threads: int, count: int, max_s: float) -> list[int]:
        """Nanoseconds of up to `count` inferences; none when it has failed."""
        return self.attempt("runs", threads=threads, count=count, max_s=max_s) or []

    def score(self) -> dict[str, Any]:
        """`quality` of the answers by the bundle's metric, and its `drop` against the reference's."""
        bundle, count = self._bundle, len(self.answers)
        metric, reference, truth = bundle["samples"]["metric"], bundle["reference"], None
        known = Rows(self._directory / reference["file"]).values[:count].tolist() if reference else []
        if bundle["samples"]["y"]:
            truth = Rows(self._directory / bundle["samples"]["y"]).values[:count].tolist()
        own = quality(metric, self.answers, known if metric == "agreement" else truth)
        best = 1.0 if metric == "agreement" else quality(metric, known, truth)
        drop = None if own is None or best is None else best - own
        if own is None and best is not None and self.answers:
            drop = 1.0  # its answers are no numbers: all is lost
        scored = {"metric": metric, "quality": own, "reference_quality": best, "drop": drop}
        return scored | {"samples": count}

    def close(self) -> None:
        """End the process."""
        if self._hand is not None:
            self._hand.close()
            self._hand = None


def reason_missing(variant: dict[str, Any]) -> str | None:
    """Why a variant cannot run here at all, told without importing anything."""
    try:
        file_of(variant)
    except AgentError as error:
        return str(error.args[1])
    if installed()[variant["engine"]] is None:
        return f"{variant['engine']} is not installed here; {how_to_install(variant['engine'])}"
    return None
