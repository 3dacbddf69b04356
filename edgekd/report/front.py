"""The builds that no other one beats, for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import Cell, show_table


def show_front(answer: Mapping[str, Any]) -> None:
    """Print an answer of edgekd.pipeline.planning.front_of: estimates, and what was measured where it was."""
    rows = [row for row in answer["builds"] if row["on_front"]]
    is_measured = any(row["measured"] for row in rows)
    title = f"{answer['model']} on {answer['target']}: {len(rows)} of {len(answer['builds'])} builds"
    columns = ("", "build", "cycles, est.", "RAM, est.", "flash, est.")
    more = ("cycles, run", "RAM, run", "flash, linked") if is_measured else ()
    table = [(*_estimates(row), *(_measured(row) if is_measured else ())) for row in rows]
    right = (0, *range(2, len(columns) + len(more)))
    show_table(f"{title} that no other one beats", (*columns, *more), table, right=right)
    for sentence in answer["notes"]:
        print(sentence)


def _estimates(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    return row["number"], row["label"], row["cycles"], row["ram_bytes"], row["flash_bytes"]


def _measured(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    found = row["measured"] or {}
    return tuple(found.get(name) for name in ("cycles", "ram_bytes", "flash_bytes"))
