"""A memory plan for a person: the buffers, how full each step is, the peak in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import show_table


def show_plan(answer: Mapping[str, Any]) -> None:
    """Print an answer of edgekd.mcu.plan_answer."""
    subject = f"{answer['model']} on {answer['target']} ({answer['family']} kernels)"
    bound = answer["proved_bytes"]
    proof = "proved optimal" if answer["optimal"] else f"proved to be needed: {bound:,}"
    rows = [
        (b["name"], b["kind"], b["offset_bytes"], b["size_bytes"], f"{b['first']} to {b['last']}")
        for b in answer["blocks"]
    ]
    columns = ("buffer", "kind", "offset", "bytes", "steps")
    show_table(
        f"{subject}: arena of {answer['arena_bytes']:,} bytes, {proof}", columns, rows, right=(2, 3, 4)
    )
    print()
    peak = answer["peak"]
    fullest = {peak["step"], *peak["also"]} if peak else set()
    steps = [
        (
            row["step"],
            row["layer"],
            row["op"] or None,
            row["alive_bytes"],
            "fullest" if row["step"] in fullest else None,
        )
        for row in answer["steps"]
    ]
    show_table("Bytes alive, step by step", ("step", "layer", "op", "bytes", ""), steps, right=(0, 3))
    for sentence in (answer["words"], *answer["advice"]):
        print(f"memory: {sentence}")
