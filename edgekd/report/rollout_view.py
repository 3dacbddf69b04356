"""A rollout while somebody watches it: a live table on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.report.rollouts import evidence_of, show_look
from edgekd.report.screen import LiveTable

KEPT = 8  # decisions on the screen
BAR = 40
PARTS = (("confirmed", "#009e73"), ("failed", "#d55e00"), ("silent", "#e69f00"), ("waiting", "#56b4e9"))


class RolloutView(LiveTable):
    """Call it after each look with the status and the events; use as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._status: Mapping[str, Any] = {}
        self._said: deque[tuple[str, str, str]] = deque(maxlen=KEPT)

    def __call__(self, status: Mapping[str, Any], events: Sequence[Any]) -> None:
        now = time.strftime("%H:%M:%S")
        self._status = status
        self._said.extend((now, event.kind, event.why) for event in events if event.why)
        if not self.is_live:
            show_look(status, events, sys.stderr, now)

    def table(self) -> Any:
        """How it stands: a bar of the devices, the figures, the last decisions."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        found, table = self._status, Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        if not found:
            return Text("the first look is under way")
        table.add_column(f"{found['rollout']}: {found['model']} release {found['release']}", no_wrap=True)
        table.add_column(found["status"])
        if found.get("watched_by"):
            table.add_row("waiting", f"{found['watched_by']} watches it")
        table.add_row("devices", self._bar(Text()))
        for name, colour in PARTS:
            table.add_row(Text(name, style=colour), f"{found[name]:,}")
        table.add_row("may take part", f"{found['allowed']:,} of {found['devices']:,}")
        table.add_row("evidence", evidence_of(found))
        if found["lost_canaries"]:
            table.add_row("lost canaries", ", ".join(found["lost_canaries"]))
        for when, kind, why in self._said:
            table.add_row(f"{when} {kind}", why)
        return table

    def _bar(self, bar: Any) -> Any:
        count, used = self._status["devices"], 0
        for name, colour in PARTS:
            wide = round(BAR * self._status[name] / count)
            bar.append("█" * wide, style=colour)
            used += wide
        wide = max(0, round(BAR * self._status["allowed"] / count) - used)
        return bar.append("▒" * wide).append("·" * max(0, BAR - used - wide))
