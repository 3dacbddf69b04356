"""The store: whole artifacts or none, through kills, full disks, two runs at once and broken files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError, BudgetError
from edgekd.store import Artifact, Origin, Store, write_atomically


def origin(stage: str = "thing", **params: object) -> Origin:
    return Origin(stage, 1, params, {}, {"tool": "1"})


def fill(text: str):
    def build(out: Path) -> dict[str, object]:
        (out / "sub").mkdir()
        (out / "sub" / "file.txt").write_text(text)
        return {"length": len(text)}

    return build


def refuse(out: Path) -> dict[str, object]:
    raise AssertionError("built although it was there")


def test_same_origin_is_built_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.make(origin(a=1), fill("x"))
    assert store.make(origin(a=1), refuse).digest == first.digest
    assert first.metrics == {"length": 1}
    first.verify()


def test_key_depends_on_all_that_makes_it() -> None:
    base = Origin("s", 1, {"a": 1}, {"r": ("q", "k", "d")}, {"t": "1"})
    others = [
        Origin("z", 1, {"a": 1}, {"r": ("q", "k", "d")}, {"t": "1"}),
        Origin("s", 2, {"a": 1}, {"r": ("q", "k", "d")}, {"t": "1"}),
        Origin("s", 1, {"a": 2}, {"r": ("q", "k", "d")}, {"t": "1"}),
        Origin("s", 1, {"a": 1}, {"r": ("q", "k", "e")}, {"t": "1"}),
        Origin("s", 1, {"a": 1}, {"r": ("q", "k", "d")}, {"t": "2"}),
    ]
    assert len({o.key for o in (base, *others)}) == 6
    same_bytes_of_another_key = Origin("s", 1, {"a": 1}, {"r": ("q", "other", "d")}, {"t": "1"})
    assert same_bytes_of_another_key.key == base.key


def test_digest_is_of_the_files_alone(tmp_path: Path) -> None:
    one = Store(tmp_path / "1").make(origin(a=1), fill("x"))
    two = Store(tmp_path / "2").make(origin(a=2), fill("x"))
    assert one.digest == two.digest and one.key != two.key


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(out: Path) -> dict[str, object]:
        (out / "half").write_text("half")
        raise ArtifactError("no")

    with pytest.raises(ArtifactError):
        Store(tmp_path).make(origin(), build)
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "artifacts").exists()


def test_again_replaces(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make(origin(), fill("old"))
    assert (store.make(origin(), fill("new"), again=True).path / "sub" / "file.txt").read_text() == "new"
    assert not list((tmp_path / "tmp").iterdir())


CHILD = """
import sys, time
from pathlib import Path
from edgekd.store import Origin, Store
def build(out):
    (out / "half").write_text("half")
    Path(sys.argv[2]).write_text("started")
    time.sleep(float(sys.argv[3]))
    (out / "whole").write_text("whole")
    return {}
print(Store(Path(sys.argv[1])).make(Origin("thing", 1, {}, {}, {}), build).digest)
"""


def child(root: Path, flag: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(root), str(flag), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_build_is_not_an_artifact_and_the_next_run_goes_on(tmp_path: Path) -> None:
    root, flag = tmp_path / "store", tmp_path / "flag"
    process = child(root, flag, 60)
    wait_for(flag)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "artifacts").exists()
    made = Store(root).make(Origin("thing", 1, {}, {}, {}), fill("x"))
    assert sorted(made.manifest["files"]) == ["sub/file.txt"]  # the dead run's half file is gone


def test_two_runs_at_once_build_once(tmp_path: Path) -> None:
    root, flag = tmp_path / "store", tmp_path / "flag"
    slow = child(root, flag, 1.0)
    wait_for(flag)
    waited: list[str] = []
    found = Store(root).make(Origin("thing", 1, {}, {}, {}), refuse, waiting=waited.append)
    assert slow.communicate()[0].strip() == found.digest
    assert waited and not list((root / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "removed", "other schema", "not json"])
def test_a_broken_manifest_is_refused_with_the_mend(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    made = store.make(origin(), fill("x"))
    path = made.path / "manifest.json"
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        table = json.loads(data)
        changed = {
            "truncated": data[: len(data) // 2],
            "flipped": data.replace(made.digest.encode(), made.digest[::-1].encode()),
            "empty": b"",
            "other schema": json.dumps(table | {"schema": 99}).encode(),
            "not json": b"[1, 2]",
        }[damage]
        path.write_bytes(changed)
    with pytest.raises(ArtifactError, match=r"manifest\.json.*remove .* and run again"):
        store.make(origin(), fill("x"))


@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_changed_file_is_found(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    made = store.make(origin(), fill("hello"))
    path = made.path / "sub" / "file.txt"
    if damage == "removed":
        path.unlink()
    else:
        path.write_text("hellp" if damage == "flipped" else "hel")
    with pytest.raises(ArtifactError, match="run again"):
        found = store.find(origin())
        assert found is not None
        found.verify()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root: run as root")
def test_a_full_disk_says_so_and_the_next_run_continues(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        store = Store(tmp_path / "store")

        def build(out: Path) -> dict[str, object]:
            (out / "big").write_bytes(bytes(1 << 20))
            return {}

        with pytest.raises(BudgetError, match=r"is full .*make room and run again"):
            store.make(origin(), build)
        assert not list((tmp_path / "store" / "tmp").iterdir())
        store.make(origin(), fill("fits")).verify()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ArtifactError, match="--store DIR"):
        Store(tmp_path / "store").make(origin(), fill("x"))


def test_records_survive_a_cut_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append_record("bench", {"n": 1})
    path = tmp_path / "records" / "bench.jsonl"
    path.write_text(path.read_text() + '{"n": 2')
    assert store.records("bench") == [{"n": 1}]
    assert store.records("none") == []


def test_write_atomically_leaves_no_temporary(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"1")
    write_atomically(tmp_path / "f", b"2")
    assert (tmp_path / "f").read_bytes() == b"2" and len(list(tmp_path.iterdir())) == 1


def test_a_moved_store_still_reads(tmp_path: Path) -> None:
    made: Artifact = Store(tmp_path / "a").make(origin(), fill("x"))
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = Store(tmp_path / "b").find(origin())
    assert again is not None and again.digest == made.digest
    assert str(tmp_path) not in (again.path / "manifest.json").read_text()
