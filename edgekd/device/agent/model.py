"""The current release's model, ready to answer one sample: what `run` and `serve` share."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from .arrays import Rows
from .bench import find_bundle
from .engines import open_engine
from .messages import AUTO, AgentError, emit
from .scoring import compare_golden, squared_error, top1
from .selection import preferred


class Loaded:
    """A loaded variant of a release whose every byte was verified.

    `facts`: release, model, variant, threads; `shape`: of one sample as it lies in the bundle, [1, ...];
    `load_us`: opening it, runtime imported.
    """

    def __init__(self, directory: Path, bundle: dict[str, Any], variant: str, threads: int) -> None:
        begin_ns = time.perf_counter_ns()
        self._engine = open_engine(directory, bundle, variant, threads)
        self.load_us = (time.perf_counter_ns() - begin_ns) // 1000
        self._labels, self._scores = bundle["labels"], bundle["samples"]["metric"] == "auc"
        self.shape: tuple[int, ...] = tuple(bundle["input"]["shape"])
        self.facts: dict[str, Any] = {"model": bundle["name"], "variant": variant, "threads": threads}
        self._check_golden(directory, bundle, bundle["variants"][variant]["golden"])

    def answer(self, row: Any) -> list[float]:
        """The outputs for one sample of float32 values."""
        return self._engine.floats(self._engine.run(self._engine.prepare(row)))

    def describe(self, row: Any, outputs: list[float]) -> dict[str, Any]:
        """What the outputs mean: `score` of a model that gives its input again, else `index` and `label`."""
        if self._scores and len(outputs) == len(row):
            return {"index": None, "label": None, "score": squared_error(row, outputs)}
        index = top1(outputs)
        label = self._labels[index] if self._labels and index < len(self._labels) else None
        return {"index": index, "label": label, "score": None}

    def _check_golden(self, directory: Path, bundle: dict[str, Any], rule: dict[str, Any]) -> None:
        """AgentError `mismatch` where the first golden sample is answered otherwise than on the host."""
        row, golden = Rows(directory / bundle["samples"]["x"]).row(0), Rows(directory / rule["file"])
        given: list[Any]
        if rule["exact"]:
            code: Any = golden.values.format
            given = memoryview(self._engine.integers(row) or b"").cast(code).tolist()
        else:
            given = self.answer(row)
        told = compare_golden([given], [golden.row(0).tolist()], rule)
        if not told["within_tolerance"]:
            raise AgentError("mismatch", "the model answers its golden sample otherwise here; deploy another")


def load_current(arguments: argparse.Namespace) -> Loaded:
    """The current release's model: the variant that is named, chosen here, or the first that can run.

    Raises AgentError for a release that is absent, changed or cannot run.
    """
    directory, bundle, release = find_bundle(arguments)
    if arguments.variant == AUTO:
        variant, threads = preferred(directory.parent, bundle)
    else:
        variant, threads = arguments.variant, arguments.threads or 1
    loaded = Loaded(directory, bundle, variant, threads)
    loaded.facts = {"release": release, **loaded.facts}
    return loaded


def run(arguments: argparse.Namespace) -> None:
    """One inference: request line in ({"size_bytes"}), the sample's bytes in, result out."""
    source = cast(BufferedReader, sys.stdin.buffer)
    size_bytes = int(json.loads(source.readline())["size_bytes"])
    data = source.read(size_bytes)
    emit("progress", label="load", done=0, total=1)
    model = load_current(arguments)
    count = math.prod(model.shape)
    if len(data) != size_bytes or size_bytes != 4 * count:
        raise AgentError("config", f"a sample of this model is {count} values; got {len(data) // 4}")
    row = memoryview(data).cast("f")
    begin_ns = time.perf_counter_ns()
    outputs = model.answer(row)
    took_us = (time.perf_counter_ns() - begin_ns) // 1000
    told = {"output": outputs, **model.describe(row, outputs), **model.facts}
    emit("result", **told, latency_us=took_us, load_us=model.load_us, shape=list(model.shape))
