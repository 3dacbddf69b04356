"""Invoke's entry: `invoke --list` shows the tasks. They live in edgekd/cli/."""

from edgekd.cli import ns

__all__ = ["ns"]
