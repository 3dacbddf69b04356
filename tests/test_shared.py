"""The shared cache: another store gets the artifact without building it, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import ArtifactError
from edgekd.shared import SharedCache
from edgekd.store import Origin, Store

pytest.importorskip("fsspec")
ORIGIN = Origin("thing", 1, {"a": 1}, {}, {})


def build(out: Path) -> dict[str, object]:
    (out / "sub").mkdir()
    (out / "sub" / "x.bin").write_bytes(bytes(1000))
    return {"n": 1}


def refuse(out: Path) -> dict[str, object]:
    raise AssertionError("built although the shared cache has it")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_one_builds_and_another_fetches(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}{tmp_path / 'team'}"
    made = Store(tmp_path / "a", SharedCache(url)).make(ORIGIN, build)
    got = Store(tmp_path / "b", SharedCache(url)).make(ORIGIN, refuse)
    assert got.digest == made.digest and got.metrics == {"n": 1}
    assert [p.name for p in (tmp_path / "team" / "thing").iterdir()] == [f"{ORIGIN.key}.tar"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other"])
def test_a_broken_shared_artifact_never_enters(tmp_path: Path, damage: str) -> None:
    cache = SharedCache(str(tmp_path / "team"))
    Store(tmp_path / "a", cache).make(ORIGIN, build)
    path = tmp_path / "team" / "thing" / f"{ORIGIN.key}.tar"
    data = bytearray(path.read_bytes())
    if damage == "other":
        other = Origin("thing", 1, {"a": 2}, {}, {})
        Store(tmp_path / "a", cache).make(other, build)
        data = bytearray((tmp_path / "team" / "thing" / f"{other.key}.tar").read_bytes())
    elif damage == "flipped":
        data[data.index(b"sub/x.bin") + 600] ^= 1
    path.write_bytes(data[:700] if damage == "truncated" else data)
    with pytest.raises(ArtifactError):
        Store(tmp_path / "b", SharedCache(str(tmp_path / "team"))).make(ORIGIN, refuse)
    assert not list((tmp_path / "b").glob("artifacts/*/*")) and not list((tmp_path / "b" / "tmp").iterdir())


def test_an_unknown_protocol_is_one_sentence() -> None:
    with pytest.raises(ArtifactError, match="cannot be opened"):
        SharedCache("nosuch://x")


def test_a_cache_that_cannot_be_written_keeps_the_local_artifact(tmp_path: Path) -> None:
    (tmp_path / "team").write_text("a file")
    store = Store(tmp_path / "a", SharedCache(str(tmp_path / "team")))
    with pytest.raises(ArtifactError, match="shared cache"):
        store.make(ORIGIN, build)
    assert store.find(ORIGIN) is not None or not list((tmp_path / "a").glob("artifacts/*/*"))
