"""Work on many devices as a person sees it: a live table while it goes on, one at the end.

Where stderr is no terminal (a log, CI), a line for each device when it is done or has failed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.report.screen import LiveTable
from edgekd.report.tables import show_table


class HostsView(LiveTable):
    """A Tell (host, what, done, total) that draws; use as a context manager. Called from many threads."""

    refresh_hz = 5.0

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._rows = dict.fromkeys(names, ("waiting", 0, 1))
        self._began = dict.fromkeys(names, 0.0)
        self._ended: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, host: Any, what: str, done: int, total: int) -> None:
        with self._lock:
            self._began[host.name] = self._began[host.name] or time.monotonic()
            self._rows[host.name] = (what, done, total)
            over = what == "done" or what.startswith("failed")
            if over:
                self._ended[host.name] = time.monotonic()
            if over and not self.is_live:
                print(f"edgekd: {host.name}: {what}", file=sys.stderr, flush=True)

    def table(self) -> Any:
        """A row for each device; where they are many, those that are not done."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("device", "doing", "", "s"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        with self._lock:
            rows, now = dict(self._rows), time.monotonic()
        over = [name for name, row in rows.items() if row[0] == "done"]
        for name, (what, done, total) in rows.items():
            if what == "done" and len(rows) > 20:
                continue  # a screen is short: what is done is counted below
            share = f"{100 * done // max(total, 1)} %" if total > 1 else ""
            began = self._began[name]
            table.add_row(name, what, share, f"{self._ended.get(name, now) - began:.0f}" if began else "")
        table.caption = f"{len(over)} of {len(rows)} done"
        return table


def show_summary(found: Mapping[str, Any]) -> None:
    """What became of each device, and of how many."""
    rows = [
        (row["host"], row["outcome"], row.get("release"), row.get("uploaded_bytes"), row["seconds"])
        for row in found["hosts"]
    ]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found["counts"].items())
    show_table(
        f"{found['target']}: {counts}", ("device", "outcome", "release", "sent", "s"), rows, right=(3, 4)
    )
