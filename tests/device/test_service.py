"""`--service` under a real systemd: sandboxed, restarted, moved to each new release, back where it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.agent.units import Served, quoted, service_unit, shown_paths, socket_unit
from edgekd.device.deploy import deploy, device_logs, rollback
from edgekd.device.service import install_service
from edgekd.device.transport import LocalTransport
from edgekd.errors import DeviceError, MissingDependencyError, VerifyError
from tests.device.booted import Booted
from tests.device.support import script

pytestmark = pytest.mark.needs("onnxruntime", "systemd")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    if os.getuid():
        pytest.skip("needs namespaces of its own: run the tests as root")
    running = Booted(tmp_path_factory.mktemp("systemd"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def device(booted: Booted, tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> LocalTransport:
    """A device under that systemd whose release is served on a socket and a port."""
    home = tmp_path_factory.mktemp("home")
    transport = LocalTransport(home, booted.program("python", sys.executable), 60)
    deploy(transport, bundle, "root")
    told = install_service(transport, "root", port=8123, memory_bytes=384 << 20)
    assert told["changed"] and told["unit"] == "edgekd-root" and told["socket"] == "/run/edgekd-root.sock"
    assert told["health"]["status"] == "ok"
    return transport


def health(booted: Booted) -> dict[str, Any]:
    """What the service says, asked over its port of loopback."""
    done = booted.run("curl", "-s", "-m", "30", "http://127.0.0.1:8123/health")
    return dict(json.loads(done.stdout))


def shown(booted: Booted, *names: str) -> dict[str, str]:
    done = booted.run("systemctl", "show", "-p", ",".join(names), "edgekd-root.service")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_it_runs_without_rights(device: LocalTransport, booted: Booted) -> None:
    pid = shown(booted, "MainPID")["MainPID"]
    status = booted.run("cat", f"/proc/{pid}/status").stdout
    uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert "0" not in uids and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status
    inside = ["nsenter", "-t", pid, "-m", "-n", "--setuid", uids[0], "--"]
    for path in ("/etc/x", "/usr/x", "/x", f"{health(booted)['release']}-x"):
        assert booted.run(*inside, "touch", path).returncode != 0
    links = booted.run(*inside, "cat", "/proc/net/dev").stdout
    assert "lo:" in links and "eth" not in links  # a network of its own, with nothing in it
    assert booted.run(*inside, "ls", "/root/.ssh").returncode != 0
    told = booted.run("systemd-analyze", "security", "--no-pager", "edgekd-root.service").stdout
    assert float(told.rsplit("edgekd-root.service:", 1)[1].split()[0]) < 1.5, told[-2000:]


def test_a_kill_is_followed_by_a_start_and_no_request_is_lost(device: LocalTransport, booted: Booted) -> None:
    before = health(booted)
    booted.run("kill", "-9", shown(booted, "MainPID")["MainPID"])
    begin = time.monotonic()
    after = health(booted)  # asked at once: systemd holds the socket, so the question waits for the answer
    assert after["starts"] == before["starts"] + 1 and after["release"] == before["release"]
    assert time.monotonic() - begin < 30


def test_a_second_call_changes_nothing(device: LocalTransport, booted: Booted) -> None:
    pid = shown(booted, "MainPID")
    told = install_service(device, "root", port=8123, memory_bytes=384 << 20)
    assert not told["changed"] and shown(booted, "MainPID") == pid
    changed = install_service(device, "root", port=8123, memory_bytes=400 << 20)
    assert changed["changed"] and shown(booted, "MemoryMax")["MemoryMax"] == str(400 << 20)


def test_each_release_is_served_and_one_that_does_not_answer_is_left(
    device: LocalTransport, booted: Booted, bundle: Path, next_bundle: Path, tmp_path: Path
) -> None:
    old = deploy(device, bundle, "root").release
    new = deploy(device, next_bundle, "root")
    assert new.service is not None and new.service["health"]["release"] == new.release
    assert health(booted)["release"] == new.release
    assert rollback(device, "root")["service"]["health"]["release"] == old
    with pytest.raises(VerifyError) as error:
        deploy(device, broken(next_bundle, tmp_path / "broken"), "root")
    assert "golden sample otherwise" in str(error.value) and f"back to {old}, which answers" in str(
        error.value
    )
    assert health(booted)["release"] == old
    told = device_logs(device, "root", 30)
    assert told["current"] == old and told["journal"][-1]["event"] == "went back"
    assert any("golden sample otherwise" in line for line in told["service"]["said"])


def broken(bundle: Path, copy: Path) -> Path:
    """A whole bundle whose golden answers are not its model's: as of a runtime that computes otherwise."""
    import hashlib

    subprocess.run(["cp", "-r", bundle, copy], check=True)
    golden = np.load(copy / "golden_int8.npy")
    np.save(copy / "golden_int8.npy", golden + 100)
    table = json.loads((copy / "bundle.json").read_text())
    data = (copy / "golden_int8.npy").read_bytes()
    table["files"]["golden_int8.npy"] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (copy / "bundle.json").write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    return copy


def test_without_systemd_it_says_how_to_serve(tmp_path: Path, bundle: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    local = LocalTransport(tmp_path, sys.executable)
    deploy(local, bundle, "root")
    with pytest.raises(MissingDependencyError, match=r"systemd does not run here; .*agent\.pyz serve --root"):
        install_service(local, "root")


def test_without_root_the_line_to_run_is_named(booted: Booted, tmp_path: Path, bundle: Path) -> None:
    """As a login that is not root and has no sudo."""
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    for folder in tmp_path.parents:
        if folder.is_relative_to("/tmp") and folder.name:
            folder.chmod(folder.stat().st_mode | 0o055)
    as_nobody = script(
        tmp_path / "as-nobody", 'exec setpriv --reuid 65534 --clear-groups /usr/bin/python3 "$@"'
    )
    newer = ["/usr/bin/python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not Path(newer[0]).exists() or subprocess.run(newer, check=False).returncode:
        pytest.skip("needs /usr/bin/python3 of version 3.11 or newer")
    login = LocalTransport(home, booted.program("nobody", str(as_nobody)), 60)
    deploy(login, bundle, str(home / "root"))
    with pytest.raises(
        DeviceError, match=r"needs root, and sudo asks for a password; run sudo sh .*install\.sh"
    ):
        install_service(login, str(home / "root"))
    text = (home / "root" / "service" / "install.sh").read_text()
    assert "systemctl start edgekd-root.socket edgekd-root.service" in text


def test_the_units_are_sound(tmp_path: Path) -> None:
    served = Served("edgekd", tmp_path / "a b", "/usr/bin/python3", "int8", 1, 8080, 1 << 28)
    (tmp_path / "a b").mkdir()
    for name, text in (("edgekd.socket", socket_unit(served)), ("edgekd.service", service_unit(served))):
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / "edgekd.service"), str(tmp_path / "edgekd.socket")]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "edgekd" not in done.stderr, done.stderr
    assert str(tmp_path / "a b") in shown_paths(served)
    assert quoted("100%$") == "100%%$$" and quoted("a b") == '"a b"'
