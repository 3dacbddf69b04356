"""Going back: to the newest whole release before, never to one that was rolled back; and the journal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from edgekd.device.agent.history import JOURNAL_BYTES, go_back, note, read_journal
from edgekd.device.deploy import deploy, device_logs, rollback
from edgekd.device.transport import LocalTransport
from edgekd.errors import DeviceError, VerifyError
from tests.device.support import Sshd, make_bundle
from tests.device.test_deploy import Cut, dying, holds_whole


def local(folder: Path) -> LocalTransport:
    return LocalTransport(folder, sys.executable)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [make_bundle(tmp_path_factory.mktemp("many"), seed) for seed in range(20, 24)]


def current(root: Path) -> str:
    return os.readlink(root / "current").removeprefix("releases/")


def test_each_rollback_goes_one_further_back_and_never_to_what_was_left(
    tmp_path: Path, bundles: list[Path]
) -> None:
    a, b, c = (deploy(local(tmp_path), each, "root").release for each in bundles[:3])
    first = rollback(local(tmp_path), "root")
    assert (first["release"], first["left"]) == (b, c) and set(first["releases"]) == {a, b, c}
    holds_whole(tmp_path / "root", b)
    assert rollback(local(tmp_path), "root")["release"] == a
    with pytest.raises(DeviceError, match=f"no release before {a}"):
        rollback(local(tmp_path), "root")
    d = deploy(local(tmp_path), bundles[3], "root")
    assert a in d.releases  # the one that ran before stays, to go back to
    assert rollback(local(tmp_path), "root")["release"] == a
    again = deploy(local(tmp_path), bundles[3], "root")  # asked for by name: a left release may come back
    assert again.uploaded_bytes == 0 and current(tmp_path / "root") == d.release
    assert rollback(local(tmp_path), "root")["release"] == a


def test_nothing_to_go_back_to(tmp_path: Path, bundles: list[Path]) -> None:
    with pytest.raises(DeviceError, match="holds no release"):
        rollback(local(tmp_path), "root")
    only = deploy(local(tmp_path), bundles[0], "root").release
    with pytest.raises(DeviceError, match="no release before"):
        rollback(local(tmp_path), "root")
    holds_whole(tmp_path / "root", only)


def test_a_damaged_release_is_not_gone_back_to(tmp_path: Path, bundles: list[Path]) -> None:
    old, new = (deploy(local(tmp_path), each, "root").release for each in bundles[:2])
    model = tmp_path / "root" / "releases" / old / "bundle" / "int8.onnx"
    model.chmod(0o644)
    model.write_bytes(b"other")
    with pytest.raises(VerifyError, match=r"int8\.onnx is missing or not what was sent"):
        rollback(local(tmp_path), "root")
    assert current(tmp_path / "root") == new


def test_a_power_cut_after_every_step_of_a_rollback(
    tmp_path: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either release, whole; and the repeat ends where one rollback ends, not one further back."""
    _, b, c = (deploy(local(tmp_path), each, "start").release for each in bundles[:3])
    outcomes = set()
    for point in range(50):
        root, left = tmp_path / str(point), [point]
        shutil.copytree(tmp_path / "start", root, symlinks=True)
        with monkeypatch.context() as patch:
            for name in ("replace", "fsync"):
                patch.setattr(os, name, dying(getattr(os, name), left))
            was_cut = True
            with contextlib.suppress(Cut):
                go_back(root)
                was_cut = False
            if not was_cut:
                break
        outcomes.add(current(root))
        assert current(root) in (b, c)
        if current(root) == c:  # who was cut does not know, and asks again only where it did not happen
            assert go_back(root) == b
        assert json.loads((root / "history.json").read_text())["rolled_back"] == [c]
    assert point >= 5 and outcomes == {b, c}


@pytest.mark.needs("sshd")
def test_over_ssh_the_journal_says_who_did_what(sshd: Sshd, tmp_path: Path, bundles: list[Path]) -> None:
    root = str(tmp_path / "root")
    with sshd.connect() as transport:
        old, new = (deploy(transport, each, root, owner="ann@desk").release for each in bundles[:2])
        deploy(transport, bundles[1], root)  # changes nothing and writes nothing
        rollback(transport, root, owner="bob@desk")
        told = device_logs(transport, root, 2)
    lines = [(e["event"], e["release"], e["by"]) for e in told["journal"]]
    assert lines == [("deployed", new, "ann@desk"), ("rolled back", old, "bob@desk")]
    assert told["current"] == old and told["journal"][1]["left"] == new


def test_the_journal_stays_small_and_survives_a_half_written_line(tmp_path: Path) -> None:
    for number in range(900):
        note(tmp_path, "deployed", f"release-{number}", "someone@somewhere" * 3)
    assert (tmp_path / "journal.jsonl").stat().st_size < JOURNAL_BYTES + 200
    with (tmp_path / "journal.jsonl").open("a") as stream:
        stream.write('\n{"when": 1, "ev')
    note(tmp_path, "deployed", "last", "ann")
    assert [e["release"] for e in read_journal(tmp_path, 3)] == ["release-899", "last"]
