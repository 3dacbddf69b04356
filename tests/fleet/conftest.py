"""Fixtures of the fleet's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.hosts import memory_folder


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A folder in memory where the system has one; other users may read it."""
    with memory_folder() as folder:
        yield folder
