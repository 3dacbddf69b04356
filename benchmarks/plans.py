"""How good the memory plan is: its gap to the lower bound, what is proved, and its time.

    python benchmarks/plans.py [--count 200] [--seed 1] [--optimize speed ...] [--shared DIR] [--out FILE]

The four MLPerf Tiny models and `--count` random graphs (those of the soak `graphs`) in both kernel families,
and sets of random buffers that are harder than any graph seen. "greedy": the largest buffer first, each into
the tightest gap, which is what interpreters do; then what the search adds. Times are of the placement alone,
the least of three. Writes benchmarks/results/plans.json and prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.mcu import MODELS  # noqa: E402
from benchmarks.soak import commit, machine  # noqa: E402
from edgekd.mcu.codegen import GeneratedModel, generate  # noqa: E402
from edgekd.mcu.options import OPTIMIZE, Options  # noqa: E402
from edgekd.mcu.placement import Buffer, Placement, lower_bound, settle  # noqa: E402
from edgekd.qgraph.ir import QGraph  # noqa: E402
from edgekd.qgraph.tflite_reader import read_tflite  # noqa: E402
from tests.mixed_graphs import mixed_graph  # noqa: E402

FAMILIES = ("portable", "dsp")
SET_SIZES = (10, 20, 30, 50, 100)
SETS = 40
REPEATS = 3


def buffers_of(model: GeneratedModel) -> list[Buffer]:
    """What the plan of `model` had to place."""
    return [Buffer(b.size_bytes, b.first, b.last) for b in model.plan.blocks]


def figures(blocks: Sequence[Buffer]) -> dict[str, Any]:
    """One placement: bytes, bound, what is proved, milliseconds."""
    times = []
    found = Placement((), 0, 0)
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = settle(blocks)
        times.append(time.perf_counter() - began)
    bound = lower_bound(blocks)
    return {
        "buffers": len(blocks),
        "greedy_bytes": greedy(blocks),
        "arena_bytes": found.total_bytes,
        "lower_bound_bytes": bound,
        "proved_bytes": found.bound_bytes,
        "ms": round(1e3 * min(times), 3),
    }


def greedy(blocks: Sequence[Buffer]) -> int:
    """The arena of the first order alone: largest first, no search."""
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].size_bytes, blocks[i].first, i))
    ends: dict[int, tuple[int, int]] = {}
    for index in order:
        block = blocks[index]
        taken = sorted(ends[i] for i in ends if blocks[i].meets(block))
        start, best = 0, (0, -1)
        for begin, end in taken:
            room = begin - start
            if room >= block.size_bytes and (best[1] < 0 or room < best[1]):
                best = (start, room)
            start = max(start, end)
        offset = start if best[1] < 0 else best[0]
        ends[index] = (offset, offset + block.size_bytes)
    return max((end for _, end in ends.values()), default=0)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of many placements: how many meet the bound, how many are proved, gaps in percent, times."""
    gaps = [100 * (row["arena_bytes"] / row["lower_bound_bytes"] - 1) for row in rows]
    simple = [100 * (row["greedy_bytes"] / row["lower_bound_bytes"] - 1) for row in rows]
    times = [row["ms"] for row in rows]
    return {
        "plans": len(rows),
        "buffers": [min(row["buffers"] for row in rows), max(row["buffers"] for row in rows)],
        "at_the_bound": sum(gap == 0 for gap in gaps),
        "proved_optimal": sum(row["arena_bytes"] == row["proved_bytes"] for row in rows),
        "gap_percent": {"mean": round(statistics.mean(gaps), 3), "most": round(max(gaps), 3)},
        "greedy_gap_percent": {"mean": round(statistics.mean(simple), 3), "most": round(max(simple), 3)},
        "ms": {"median": statistics.median(times), "most": max(times)},
    }


def random_sets(count: int, buffers: int, seed: int) -> list[list[Buffer]]:
    """Sets of `buffers` random buffers that live for up to a quarter of the steps."""
    rng = random.Random(seed)
    return [
        [
            Buffer(
                4 * rng.randint(1, 60), first := rng.randint(0, buffers), first + rng.randint(0, buffers // 4)
            )
            for _ in range(buffers)
        ]
        for _ in range(count)
    ]


def graphs(shared: Path, count: int, seed: int) -> dict[str, list[QGraph]]:
    """The four models, each under its name, and the random ones."""
    folder = shared / "data" / "mlperf_tiny" / "models"
    known = {name: [read_tflite((folder / f"{name}.tflite").read_bytes(), name)] for name in MODELS}
    return known | {"random": [mixed_graph(np.random.default_rng([seed, index])) for index in range(count)]}


def measure(every: dict[str, list[QGraph]], modes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, some in every.items():
        for mode in modes:
            for family in FAMILIES:
                models = (generate(graph, family, Options(optimize=mode)) for graph in some)
                rows = [figures(buffers_of(model)) for model in models]
                found.setdefault(name, []).extend({"family": family, "optimize": mode, **row} for row in rows)
    return found


def shown(result: dict[str, Any]) -> str:
    """The tables of docs/memory-plan.md."""
    lines = ["| model, kernels | buffers | greedy | arena | lower bound | gap | placed in, ms |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, rows in result["models"].items():
        for row in rows:
            gap = row["arena_bytes"] - row["lower_bound_bytes"]
            lines.append(
                f"| {name}, {row['family']}, {row['optimize']} | {row['buffers']} | {row['greedy_bytes']:,} "
                f"| {row['arena_bytes']:,} | {row['lower_bound_bytes']:,} | {gap} | {row['ms']} |"
            )
    lines += ["", "| | plans | at the bound | proved optimal | gap, %: mean, most | greedy's gap, % | ms |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in result["summaries"].items():
        gap, simple, ms = row["gap_percent"], row["greedy_gap_percent"], row["ms"]
        lines.append(
            f"| {name} | {row['plans']} | {row['at_the_bound']} | {row['proved_optimal']} "
            f"| {gap['mean']}, {gap['most']} | {simple['mean']}, {simple['most']} "
            f"| median {ms['median']}, most {ms['most']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--optimize", nargs="+", choices=OPTIMIZE, default=list(OPTIMIZE))
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "plans.json")
    arguments = parser.parse_args()
    found = measure(graphs(arguments.shared, arguments.count, arguments.seed), arguments.optimize)
    every = found.pop("random")
    summaries = {
        f"random graphs, {family}, {mode}": summary(
            [row for row in every if (row["family"], row["optimize"]) == (family, mode)]
        )
        for mode in arguments.optimize
        for family in FAMILIES
    }
    summaries |= {
        f"sets of {size} buffers": summary(
            [figures(blocks) for blocks in random_sets(SETS, size, arguments.seed)]
        )
        for size in SET_SIZES
    }
    result = {
        "seed": arguments.seed,
        "count": arguments.count,
        "commit": commit(),
        "machine": machine(),
        "models": found,
        "summaries": summaries,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(shown(result))


if __name__ == "__main__":
    main()
