"""The walk from an artifact back to its data, as rows and as an indented list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgekd.report.tables import show_table
from edgekd.store import Artifact


def provenance_rows(walk: Iterable[tuple[int, Artifact | Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One dict a step: depth, stage, key, digest, files, seed, tools, and whether the store still has it."""
    rows = []
    for depth, found in walk:
        if isinstance(found, Artifact):
            manifest = found.manifest
            extra = {name: manifest[name] for name in ("params", "tools", "metrics", "files")}
            row = {
                "depth": depth,
                "stage": found.stage,
                "key": found.key,
                "digest": found.digest,
                "here": True,
            }
            rows.append(row | extra)
        else:
            rows.append({"depth": depth, **found, "here": False})
    return rows


def show_provenance(rows: list[dict[str, Any]]) -> None:
    """Print the walk: what it was made from, down to the data set's checksum."""
    table = []
    for row in rows:
        name = "  " * row["depth"] + row["stage"]
        files = ", ".join(sorted(row.get("files", {})))
        origin = row.get("metrics", {}).get("sha256") if row["stage"] == "dataset" else None
        table.append((name, row["key"], row["digest"][:16], f"data sha256 {origin}" if origin else files))
    show_table("Made from", ("stage", "key", "digest", "files"), table)
