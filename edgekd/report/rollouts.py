"""Tables of rollouts: what a simulation found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.report.tables import show_table

ENDINGS = ("stopped", "paused", "asked", "finished")


def show_simulation(found: Mapping[str, Any]) -> None:
    """A row a failure rate: how rollouts end, and how many devices the release failed on."""
    columns = ("failing", *ENDINGS, "lost, median", "lost, p95", "lost, most", "hours, median")
    rows = [
        (
            f"{100 * row['failing']:g} %",
            *(f"{100 * row['shares'].get(ending, 0):.1f} %" for ending in ENDINGS),
            f"{row['lost_median']:.0f}",
            f"{row['lost_p95']:.0f}",
            row["lost_most"],
            f"{row['took_median_s'] / 3600:.1f}",
        )
        for row in found["rates"]
    ]
    runs = found["rates"][0]["runs"]
    title = (
        f"simulated: {runs:,} rollouts each, {found['devices']:,} devices,"
        f" {100 * found['tolerated']:g} % tolerated, {found['canaries']} canaries,"
        f" at most {found['max_failed_devices']:g} expected losses a wave"
    )
    show_table(title, columns, rows, right=range(1, len(columns)))
    sizes = ", ".join(f"{wave['allowed']:,}" for wave in found["plan"])
    print(f"\nwaves of a release that fails nowhere: {sizes}")
    if found["plan"][-1]["allowed"] < found["devices"]:
        print("no bound carries it further: a person is asked from there on")
    print(
        f"stopped by {found['least_failures_to_stop']} failures at the soonest; of releases at"
        f" {100 * found['tolerated']:g} % at most {100 * found['false_stop_at_most']:g} % are stopped"
    )
    print(f"operator: {found['operator']}")
