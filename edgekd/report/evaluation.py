"""The evaluations along a chain as tables: models and what they lost, classes, confusion, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.report.tables import Cell, show_table

_NAMES = {
    "distill": "student, float",
    "compress": "compressed, float",
    "quantize": "int8, integer reference",
    "import": "your model",
}
# More classes than this are shown worst first, and cut.
_SHOWN_CLASSES = 20


def show_evaluations(records: Sequence[Mapping[str, Any]]) -> None:
    """Print every model's figures and verdicts, then the last model's classes, confusion and calibration."""
    last = records[-1]
    title = f"{last['metric']} on {last['split']}, {last['samples']:,} samples; intervals at 95 %"
    columns = ("model", last["metric"], "interval", "ECE", "fall, points", "interval", "gate")
    show_table(title, columns, [_model_row(record) for record in records], right=(1, 2, 3, 4, 5))
    for record in records:
        if record["gate"] and record["gate"]["outcome"] != "passed":
            print(f"\n{record['gate']['outcome']}: {record['gate']['reason']}")
    if last["per_class"]:
        print()
        _show_classes(last)
    if last["reliability"]:
        print()
        rows = [
            (f"{r['above']:.2f}", r["samples"], f"{r['confidence']:.3f}", f"{r['accuracy']:.3f}")
            for r in last["reliability"]
        ]
        heads = ("confidence above", "samples", "confidence", "accuracy")
        show_table(
            f"Calibration of {_NAMES.get(last['model'], last['model'])}", heads, rows, right=(0, 1, 2, 3)
        )


def _model_row(record: Mapping[str, Any]) -> Sequence[Cell]:
    drop, gate = record["drop"], record["gate"]
    return (
        _NAMES.get(record["model"], record["model"]),
        f"{record['value']:.4f}",
        f"{record['low']:.4f} … {record['high']:.4f}",
        None if record["ece"] is None else f"{record['ece']:.4f}",
        f"{100 * drop['value']:.2f}" if drop else None,
        f"{100 * drop['low']:.2f} … {100 * drop['high']:.2f}" if drop else None,
        gate["outcome"] if gate else None,
    )


def _show_classes(record: Mapping[str, Any]) -> None:
    """Each class: accuracy, its interval, and what it is taken for most often."""
    names = [row["class"] for row in record["per_class"]]
    confusion = record["confusion"]
    rows = []
    for number, row in enumerate(record["per_class"]):
        mistaken = _mistakes(confusion[number], number, names) if confusion else None
        limits = f"{row['low']:.3f} … {row['high']:.3f}"
        value = None if row["accuracy"] is None else f"{row['accuracy']:.4f}"
        rows.append((row["accuracy"] or 0.0, (row["class"], row["samples"], value, limits, mistaken)))
    title = f"By class, {_NAMES.get(record['model'], record['model'])}"
    if len(rows) > _SHOWN_CLASSES:
        rows = sorted(rows, key=lambda row: row[0])[:_SHOWN_CLASSES]
        title += f": the worst {_SHOWN_CLASSES} of {len(names)}"
    columns = ("class", "samples", "accuracy", "interval", "taken for")
    show_table(title, columns, [row for _, row in rows], right=(1, 2, 3))


def _mistakes(counts: Sequence[int], own: int, names: Sequence[str]) -> str | None:
    """The three most frequent wrong classes of one true class."""
    wrong = sorted(
        ((n, c) for c, n in enumerate(counts) if n and c != own), key=lambda pair: (-pair[0], pair[1])
    )
    return ", ".join(f"{names[c]} x {n}" for n, c in wrong[:3]) or None
