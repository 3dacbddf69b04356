"""What distillation brought, as a table and one honest sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import show_table


def show_ablation(report: Mapping[str, Any]) -> None:
    """Print an ablation's report: accuracy with and without the teacher, mean and spread over the seeds."""
    rows = []
    for name, key in (("with the teacher", "with_distillation"), ("labels only", "without_distillation")):
        row = report[key]
        values = ", ".join(f"{value:.4f}" for value in row["values"])
        rows.append((name, f"{row['mean']:.4f}", f"{row['spread']:.4f}", values))
    title = f"Student, float, split: {report['split']}, {report['seeds']} seeds; equal epochs, views, steps"
    show_table(title, ("trained", "mean", "spread", "each seed"), rows, right=(1, 2))
    print(f"\n{report['verdict']}")
