"""Fixtures of the device tests: two small bundles, and a real OpenSSH server that lives for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device.support import Sshd, make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), 1)


@pytest.fixture(scope="session")
def next_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version of the same model, with samples enough to be cut many times."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), 2, samples=1600)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server; tests that use it carry needs("sshd")."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()
