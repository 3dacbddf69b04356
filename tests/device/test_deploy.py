"""Deploying, with every fault: whole or not at all, resumed, idempotent, and never a hang."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekd.device import deploy as deploy_module
from edgekd.device.agent.files import verify_files
from edgekd.device.agent.history import prune
from edgekd.device.agent.install import install
from edgekd.device.deploy import DeployResult, Release, deploy, device_status, make_release, plan_upload
from edgekd.device.session import AgentSession
from edgekd.device.transport import LinkCutError, LocalTransport
from edgekd.errors import ArtifactError, BudgetError, DeviceError, MissingDependencyError
from tests.device.support import Sshd, make_bundle, proxy_to, script

CUT_EVERY_BYTES = 65_536


def local(folder: Path) -> LocalTransport:
    """This machine as the device."""
    return LocalTransport(folder, sys.executable)


def holds_whole(root: Path, release: str) -> None:
    """`current` names `release`, its files are what its manifest says, and nothing else lies about."""
    assert os.readlink(root / "current") == f"releases/{release}"
    for path in (root / "releases").iterdir():
        verify_files(path, json.loads((path / "release.json").read_text())["files"])
    assert not list(root.glob("*.new"))


def names(root: Path, folder: str) -> list[str]:
    return sorted(p.name for p in (root / folder).iterdir())


def test_a_deploy_lays_out_the_directory_and_a_second_sends_nothing(tmp_path: Path, bundle: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    first = deploy(local(tmp_path), bundle, "root", lambda *told: seen.append(told))
    root = tmp_path / "root"
    holds_whole(root, first.release)
    assert not first.unchanged and first.uploaded_bytes == seen[-1][1] == seen[-1][2]
    assert names(root, ".") == ["current", "history.json", "incoming", "journal.jsonl", "lock", "releases"]
    assert names(root, f"releases/{first.release}") == ["agent.pyz", "bundle", "release.json"]
    assert not (root / "releases" / first.release / "bundle" / "int8.onnx").stat().st_mode & 0o222
    before = {p: p.lstat().st_mtime_ns for p in root.rglob("*") if p.name not in ("lock", "incoming")}
    second = deploy(local(tmp_path), bundle, "root")
    assert second.unchanged and second.uploaded_bytes == 0 and second.release == first.release
    assert before == {p: p.lstat().st_mtime_ns for p in root.rglob("*") if p.name not in ("lock", "incoming")}
    status = device_status(local(tmp_path), "root")
    assert status["current"] == first.release and status["free_bytes"] > 0


def test_old_releases_stay_up_to_two_and_one_that_is_there_is_not_sent_again(tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / "b", seed) for seed in range(10, 14)]
    done = [deploy(local(tmp_path), each, "root") for each in bundles]
    assert done[-1].releases == tuple(sorted(d.release for d in done[1:]))
    assert done[-1].removed == (done[0].release,)
    back = deploy(local(tmp_path), bundles[2], "root")
    assert back.uploaded_bytes == 0 and not back.unchanged and back.removed == ()
    holds_whole(tmp_path / "root", done[2].release)


def test_a_damaged_release_is_mended_with_the_damaged_file_alone(tmp_path: Path, bundle: Path) -> None:
    first = deploy(local(tmp_path), bundle, "root")
    inside = tmp_path / "root" / "releases" / first.release
    for name in ("bundle/int8.onnx", "release.json"):
        (inside / name).chmod(0o644)
        (inside / name).write_bytes(b"changed")
    (inside / "bundle" / "float.onnx").unlink()
    again = deploy(local(tmp_path), bundle, "root")
    expected = sum((bundle / name).stat().st_size for name in ("int8.onnx", "float.onnx"))
    assert again.uploaded_bytes == expected
    holds_whole(tmp_path / "root", first.release)


def test_a_broken_bundle_is_refused_before_anything_is_sent(tmp_path: Path, bundle: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    (copy / "int8.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"int8\.onnx"):
        deploy(local(tmp_path), copy, "root")
    assert not (tmp_path / "root").exists()


def test_a_part_of_another_file_is_not_built_on(bundle: Path) -> None:
    release = make_release(bundle)
    whole = {
        p: {"size_bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()}
        for p, d in release.contents.items()
    }
    assert plan_upload(release, whole) == []
    path = "bundle/float.onnx"
    wrong = {**whole, path: {"size_bytes": 100, "sha256": "0" * 64}}
    size_bytes = len(release.contents[path])
    assert plan_upload(release, wrong) == [{"path": path, "offset": 0, "size_bytes": size_bytes}]
    begun = hashlib.sha256(release.contents[path][:100]).hexdigest()
    right = {**whole, path: {"size_bytes": 100, "sha256": begun}}
    assert plan_upload(release, right) == [{"path": path, "offset": 100, "size_bytes": size_bytes - 100}]


@pytest.mark.needs("sshd")
def test_a_link_cut_at_every_64_kb_leaves_the_old_release_and_a_repeat_finishes(
    sshd: Sshd, tmp_path: Path, bundle: Path, next_bundle: Path
) -> None:
    size_bytes = sum(map(len, make_release(next_bundle).contents.values()))
    cuts = range(CUT_EVERY_BYTES // 2, size_bytes, CUT_EVERY_BYTES)
    assert len(cuts) >= 7
    resumed = [cut_and_repeat(sshd, tmp_path / str(cut), bundle, next_bundle, cut) for cut in cuts]
    assert any(resumed)  # how much is left depends on what the dying sshd still handed over


def cut_and_repeat(sshd: Sshd, root: Path, old: Path, new: Path, cut: int) -> int:
    """Deploy `new` over a link that ends after `cut` bytes; returns how many bytes the repeat built on."""
    before = deploy(local(root.parent), old, str(root))
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=5.0) as transport:
            proxy.cut_after = proxy.passed_bytes + cut
            with pytest.raises(LinkCutError, match="run the same command again"):
                deploy(transport, new, str(root))
    holds_whole(root, before.release)
    assert names(root, "releases") == [before.release]
    with sshd.connect() as transport:
        result = deploy(transport, new, str(root))
    holds_whole(root, result.release)
    assert names(root, "incoming") == []
    return result.resumed_bytes


@pytest.mark.needs("sshd")
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_peer_that_freezes_is_given_up(
    sshd: Sshd, tmp_path: Path, bundle: Path, next_bundle: Path, share: float
) -> None:
    root = tmp_path / "root"
    before = deploy(local(tmp_path), bundle, str(root))
    size_bytes = sum(map(len, make_release(next_bundle).contents.values()))
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=1.0) as transport:
            proxy.freeze_after = proxy.passed_bytes + int(size_bytes * share)
            begin = time.monotonic()
            with pytest.raises(LinkCutError):
                deploy(transport, next_bundle, str(root), wait_s=0.5)
            assert time.monotonic() - begin < 12
    holds_whole(root, before.release)
    with sshd.connect() as transport:
        holds_whole(root, deploy(transport, next_bundle, str(root)).release)


@pytest.mark.needs("sshd")
def test_a_send_into_a_frozen_link_larger_than_every_buffer_ends(sshd: Sshd, tmp_path: Path) -> None:
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=1.0) as transport:
            conversation = transport.start(["sleep", "30"])
            proxy.freeze_after = 0
            begin = time.monotonic()
            with pytest.raises(LinkCutError):
                conversation.send(bytes(32 << 20), 1.0)
            conversation.close()
            assert time.monotonic() - begin < 12


@pytest.mark.needs("sshd")
def test_two_deployers_at_once(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    root, release = tmp_path / "root", make_release(bundle)
    request = {"release": release.name, "manifest": release.manifest, "owner": "ann@desk", "keep": 2}
    arguments = ["deploy", "--root", str(root)]
    with sshd.connect() as first, sshd.connect() as second:
        with AgentSession(first, arguments, stall_s=10, total_s=60) as session:
            session.send_request({**request, "wait_s": 1, "stall_s": 60})
            assert session.receive()["type"] == "state"
            with pytest.raises(DeviceError, match=r"ann@desk since 20\d\d-"):
                deploy(second, bundle, str(root), wait_s=0.2)
        result = deploy(second, bundle, str(root))  # the first went away, and its lock with it
    holds_whole(root, result.release)


def test_a_deployer_that_falls_silent_loses_its_lock(tmp_path: Path, bundle: Path) -> None:
    release = make_release(bundle)
    request = {"release": release.name, "manifest": release.manifest, "owner": "ann@desk", "keep": 2}
    with AgentSession(local(tmp_path), ["deploy", "--root", "root"], stall_s=10, total_s=60) as session:
        session.send_request({**request, "wait_s": 1, "stall_s": 1})
        session.receive()
        result = deploy(local(tmp_path), bundle, "root", wait_s=8)
    holds_whole(tmp_path / "root", result.release)


@pytest.mark.needs("sshd")
def test_a_login_that_may_not_write(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    python = sys.executable
    if os.getuid() == 0:  # the agent runs as another user, who may not write here
        ask = ["/usr/bin/python3", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if not Path(ask[0]).exists() or subprocess.run(ask, check=False).returncode:
            pytest.skip("needs /usr/bin/python3 of version 3.11 or newer (or not to run as root)")
        python = str(
            script(tmp_path / "as-nobody", 'exec setpriv --reuid 65534 --clear-groups /usr/bin/python3 "$@"')
        )
        for folder in (tmp_path, *tmp_path.parents):
            if folder.name and folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o055)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    locked.chmod(0o555 if os.getuid() else 0o755)
    with sshd.connect(python=python) as transport, pytest.raises(DeviceError) as error:
        deploy(transport, bundle, str(locked / "root"))
    assert "cannot be written (Permission denied)" in str(error.value) and str(locked / "root") in str(
        error.value
    )
    assert not (locked / "root").exists()


def test_a_python_that_is_not_there(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(MissingDependencyError, match="no-such-python"):
        deploy(LocalTransport(tmp_path / "new", "no-such-python"), bundle, "root")


def test_a_root_under_a_file(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="file"):
        deploy(local(tmp_path), bundle, "file/root")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 1 MiB, or of as many as the test says."""
    size = f"size={getattr(request, 'param', 1)}m"
    point = tmp_path / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(point)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs: run the tests as root")
    yield point
    subprocess.run(["umount", "-l", point], check=True)


@pytest.mark.needs("sshd")
def test_a_disk_that_is_too_small_is_refused_before_the_upload(
    sshd: Sshd, small_disk: Path, bundle: Path, next_bundle: Path
) -> None:
    (small_disk / "filler").write_bytes(bytes(300_000))
    with sshd.connect() as transport:
        before = deploy(transport, bundle, str(small_disk / "root"))
        with pytest.raises(BudgetError, match=r"\d+ bytes are free at .* and the release needs \d+"):
            deploy(transport, next_bundle, str(small_disk / "root"))
    holds_whole(small_disk / "root", before.release)
    assert not any(p.is_file() for p in (small_disk / "root" / "incoming").rglob("*"))


@pytest.mark.needs("sshd")
@pytest.mark.parametrize("small_disk", [2], indirect=True)
def test_a_disk_that_fills_in_the_middle(
    sshd: Sshd, small_disk: Path, bundle: Path, next_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler, root = small_disk / "filler", small_disk / "root"

    def fill_up(label: str, done: int, total: int) -> None:
        if done > total / 3 and not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb") as stream:
                while True:
                    stream.write(bytes(4096))
                    stream.flush()

    with sshd.connect() as transport:
        before = deploy(transport, bundle, str(root))
        with pytest.raises(BudgetError, match="disk is full"):
            deploy(transport, next_bundle, str(root), fill_up)
        holds_whole(root, before.release)
        assert not any(p.is_file() for p in (root / "incoming").rglob("*"))
        filler.unlink()
        holds_whole(root, deploy(transport, next_bundle, str(root)).release)


def test_killing_the_agent_anywhere_in_the_upload(tmp_path: Path, bundle: Path, next_bundle: Path) -> None:
    before = deploy(local(tmp_path), bundle, "root")
    pids = tmp_path / "pids"
    python = script(tmp_path / "python", f"echo $$ >> {pids}", f'exec {sys.executable} "$@"')

    def kill(label: str, done: int, total: int) -> None:
        if done > total / 2:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pids.read_text().split()[-1]), 9)

    with pytest.raises(LinkCutError):
        deploy(LocalTransport(tmp_path, str(python)), next_bundle, "root", kill)
    holds_whole(tmp_path / "root", before.release)
    result = deploy(local(tmp_path), next_bundle, "root")
    assert result.resumed_bytes > 65_536
    holds_whole(tmp_path / "root", result.release)


def test_a_slow_link_is_given_up_at_the_deadline(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_module, "SLOWEST_BYTES_PER_S", 1 << 30)
    transport = LocalTransport(tmp_path, sys.executable, timeout_s=1.0)  # an agent starts within two of it
    with pytest.raises(LinkCutError, match="took more than"):
        deploy(transport, bundle, "root", lambda *told: time.sleep(1.5), wait_s=0.1)


def test_many_deploys_at_once_all_end_whole(tmp_path: Path, bundle: Path, next_bundle: Path) -> None:
    results: list[DeployResult | Exception] = []

    def one(which: Path) -> None:
        try:
            results.append(deploy(local(tmp_path), which, "root", wait_s=30))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=one, args=(each,)) for each in (bundle, next_bundle) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(r, DeployResult) for r in results), results
    holds_whole(tmp_path / "root", os.readlink(tmp_path / "root" / "current").removeprefix("releases/"))


class Cut(BaseException):
    """The power goes."""


def test_a_power_cut_after_every_step_of_an_install(
    tmp_path: Path, bundle: Path, next_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old or new, never half; and the repeat always finishes with the new one."""
    steps = ("replace", "rename", "fsync", "chmod")
    outcomes = set()
    old = deploy(local(tmp_path), bundle, "start")
    for point in range(200):
        root, left = tmp_path / str(point), [point]
        shutil.copytree(tmp_path / "start", root, symlinks=True)
        new = staged(root, next_bundle)
        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(os, name, dying(getattr(os, name), left))
            was_cut = True
            with contextlib.suppress(Cut):
                finish(root, new)
                was_cut = False
            if not was_cut:
                break
        current = os.readlink(root / "current").removeprefix("releases/")
        assert current in (old.release, new.name)
        files = json.loads((root / "current" / "release.json").read_text())["files"]
        verify_files(root / "current", files)
        outcomes.add(current == new.name)
        finish(root, new)
        holds_whole(root, new.name)
    assert point > 15 and outcomes == {False, True}


def finish(root: Path, new: Release) -> None:
    """What the agent does once every byte is there."""
    install(root, new.name, json.loads(new.manifest)["files"], new.manifest)
    prune(root, new.name, 2)


def staged(root: Path, bundle: Path) -> Release:
    """Everything of a release in incoming/, as after its upload."""
    release = make_release(bundle)
    for path, data in release.contents.items():
        target = root / "incoming" / release.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return release


def dying(step: Any, left: list[int]) -> Any:
    """`step`, until so many were done; then the power goes before the next."""

    def run(*arguments: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        return step(*arguments, **named)

    return run
