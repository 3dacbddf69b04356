"""A process that holds one variant and does as it is told: its memory and its crashes are its own.

One JSON object a line on standard input, one answer a line: {"ok": ...} or {"error", "message"}. Whatever a
runtime prints goes to standard error. It ends with its input, so no worker outlives its agent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from .arrays import Rows, sample_values
from .engines import Engine, file_of, import_runtime, open_engine
from .files import read_table, sha256_file
from .instructions import open_counter
from .machine import memory_bytes
from .messages import AgentError
from .scoring import anomaly_score, top1


class Worker:
    """The variant's sessions by thread count, and what can be asked of them."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._bundle = read_table(directory / "bundle.json", 2)
        self._variant = self._bundle["variants"][name]
        self._shape = tuple(self._bundle["input"]["shape"])
        self._samples = Rows(directory / self._bundle["samples"]["x"])
        self._engines: dict[int, Engine] = {}
        self._ready: dict[int, Any] = {}
        self._idle_bytes = memory_bytes("VmRSS")

    def load(self, threads: int) -> dict[str, Any]:
        """Open the model with so many threads and answer once; times in microseconds, memory in bytes.

        The file's digest is held once more to the bundle's, right before it is opened, and its pages are
        dropped from the cache: a model is loaded cold.
        """
        path = self._directory / file_of(self._variant)
        if sha256_file(path) != self._bundle["files"][path.name]["sha256"]:
            raise AgentError("mismatch", f"{path} is missing or not what was sent; deploy again to mend it")
        drop_from_cache(path)
        begin_ns = time.perf_counter_ns()
        if self._variant["engine"] != "native":
            import_runtime(self._variant["engine"])
        start_ns = time.perf_counter_ns()
        engine = open_engine(self._directory, self._bundle, self._name, threads)
        loaded_ns = time.perf_counter_ns()
        sample = engine.prepare(self._samples.row(0))
        first_ns = time.perf_counter_ns()
        engine.run(sample)
        done_ns = time.perf_counter_ns()
        self._engines[threads], self._ready[threads] = engine, sample
        return {
            "import_us": (start_ns - begin_ns) / 1000,
            "load_us": (loaded_ns - start_ns) / 1000,
            "first_us": (done_ns - first_ns) / 1000,
            "tools": {"python": platform.python_version(), **engine.tools},
            "file": path.name,
            "file_bytes": path.stat().st_size,
        }

    def memory(self) -> dict[str, Any]:
        """The peak of this process, and its rise over what it was before a runtime was imported."""
        peak = memory_bytes("VmHWM")
        rise = None if peak is None or self._idle_bytes is None else peak - self._idle_bytes
        return {"peak_rss_bytes": peak, "rss_rise_bytes": rise}

    def runs(self, threads: int, count: int, max_s: float) -> list[int]:
        """Nanoseconds of up to `count` inferences within `max_s`, at least one."""
        engine, sample, clock = self._engines[threads], self._ready[threads], time.perf_counter_ns
        times: list[int] = []
        end_ns = clock() + int(max_s * 1e9)
        while len(times) < count and (not times or clock() < end_ns):
            start = clock()
            engine.run(sample)
            times.append(clock() - start)
        return times

    def instructions(self, threads: int, count: int) -> list[int] | None:
        """Instructions of `count` inferences in this thread; None where they cannot be counted."""
        engine, sample = self._engines[threads], self._ready[threads]
        counter = open_counter()
        if counter is None:
            return None
        with counter:
            engine.run(sample)
            return [counter.count(lambda: engine.run(sample)) for _ in range(count)]

    def answers(self, threads: int, first: int, count: int) -> list[float]:
        """The class, or the anomaly score where the bundle scores by AUC, of samples from `first` on."""
        engine, scores = self._engines[threads], self._bundle["samples"]["metric"] == "auc"
        result: list[float] = []
        for index in range(first, first + count):
            row = self._samples.row(index)
            values = engine.floats(engine.run(engine.prepare(row)))
            if scores:
                taken = sample_values(row, self._shape, self._variant["layout"])
                result.append(anomaly_score(taken, values))
            else:
                result.append(top1(values))
        return result

    def golden(self, threads: int, count: int) -> list[list[float]]:
        """Outputs of the first `count` samples: integers of an exact variant, else real numbers."""
        engine, rows = self._engines[threads], [self._samples.row(index) for index in range(count)]
        if not self._variant["golden"]["exact"]:
            return [engine.floats(engine.run(engine.prepare(row))) for row in rows]
        code = Rows(self._directory / self._variant["golden"]["file"]).values.format
        whole = [memoryview(engine.integers(row) or b"").cast(code) for row in rows]  # type: ignore[call-overload]
        return [[float(value) for value in each] for each in whole]


def drop_from_cache(path: Path) -> None:
    """Ask the system to forget a file's pages; it may decline."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def work(arguments: argparse.Namespace) -> None:
    """Serve the agent until its end of the pipe is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if worker is None:
                worker = Worker(Path(arguments.bundle), arguments.variant)
            told: dict[str, Any] = {"ok": getattr(worker, asked.pop("do"))(**asked)}
        except AgentError as error:
            told = {"error": error.args[0], "message": error.args[1]}
        except Exception as error:  # a runtime's own errors have many types
            first = (str(error).splitlines() or ["no message"])[0]
            told = {"error": "failed", "message": f"{type(error).__name__}: {first}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()
