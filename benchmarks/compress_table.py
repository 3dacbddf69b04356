"""One CIFAR-10 student on an emulated Cortex-M4F: each way to a smaller model alone, and together.

    python benchmarks/compress_table.py --store DIR [--only ROW ...] [--show]

Each row is a recipe with other [compress], [quantize] or [student] tables, made through the store. Accuracy:
all 10,000 test images on the host build of the generated C, 200 of them on the core, every byte equal; flash,
RAM and instructions as `bench` measures them. A row is written when it is whole
(benchmarks/results/compress-cifar10.json), and rows that are there are not made again; --show prints them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from learn_chain import Told, commit, cpu_s, machine  # noqa: E402

from edgekd import api  # noqa: E402
from edgekd.declaration import build  # noqa: E402
from edgekd.pipeline import evaluating, graph  # noqa: E402
from edgekd.pipeline.request import Request  # noqa: E402
from edgekd.recipe import Recipe  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "compress-cifar10.json"
TARGET = "mcu-sim"


@dataclass(frozen=True)
class Row:
    """A recipe and the keys that are other than its own, by table; of: the row that it is compared with."""

    title: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: str = "cifar10-release"
    of: str = "int8"


# Fine-tuned at half the rate of the distillation, with batch norm put back.
TUNED = {"batch_norm": True, "epochs": 8, "learning_rate": 0.05}
LOWRANK = {"methods": ["lowrank"], "lowrank_layers": "all", "rank_by": "macs", "rank_share": 0.64}

WIDTHS = {"layers.0": 8, "layers.1": 8, "layers.4": 24, "layers.5": 24, "layers.8": 52, "layers.9": 56}
HALF = {
    "methods": ["prune"],
    "prune_channels": [{"layer": layer, "channels": count} for layer, count in WIDTHS.items()],
}

ROWS = {
    "int8": Row("int8 as it is"),
    "lowrank": Row("low rank, 0.64 of the MACs", {"compress": LOWRANK | TUNED}),
    "prune": Row(
        "pruned to half of the instructions",
        {"compress": HALF | TUNED | {"epochs": 45, "learning_rate": 0.1}},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=[])
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    for name in () if given.show else given.only or ROWS:
        if name not in load(given.out):
            row = measured(name, given.store)
            rows = load(given.out) | {name: row}
            given.out.write_text(json.dumps({"rows": rows}, indent=1, sort_keys=True) + "\n", "utf-8")
    show(load(given.out))


def load(path: Path) -> dict[str, Any]:
    """The rows that are measured."""
    rows: dict[str, Any] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else {}
    return rows


def changed(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with other keys, checked as a file's would be."""
    tables = {}
    for name, keys in changes.items():
        before = getattr(recipe, name)
        fresh = build(type(before), keys, "compress_table", name)
        tables[name] = dataclasses.replace(before, **{key: getattr(fresh, key) for key in keys})
    return dataclasses.replace(recipe, **tables)


def measured(name: str, store: str) -> dict[str, Any]:
    """Make a row's artifacts, whatever the gate says of them, and read what was measured."""
    row, started = ROWS[name], cpu_s()
    request = api.request(recipe=row.recipe, target=TARGET, store=store, start=ROOT, progress=Told())
    request = dataclasses.replace(request, recipe=changed(request.need_recipe(), row.changes))
    compressed = graph.make(request, "compress", gated=False)
    quantized = graph.make(request, "quantize", gated=False)
    artifact = graph.make(request, "bench", gated=False)
    record = json.loads((artifact.path / "record.json").read_text("utf-8"))
    recipe = request.need_recipe()
    kept = (
        "accuracy",
        "accuracy_float",
        "samples",
        "samples_on_device",
        "bit_exact",
        "flash_bytes",
        "ram_bytes",
    )
    return {key: record[key] for key in kept} | {
        "title": row.title,
        "recipe": row.recipe,
        "changes": row.changes,
        "instructions": record["instructions"]["median"],
        "estimated_cycles": record["estimated_cycles"]["median"],
        "structure": dict(compressed.metrics),
        "quantized": dict(quantized.metrics),
        "gates": gates(request),
        "seed": recipe.seed,
        "commit": commit(),
        "machine": machine(),
        "cpu_s": round(cpu_s() - started, 1),
        "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def gates(request: Request) -> dict[str, Any]:
    """Stage -> what the gate says of its model, and the drop against the distilled student."""
    found = {}
    for stage in ("compress", "quantize"):
        evaluation = graph.make(request, evaluating.GATES[stage].by, gated=False)
        drop = evaluating.evaluation_of(evaluation).get("drop")
        found[stage] = evaluating.gate_of(request, evaluation) | {"drop": drop}
    return found


def show(rows: dict[str, Any]) -> None:
    """The table, as docs/compression.md has it."""
    print("| | accuracy | against | flash, weights | flash, all | RAM | instructions | of it | gate |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, plan in ROWS.items():
        if name not in rows:
            continue
        row, of = rows[name], rows.get(plan.of)
        points = f"{100 * (row['accuracy'] - of['accuracy']):+.2f}" if of else ""
        share = f"{row['instructions'] / of['instructions']:.3f}" if of else ""
        flash = f"{row['flash_bytes']['weights']:,} | {row['flash_bytes']['total']:,}"
        spent = f"{row['ram_bytes']['total']:,} | {row['instructions']:,}"
        gate = row["gates"]["quantize"]["outcome"]
        print(f"| {row['title']} | {row['accuracy']:.4f} | {points} | {flash} | {spent} | {share} | {gate} |")


if __name__ == "__main__":
    main()
