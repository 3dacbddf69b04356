"""What a person sees while work goes on: one bar for what runs now, on stderr.

Where stderr is no terminal (a log, CI), one plain line a piece of work instead of a bar.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class ProgressView:
    """A Progress (label, done, total) that draws; use as a context manager."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._rows: dict[str, Any] = {}
        self._told: set[str] = set()

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, label: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            if label not in self._told:
                self._told.add(label)
                print(f"edgekd: {label} ...", file=sys.stderr, flush=True)
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if label not in self._rows:
            self._rows[label] = self._bars.add_task(label, total=max(total, 1))
        self._bars.update(self._rows[label], completed=done, total=max(total, 1))
        if done >= total:
            self._bars.remove_task(self._rows.pop(label))


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    console = Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
