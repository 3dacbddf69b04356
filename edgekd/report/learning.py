"""What distillation brought, as a table and one honest sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import show_table

_WORDS = {"hard": "labels only", "recipe": "the recipe's"}


def show_ablation(report: Mapping[str, Any]) -> None:
    """Print an ablation: accuracy with each loss, mean and spread over the seeds, and what they carry."""
    rows = []
    for row in report["rows"]:
        gain = row.get("difference")
        interval = (
            f"{100 * gain['low']:+.2f} … {100 * gain['high']:+.2f}"
            if gain and gain["low"] is not None
            else None
        )
        rows.append(
            (
                _WORDS.get(row["loss"], row["loss"]),
                f"{row['mean']:.4f}",
                f"{row['spread']:.4f}",
                f"{100 * gain['mean']:+.2f}" if gain else None,
                interval,
                row.get("verdict"),
            )
        )
    title = f"Student, float, split: {report['split']}, {report['seeds']} seeds; equal epochs, views, steps"
    columns = ("loss", "mean", "spread", "against labels, points", "interval", "seeds say")
    show_table(title, columns, rows, right=(1, 2, 3, 4))
    print(f"\n{report['verdict']}")
