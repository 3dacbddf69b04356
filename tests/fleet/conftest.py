"""Fixtures of the fleet's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edgekd.device.agent.engines import architecture
from tests.fleet import native_models
from tests.fleet.hosts import memory_folder, serving
from tests.fleet.tuf_repository import Client, Repository


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A folder in memory where the system has one; other users may read it."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mapping[str, bytes]]:
    """Bundles of native code for this machine, the good one and the bad ones; needs("ziglang")."""
    cache = tmp_path_factory.getbasetemp().parent / "compiler-cache"
    return native_models.releases(tmp_path_factory.mktemp("native") / "made", (architecture(),), cache)


@pytest.fixture
def repo(fast_path: Path) -> Repository:
    return Repository(fast_path / "host")


@pytest.fixture
def client(fast_path: Path, repo: Repository) -> Iterator[Client]:
    """A client that trusts the first root."""
    with serving(repo.folder) as host:
        made = Client(fast_path / "client", host)
        assert made.init(repo.first_root)
        yield made
