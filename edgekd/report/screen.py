"""What a person sees while work goes on: one bar for what runs now, or a live table, on stderr.

Where stderr is no terminal (a log, CI), one plain line a piece of work instead of a bar.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

_LINE_EVERY_S = 60.0


class ProgressView:
    """A Progress (label, done, total) that draws; use as a context manager."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._rows: dict[str, Any] = {}
        self._told: dict[str, float] = {}  # when each piece of work last had a line

    def __enter__(self) -> ProgressView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, label: str, done: int, total: int) -> None:
        row = label.split(": ")[0]  # what stands behind it changes while the work goes on
        if not sys.stderr.isatty():
            self._print(row, label, done, total)
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if row not in self._rows:
            self._rows[row] = self._bars.add_task(label, total=max(total, 1))
        self._bars.update(self._rows[row], completed=done, total=max(total, 1), description=label)
        if done >= total:
            self._bars.remove_task(self._rows.pop(row))

    def _print(self, row: str, label: str, done: int, total: int) -> None:
        """A line when a piece of work begins, and one a minute while it says how it goes."""
        now = time.monotonic()
        if row not in self._told:
            self._told[row] = now
            print(f"edgekd: {row} ...", file=sys.stderr, flush=True)
        elif label != row and now - self._told[row] >= _LINE_EVERY_S:
            self._told[row] = now
            print(f"edgekd: {label}, {100 * done // max(total, 1)} %", file=sys.stderr, flush=True)


class LiveTable:
    """What a terminal shows again and again while work goes on; use as a context manager.

    refresh_hz: how often `table` is asked; is_live: whether stderr is a terminal, and so whether it is.
    """

    refresh_hz = 2.0

    def __init__(self) -> None:
        self._live: Any = None

    @property
    def is_live(self) -> bool:
        return self._live is not None

    def table(self) -> Any:
        """What is to be seen now, as rich draws it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self.table, refresh_per_second=self.refresh_hz)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


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
