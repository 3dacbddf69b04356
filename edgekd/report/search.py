"""The front of a search as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import show_table


def show_search(result: Mapping[str, Any]) -> None:
    """Print the students that no other one beats, the most accurate first."""
    rows = {row["trial"]: row for row in result["rows"]}
    names = (result["cost"], "ram_bytes", "flash_bytes")
    table = [
        (
            number,
            f"{rows[number]['accuracy']:.4f}",
            *(f"{rows[number]['costs'][name]:,}" for name in names),
            rows[number]["what"],
        )
        for number in result["front"]
    ]
    title = (
        f"Front of {result['trials']} students ({result['stopped']} stopped early, {result['unfit']} more "
        f"did not fit); hypervolume {result['hypervolume']:.4f}"
    )
    columns = ("trial", "accuracy, validation", names[0], "RAM, bytes", "flash, bytes", "student")
    show_table(title, columns, table, right=(0, 1, 2, 3, 4))
