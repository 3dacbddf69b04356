"""Reads damaged files in a process of its own, and tells what became of each.

A file ends in one of: refused (an EdgekdError of one sentence that names the file), accepted (planned,
and if new and small run by the integer reference and the oracle), or failed: anything else. A crash
of this process is noticed by its parent, which knows from `position` which file it was.
"""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.soaks.damage import Seed, damaged
from benchmarks.soaks.oracle import Oracle
from edgekd.errors import EdgekdError
from edgekd.mcu.bench import pack
from edgekd.mcu.codegen import generate
from edgekd.mcu.plan import plan
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.flatbuffer import Reader
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import inputs_for

FILE_NAME = "damaged.tflite"
HANG_S = 20  # of processor time; reading, planning or generating a file of a few KB takes milliseconds
MEMORY_BYTES = 4 << 30
SAMPLES = 4
# What the reader may allocate: 4 x the file, and room for Python's own objects (a tensor is about 1 KB,
# and the tables that it is read from are as much).
MEMORY_FACTOR, OBJECTS_BYTES = 4, 64 * 1024
# What is run: more would be slow in numpy, and is no other case.
MOST_ELEMENTS, MOST_MACS = 1 << 17, 3_000_000
REPORT_EACH = 100
MOST_FAILURES = 50


@dataclass
class Tally:
    """What became of the files so far; sums add up over ranges of indices."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    oracle: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    largest_bytes_a_file_byte: float = 0.0
    slowest_ms: float = 0.0
    picked: list[int] = field(default_factory=list)
    distinct: dict[bytes, int] = field(default_factory=dict)  # fingerprint of a new model -> its file

    def fail(self, index: int, what: str) -> None:
        self.counts["failed"] += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append({"index": index, "what": what[:500]})


def file_of(seeds: list[Seed], seed: int, index: int) -> bytes:
    """The damaged file number `index`: a function of the soak's seed alone."""
    rng = np.random.default_rng([seed, index])
    return damaged(seeds[int(rng.integers(0, len(seeds)))], rng)


def read_range(
    pipe: Connection, position: Any, seeds: list[Seed], seed: int, files: range, each: int
) -> None:
    """The damaged files of these numbers; sends a Tally now and then, at last None.

    position: shared, the file that is being read. each: one of so many new accepted files is picked for
    compilation (its index goes into the tally).
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGVTALRM, _on_alarm)
    read_tflite(seeds[0].data, FILE_NAME)  # what the reader imports when first used is not the file's
    known: set[bytes] = set()
    tally = Tally()
    with Oracle() as oracle:
        for done, index in enumerate(files, 1):
            position.value = index
            _look(file_of(seeds, seed, index), index, known, each, oracle, tally)
            if done % REPORT_EACH == 0:
                pipe.send(tally)
                tally = Tally()
    pipe.send(tally)
    pipe.send(None)


class Hang(Exception):
    """A file took longer than HANG_S."""


def _on_alarm(number: int, frame: Any) -> None:
    raise Hang(f"still busy after {HANG_S} s")


def _look(data: bytes, index: int, known: set[bytes], each: int, oracle: Oracle, tally: Tally) -> None:
    """One file through reader, planner, generator, reference and oracle."""
    tally.counts["files"] += 1
    tally.counts["past_header"] += _is_past_header(data)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    began = time.monotonic()
    try:
        graph = _read(data, index, tally)
        if graph is not None:
            tally.counts["accepted"] += 1
            stripped = strip_float_edges(graph)
            plan(stripped)
            tally.counts["planned"] += 1
            print_of = fingerprint(stripped)
            if print_of not in known:
                known.add(print_of)
                tally.distinct[print_of] = index
                _judge(data, graph, stripped, index, each, oracle, tally)
    except EdgekdError as error:
        _refused(error, index, tally)
    except Exception as error:  # whatever a damaged file provokes is a finding: it is written down
        tally.fail(index, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    tally.slowest_ms = max(tally.slowest_ms, (time.monotonic() - began) * 1e3)


def _is_past_header(data: bytes) -> bool:
    """Whether the file is a version 3 model by its first table."""
    try:
        return data[4:8] == b"TFL3" and Reader(data, FILE_NAME).root().integer(0, "I") == 3
    except EdgekdError:
        return False


def _read(data: bytes, index: int, tally: Tally) -> QGraph | None:
    tracemalloc.start()
    try:
        return read_tflite(data, FILE_NAME)
    except EdgekdError as error:
        _refused(error, index, tally)
        return None
    finally:
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        share = max(0, taken - OBJECTS_BYTES) / max(1, len(data))
        tally.largest_bytes_a_file_byte = max(tally.largest_bytes_a_file_byte, share)
        if share > MEMORY_FACTOR:
            tally.fail(index, f"the reader allocated {taken} bytes for a file of {len(data)}")


def _refused(error: EdgekdError, index: int, tally: Tally) -> None:
    """A refusal is one sentence that names the file."""
    text = str(error)
    tally.counts["refused"] += 1
    tally.refusals[type(error).__name__] += 1
    if "\n" in text or FILE_NAME not in text or len(text) > 1000:
        tally.fail(index, f"not one sentence that names the file: {text}")


def fingerprint(graph: QGraph) -> bytes:
    """What decides the generated code: two files with one fingerprint are one model."""
    digest = hashlib.sha256()
    for tensor in graph.tensors:
        digest.update(repr((tensor.shape, tensor.dtype, tensor.zero_point, tensor.axis)).encode())
        digest.update(tensor.scale.tobytes())
        digest.update(b"" if tensor.data is None else tensor.data.tobytes())
    for op in graph.ops:
        digest.update(repr((op.kind, op.inputs, op.outputs, sorted(op.attrs.items()))).encode())
    digest.update(repr((graph.inputs, graph.outputs)).encode())
    return digest.digest()


def _judge(
    data: bytes,
    graph: QGraph,
    stripped: QGraph,
    index: int,
    each: int,
    oracle: Oracle,
    tally: Tally,
) -> None:
    """A new model: reference against oracle, and whether it is picked for compilation."""
    if any(t.elements > MOST_ELEMENTS for t in graph.tensors):
        tally.counts["too_large_to_run"] += 1
        return
    if sum(layer.macs for layer in generate(stripped).layers) > MOST_MACS:
        tally.counts["too_large_to_run"] += 1
        return
    inputs = inputs_for(stripped, np.random.default_rng(index), SAMPLES)
    expected = pack(run(stripped, inputs))
    answer = (
        oracle.outputs(data, inputs, len(stripped.outputs)) if graph.ops == stripped.ops else "float edges"
    )
    if isinstance(answer, str):  # parts that we do not read are damaged, or the oracle needs more memory
        tally.oracle[f"on the file: {answer}"] += 1
        answer = oracle.outputs(write_tflite(stripped), inputs, len(stripped.outputs))
    if isinstance(answer, str):
        tally.oracle[f"on the file written anew: {answer}"] += 1
        if answer != "refused":
            tally.fail(index, f"TFLite Micro {answer} on a model that was accepted")
    elif not equal(answer, expected):
        tally.fail(index, "TFLite Micro computes something else")
    else:
        tally.oracle["equal"] += 1
    if index % each == 0:
        tally.picked.append(index)


def equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.shape == b.shape and bool((a == b).all())
