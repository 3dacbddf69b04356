"""One CIFAR-10 student on an emulated Cortex-M4F: each way to a smaller model alone, and together.

    python benchmarks/compress_table.py --store DIR [--knowledge DIR] [--only ROW ...] [--show]

Each row is a recipe with other [compress], [quantize] or [student] tables, made through the store. Accuracy:
all 10,000 test images on the host build of the generated C, 200 of them on the core, every byte equal; flash,
RAM and instructions as `bench` measures them. A row is written when it is whole
(benchmarks/results/compress-cifar10.json), and rows that are there are not made again; --show prints them.
--knowledge: a directory that the recipe cifar10 made, for rows with its training budget; else it is made.
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
from edgekd.recipe import MixPart, Recipe, TeacherParams  # noqa: E402
from edgekd.store import Artifact  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "compress-cifar10.json"
TARGET = "mcu-sim"


@dataclass(frozen=True)
class Row:
    """A recipe and the keys that are other than its own, by table.

    Rows of the recipe cifar10 are compared with its own ResNet-8's accuracy (results/cifar10.json).
    is_benched: else only the integer reference's accuracy is told.
    """

    title: str
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: str = "cifar10-release"
    is_benched: bool = True


# Fine-tuned at half the rate of the distillation, with batch norm put back.
TUNED = {"batch_norm": True, "epochs": 13, "learning_rate": 0.05}
LOWRANK = {"methods": ["lowrank"], "lowrank_layers": "all", "rank_by": "macs", "rank_share": 0.64}

WIDTHS = {"layers.0": 8, "layers.1": 8, "layers.4": 24, "layers.5": 24, "layers.8": 52, "layers.9": 56}
HALF = {
    "methods": ["prune"],
    "prune_channels": [{"layer": layer, "channels": count} for layer, count in WIDTHS.items()],
}

# A rate of 0.001 cost 0.3 points more, 0.002 everything: only what is near a minimum is tuned here.
SHARED = {"methods": ["share"], "entries": 16, "epochs": 2, "learning_rate": 0.0002}
SPARSE = {"methods": ["sparsify"], "batch_norm": True, "epochs": 5, "learning_rate": 0.02}
FOUR = {"weight_bits": 4, "method": "qat", "epochs": 2, "learning_rate": 0.0005}


# Residual blocks that halve the picture once earlier than ResNet-8.
EARLY = {"model": "resnet", "strides": [1, 2, 2, 2], "max_weight_bytes": 320_000}
EARLY_HALF = {"student": EARLY | {"channels": [12, 24, 48, 80]}, "distill": {"epochs": 30}}

# The most accurate that `invoke search --recipe cifar10-release --max-instructions 5214736` trained.
FOUND = {
    "model": "blocks",
    "blocks": [
        {"kind": "conv", "channels": 12},
        {"kind": "residual", "channels": 24, "stride": 2},
        {"kind": "residual", "channels": 48, "stride": 2},
        {"kind": "residual", "channels": 24, "stride": 2},
    ],
}

# A net of depthwise layers, as MobileNets are.
DEPTHWISE = {
    "model": "blocks",
    "blocks": [
        {"kind": "conv", "channels": 24},
        {"kind": "separable", "channels": 48, "stride": 2},
        {"kind": "separable", "channels": 64},
        {"kind": "separable", "channels": 96, "stride": 2},
        {"kind": "separable", "channels": 96},
        {"kind": "separable", "channels": 128, "stride": 2},
    ],
}

ROWS = {
    "int8": Row("int8 as it is"),
    "lowrank": Row("low rank, 0.64 of the MACs", {"compress": LOWRANK | TUNED}),
    "prune": Row(
        "pruned to half of the instructions",
        {"compress": HALF | TUNED | {"epochs": 45, "learning_rate": 0.1}},
    ),
    "search": Row(
        "found by the search under half of the instructions", {"student": FOUND, "distill": {"epochs": 30}}
    ),
    "half": Row("own structure at half of the instructions", EARLY_HALF),
    "share": Row("weight sharing, tables of 16", {"compress": SHARED}),
    "half-share": Row("own structure at half, weight sharing", EARLY_HALF | {"compress": SHARED}),
    "half-qat4": Row("own structure at half, 4 bits trained", EARLY_HALF | {"quantize": FOUR}),
    "2:4": Row("two of four weights zero", {"compress": SPARSE | {"pattern": "2:4"}}),
    "ptq4": Row("4 bits by rounding", {"quantize": {"weight_bits": 4}}, is_benched=False),
    "qat4": Row("4 bits, trained", {"quantize": FOUR}),
    "own": Row(
        "own structure, 3 views, 11 epochs",
        {"student": EARLY | {"channels": [20, 32, 64, 128]}},
        recipe="cifar10",
    ),
    "depthwise": Row("depthwise net, 8 bits by rounding", {"student": DEPTHWISE}, "cifar10"),
    "depthwise-qat8": Row(
        "depthwise net, 8 bits trained",
        {"student": DEPTHWISE, "quantize": FOUR | {"weight_bits": 8}},
        "cifar10",
    ),
    "depthwise-ptq4": Row(
        "depthwise net, 4 bits by rounding",
        {"student": DEPTHWISE, "quantize": {"weight_bits": 4}},
        "cifar10",
        is_benched=False,
    ),
    "depthwise-qat4": Row(
        "depthwise net, 4 bits trained", {"student": DEPTHWISE, "quantize": FOUR}, "cifar10"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default="")
    parser.add_argument("--knowledge", default="")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=[])
    parser.add_argument(
        "--train", action="store_true", help="make what is trained of the rows, measure nothing"
    )
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    for name in () if given.show else given.only or ROWS:
        if given.train:
            trained(asked(ROWS[name], given.store, given.knowledge))
        elif name not in load(given.out):
            row = measured(name, given.store, given.knowledge)
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


def taught_by(recipe: Recipe, knowledge: str) -> Recipe:
    """The recipe with knowledge that is there already in place of its teacher."""
    return dataclasses.replace(
        recipe, teacher=TeacherParams(), mix=(MixPart(str(Path(knowledge).absolute())),)
    )


def asked(row: Row, store: str, knowledge: str) -> Request:
    """The request that makes a row."""
    request = api.request(recipe=row.recipe, target=TARGET, store=store, start=ROOT, progress=Told())
    recipe = changed(request.need_recipe(), row.changes)
    if knowledge and row.recipe == "cifar10":
        recipe = taught_by(recipe, knowledge)
    return dataclasses.replace(request, recipe=recipe)


def trained(request: Request) -> tuple[Artifact, Artifact]:
    """The compressed student and its integers, whatever the gate says of them."""
    return graph.make(request, "compress", gated=False), graph.make(request, "quantize", gated=False)


def measured(name: str, store: str, knowledge: str) -> dict[str, Any]:
    """Make a row's artifacts and read what was measured."""
    row, started = ROWS[name], cpu_s()
    request = asked(row, store, knowledge)
    compressed, quantized = trained(request)
    found = {"bench": benched(request)} if row.is_benched else {}
    return found | {
        "title": row.title,
        "recipe": row.recipe,
        "changes": row.changes,
        "accuracy": graph.make(request, "evaluate-int8", gated=False).metrics["value"],
        "structure": dict(compressed.metrics),
        "quantized": dict(quantized.metrics),
        "gates": gates(request),
        "seed": request.need_recipe().seed,
        "commit": commit(),
        "machine": machine(),
        "cpu_s": round(cpu_s() - started, 1),
        "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def benched(request: Request) -> dict[str, Any]:
    """What the bench record says of all samples."""
    artifact = graph.make(request, "bench", gated=False)
    record = json.loads((artifact.path / "record.json").read_text("utf-8"))
    kept = ("accuracy", "samples", "samples_on_device", "bit_exact", "flash_bytes", "ram_bytes")
    medians = {name: round(record[name]["median"]) for name in ("instructions", "estimated_cycles")}
    return {key: record[key] for key in kept} | medians


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
    if "int8" not in rows:
        raise SystemExit("the row int8 is not measured yet; every other is compared with it")
    quick = json.loads((RESULTS.parent / "cifar10.json").read_text("utf-8"))["int8"]["accuracy"]
    print("| | accuracy | points | flash: weights | all | RAM | instructions | share | gate |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, plan in ROWS.items():
        if name not in rows:
            continue
        row, before = rows[name], rows["int8"]["accuracy"] if plan.recipe == "cifar10-release" else quick
        points = f"{row['accuracy']:.4f} | {100 * (row['accuracy'] - before):+.2f}"
        print(f"| {row['title']} | {points} | {spent(row, rows)} | {row['gates']['quantize']['outcome']} |")


def spent(row: dict[str, Any], rows: dict[str, Any]) -> str:
    """The device's cells of a row."""
    if "bench" not in row:
        return "– | – | – | – | –"
    found = row["bench"]
    share = found["instructions"] / rows["int8"]["bench"]["instructions"]
    flash, ram = found["flash_bytes"], found["ram_bytes"]
    bytes_ = f"{flash['weights']:,} | {flash['total']:,} | {ram['total']:,}"
    return f"{bytes_} | {found['instructions']:,} | {share:.3f}"


if __name__ == "__main__":
    main()
