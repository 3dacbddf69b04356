"""Fixtures of the device tests: small bundles, an OpenSSH server, virtual Pis; all live for the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted, ensure_provisioned
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


@pytest.fixture(scope="session")
def virtual_pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """A virtual Pi 4 as it comes from the card; tests that use it carry needs("pi-sim").

    One for each worker of the suite, continued from the one snapshot that they share: the first to come
    builds it in the user's cache directory, the others wait for its lock. Leave it running and connected.
    """
    image = ensure_image("bookworm")
    ensure_booted(image, "cortex-a72")
    with VirtualPi.start(image, tmp_path_factory.mktemp("virtual-pi")) as pi:
        yield pi


@pytest.fixture(scope="session")
def provisioned_pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """A virtual Pi 4 that `provision` gave its runtimes (root: edgekd), from a shared snapshot as above."""
    image = ensure_image("bookworm")
    name = ensure_provisioned(image, "cortex-a72")
    with VirtualPi.start(image, tmp_path_factory.mktemp("provisioned-pi"), snapshot=name) as pi:
        yield pi
