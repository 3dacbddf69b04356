"""Soak `mutations`: damaged .tflite files are refused with a named error, or computed as TFLite Micro does.

Never a crash, a hang, an allocation of more than 4 x the file in the reader, or C that does not compile.
A child process a processor reads (readers.py, worker.py) and asks the oracle, a child of its own; this
process compiles what was picked and compares it. Each file is a function of (seed, index), so a finding can
be made again: `file_of(seeds(), seed, index)`.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soaks.damage import Seed, make_seed
from benchmarks.soaks.places import MODELS
from benchmarks.soaks.readers import read_all
from benchmarks.soaks.worker import FILE_NAME, SAMPLES, Tally, file_of
from edgekd.errors import EdgekdError
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.qgraph.edges import strip_float_edges
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import float_edged, inputs_for, small_net
from tests.mcu.generated import merge, run_host
from tests.random_graphs import wide_graph

BATCH = 16
WIDE_SEEDS = 12
COMPILED = 800  # about so many of all files are picked for compilation


def seeds(shared: bool = True) -> list[Seed]:
    """The sound files: small nets that hold every op, and (where they are there) one of MLPerf Tiny."""
    made = {"small_net": write_tflite(small_net(np.random.default_rng(1)))}
    made["float_edged"] = write_tflite(float_edged(np.random.default_rng(2)))
    for i in range(WIDE_SEEDS):
        made[f"wide_{i}"] = write_tflite(wide_graph(np.random.default_rng([77, i])))
    for name in ("kws_ref_model",) if shared else ():
        path = MODELS / f"{name}.tflite"
        if path.is_file():
            made[name] = path.read_bytes()
    return [make_seed(name, data) for name, data in made.items()]


def mutations(seed: int, count: int, compiled: int = COMPILED, minutes: float = 0) -> dict[str, Any]:
    """`count` damaged files (fewer after `minutes`, if given); about `compiled` of them as compiled C too."""
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    sound = seeds()
    total, differing, done = Tally(), 0, 0
    each = max(1, count // (20 * compiled))  # about one file in twenty is a new model
    waiting: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        compiler = find_compiler("clang", Path(name) / "cache")

        def compile_waiting() -> None:
            nonlocal differing, done
            folder = Path(name) / str(done)
            differing += _compile(sound, seed, waiting[:BATCH], compiler, folder, total)
            done += len(waiting[:BATCH])
            del waiting[:BATCH]

        for tally in read_all(sound, seed, count, each, end):
            before = total.counts["files"]
            waiting += _add(total, tally)
            files = total.counts["files"]
            if files // 5000 > before // 5000 or files == count:
                last = total.failures[-1:]
                print(f"mutations {files}/{count} {dict(total.counts)} {last}", file=sys.stderr, flush=True)
            while len(waiting) >= BATCH:
                compile_waiting()
        if waiting:
            compile_waiting()
    return _result(total, sound, done, differing)


def _result(total: Tally, sound: list[Seed], compiled: int, differing: int) -> dict[str, Any]:
    files = max(1, total.counts["files"])
    return {
        **{name: dict(sorted(getattr(total, name).items())) for name in ("counts", "refusals", "oracle")},
        "cpu_minutes": round(_cpu_s() / 60, 1),
        "sound_files": {seed.name: len(seed.data) for seed in sound},
        "past_header_pct": round(100 * total.counts["past_header"] / files, 1),
        "compiled_and_compared": compiled,
        "inputs_a_model": SAMPLES,
        "differing_bytes": differing,
        "largest_bytes_a_file_byte": round(total.largest_bytes_a_file_byte, 2),
        "slowest_ms": round(total.slowest_ms, 1),
        "failures": total.failures,
    }


def _cpu_s() -> float:
    """Processor time of this process and its children so far."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _add(total: Tally, part: Tally) -> list[int]:
    """Add `part` up; the picked files whose model no other file gave."""
    for name in ("counts", "refusals", "oracle"):
        getattr(total, name).update(getattr(part, name))
    total.failures += part.failures[: max(0, 50 - len(total.failures))]
    total.largest_bytes_a_file_byte = max(total.largest_bytes_a_file_byte, part.largest_bytes_a_file_byte)
    total.slowest_ms = max(total.slowest_ms, part.slowest_ms)
    new = {mark: index for mark, index in part.distinct.items() if mark not in total.distinct}
    total.distinct.update(new)
    total.counts["distinct"] = len(total.distinct)
    picked = set(part.picked)
    return [index for index in new.values() if index in picked]


def _compile(
    sound: list[Seed], seed: int, picked: list[int], compiler: Compiler, folder: Path, total: Tally
) -> int:
    """Differing output bytes of the picked files' C; taken one by one where a whole batch fails."""
    graphs = [strip_float_edges(read_tflite(file_of(sound, seed, i), FILE_NAME)) for i in picked]
    try:
        return _differing(picked, graphs, compiler, folder, total)
    except EdgekdError:
        differing = 0
        for index, graph in zip(picked, graphs, strict=True):
            try:
                differing += _differing([index], [graph], compiler, folder / str(index), total)
            except EdgekdError as error:
                total.fail(index, f"does not compile: {error}")
        return differing


def _differing(
    picked: list[int], graphs: list[QGraph], compiler: Compiler, folder: Path, total: Tally
) -> int:
    inputs = [inputs_for(g, np.random.default_rng(i), SAMPLES) for i, g in zip(picked, graphs, strict=True)]
    found = run_host(merge(graphs), [x for xs in inputs for x in xs], compiler, folder)
    differing = 0
    for index, graph, xs in zip(picked, graphs, inputs, strict=True):
        mine, found = found[: len(graph.outputs)], found[len(graph.outputs) :]
        bytes_apart = sum(int((a != b).sum()) for a, b in zip(mine, run(graph, xs), strict=True))
        if bytes_apart:
            total.fail(index, f"the generated C differs in {bytes_apart} bytes")
        differing += bytes_apart
    return differing
