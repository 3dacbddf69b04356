"""Devices that are not as one would like them, each a real SSH server: one sentence, nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.device.deploy import deploy, rollback
from edgekd.errors import DeviceError, EdgekdError, MissingDependencyError
from tests.device.support import Sshd
from tests.device.test_deploy import holds_whole, local

pytestmark = pytest.mark.needs("sshd")


def one_sentence(error: pytest.ExceptionInfo[EdgekdError]) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def server_with(folder: Path, *lines: str) -> Sshd:
    return Sshd(folder / "sshd", *lines)


def test_a_host_that_takes_passwords_only(tmp_path: Path) -> None:
    server = server_with(tmp_path, "PubkeyAuthentication no")
    try:
        server.stop()
        text = server.config.read_text()
        server.config.write_text(text.replace("PasswordAuthentication no", "PasswordAuthentication yes"))
        server.run()
        with pytest.raises(DeviceError) as error:
            server.connect()
        text = one_sentence(error)
        assert "refuses keys" in text and "offers password" in text and "ssh-copy-id" in text
    finally:
        server.stop()


def test_a_user_that_is_not_there(sshd: Sshd) -> None:
    with pytest.raises(DeviceError, match="refuses the login nobody-here") as error:
        sshd.connect(user="nobody-here")
    assert "ssh-copy-id" in one_sentence(error) and "name another user" in one_sentence(error)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("echo This account is currently not available.; exit 1", "This account is currently not available."),
        ("exit 0", "no answer"),
        ("/no/such/shell", "no such"),
    ],
)
def test_a_login_that_runs_no_programs(tmp_path: Path, bundle: Path, command: str, word: str) -> None:
    server = server_with(tmp_path, f"ForceCommand {command}")
    try:
        with server.connect() as transport, pytest.raises((DeviceError, MissingDependencyError)) as error:
            deploy(transport, bundle, str(tmp_path / "root"))
        assert word in one_sentence(error).lower() or word in one_sentence(error)
        assert not (tmp_path / "root").exists()
    finally:
        server.stop()


def test_no_sftp_is_needed(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    assert "Subsystem" not in sshd.config.read_text()
    batch = ["sftp", "-q", "-b", "/dev/null", "-P", str(sshd.port), "-i", str(sshd.key)]
    batch += ["-o", f"UserKnownHostsFile={sshd.known_hosts}", f"{sshd.user}@127.0.0.1"]
    refused = subprocess.run(batch, capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode != 0  # the subsystem really is off
    with sshd.connect() as transport:
        holds_whole(tmp_path / "root", deploy(transport, bundle, str(tmp_path / "root")).release)


@pytest.fixture
def read_only(tmp_path: Path, bundle: Path) -> Iterator[tuple[Path, str]]:
    """A root with a release, on a file system that has become read-only."""
    point = tmp_path / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(point)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs: run the tests as root")
    release = deploy(local(tmp_path), bundle, str(point / "root")).release
    subprocess.run(["mount", "-o", "remount,ro", str(point)], check=True)
    yield point / "root", release
    subprocess.run(["umount", "-l", point], check=True)


def test_a_file_system_that_has_become_read_only(
    sshd: Sshd, read_only: tuple[Path, str], next_bundle: Path
) -> None:
    root, release = read_only
    with sshd.connect() as transport:
        for work in (
            lambda: deploy(transport, next_bundle, str(root)),
            lambda: rollback(transport, str(root)),
        ):
            with pytest.raises(DeviceError) as error:
                work()
            assert "Read-only file system" in one_sentence(error) and str(root) in one_sentence(error)
    assert os.readlink(root / "current") == f"releases/{release}"
