"""What `compress --to-fit` tried, as a table, and the recipe's table that it found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.report.tables import Cell, show_table

COLUMNS = ("methods", "MACs left", "flash", "RAM", "cycles", "accuracy", "outcome")


def show_fit(answer: Mapping[str, Any]) -> None:
    """Every combination that was priced; what was chosen as the lines that a recipe takes."""
    limits = ", ".join(f"{name} {most:,.0f}" for name, most in answer["limits"].items())
    show_table(
        f"to fit {answer['target']}: {limits}", COLUMNS, map(_row, answer["tried"]), right=(1, 2, 3, 4, 5)
    )
    if answer["chosen"]:
        print("\n[compress]")
        for line in toml_lines(answer["chosen"]):
            print(line)


def _row(row: Mapping[str, Any]) -> list[Cell]:
    costs = {name: int(value) for name, value in row["costs"].items()}
    spent = [costs.get(name) for name in ("flash_bytes", "ram_bytes", "cycles")]
    over = ", ".join(f"{value:,.0f} {name} too many" for name, value in row["over"].items())
    outcome = f"{row['outcome']}: {over}" if over else row["outcome"]
    return [" + ".join(row["methods"]) or "none", row["strength"], *spent, row["accuracy"], outcome]


def toml_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """A recipe's table as TOML: strings, numbers, lists, and lists of flat tables."""
    for key, value in table.items():
        yield f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
