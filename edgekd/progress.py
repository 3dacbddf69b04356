"""How long work tells that it moves: a callable, so that stages know nothing of a screen."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # label, done, total


def silent(label: str, done: int, total: int) -> None:
    """The default: say nothing."""
