"""The knowledge directory: what it holds, that it is reproducible, and everything that it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data import Dataset, load_dataset, prepare
from edgekd.errors import ArtifactError, VerifyError
from edgekd.learn import record
from edgekd.learn.knowledge import FILE, IDS, Knowledge, expanded, read_header, read_knowledge, write_header
from edgekd.learn.record import verify_knowledge, write_knowledge
from edgekd.learn.shards import Place, places, sha256_of, truncated, write_shard
from edgekd.learn.teacher import load_teacher, teacher_sha256, train_teacher
from edgekd.learn.training import Watch
from edgekd.recipe import Recipe
from tests.learn.chain import Chain

SHARD = "v0001-s0000.npy"


@pytest.fixture(scope="module")
def data(chain: Chain) -> Dataset:
    return load_dataset(chain.data)


@pytest.fixture(scope="module")
def knowledge(chain: Chain, data: Dataset) -> Knowledge:
    return read_knowledge(chain.knowledge / FILE, data)


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    return shutil.copytree(chain.knowledge, tmp_path / "copy")


def restated(directory: Path, **changes: Any) -> None:
    """Write the header anew with other entries and checksums that fit: whole, but of something else."""
    header = read_header(directory / FILE)
    for row in header["shards"]:
        row["sha256"] = sha256_of(directory / row["file"])
    kept = {k: v for k, v in header.items() if k not in ("content_sha256", "ids_sha256", "shards")}
    write_header(kept | changes, header["shards"], directory)


def more_views(recipe: Recipe, views: int) -> Recipe:
    return dataclasses.replace(recipe, knowledge=dataclasses.replace(recipe.knowledge, views=views))


def test_what_it_holds(chain: Chain, data: Dataset, knowledge: Knowledge) -> None:
    samples = len(data.splits["train"])
    assert knowledge.views == 3 and np.array_equal(knowledge.ids, data.splits["train"])
    assert list(knowledge.teachers) == [teacher_sha256(chain.teacher)]
    every = knowledge.read(2, np.arange(samples))
    assert every.shape == (samples, 10) and every.dtype == np.float32
    assert np.array_equal(knowledge.read(2, np.array([7, 3])), every[[7, 3]])
    size = sum(p.stat().st_size for p in chain.knowledge.iterdir())
    assert size < 3 * samples * 20 + samples * 8 + 4096


def test_the_same_teacher_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    write_knowledge(chain.data, chain.teacher, chain.recipe, tmp_path)
    for path in chain.knowledge.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_directory_is_as_documented(chain: Chain) -> None:
    """docs/formats/knowledge.md names every key and file; a shard is an .npy of float16."""
    header = json.loads((chain.knowledge / FILE).read_text())
    documented = (Path(__file__).parents[2] / "docs/formats/knowledge.md").read_text()
    for key in (*header, *header["augment"], *header["shards"][0], IDS, FILE):
        assert f"`{key}`" in documented, key
    assert f"schema {header['schema']}" in documented.splitlines()[0]
    raw = (chain.knowledge / SHARD).read_bytes()
    assert raw[:6] == b"\x93NUMPY" and b"'<f2'" in raw[:128]


def test_it_is_verified_against_the_teacher(chain: Chain) -> None:
    verify_knowledge(chain.knowledge / FILE, chain.teacher, chain.data)


def test_a_teacher_that_says_otherwise_is_noticed(chain: Chain, copy: Path) -> None:
    name = "v0002-s0000.npy"
    np.save(copy / name, (np.load(copy / name) * np.float16(1.1)).astype(np.float16))
    restated(copy)
    with pytest.raises(VerifyError, match="is not what the teacher predicts"):
        verify_knowledge(copy / FILE, chain.teacher, chain.data)


def test_knowledge_of_another_teacher_is_refused(chain: Chain, data: Dataset, tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        chain.recipe, seed=77, teacher=dataclasses.replace(chain.recipe.teacher, epochs=1)
    )
    train_teacher(chain.data, recipe, tmp_path)
    assert load_teacher(tmp_path).sha256 != teacher_sha256(chain.teacher)
    with pytest.raises(VerifyError, match="is of another teacher"):
        verify_knowledge(chain.knowledge / FILE, tmp_path, chain.data)
    with pytest.raises(VerifyError, match="is of another teacher"):
        read_knowledge(chain.knowledge / FILE, data, teacher_sha256="0" * 64)


def test_a_teacher_of_another_data_set_is_refused(chain: Chain, tmp_path: Path) -> None:
    other = tmp_path / "data"
    other.mkdir()
    prepare(dataclasses.replace(chain.recipe, seed=5), other)
    with pytest.raises(VerifyError, match="was trained on another data set"):
        write_knowledge(other, chain.teacher, chain.recipe, tmp_path)
    assert not (tmp_path / FILE).exists()
    with pytest.raises(VerifyError, match="is of another data set"):
        read_knowledge(chain.knowledge / FILE, load_dataset(other))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": list("1023456789")}, "is of another class order"),
        ({"classes": list("012345678")}, "is of another class order"),
        ({"dataset_sha256": "0" * 64}, "is of another data set"),
        ({"split": "calibration"}, "is of another split"),
        ({"labels_sha256": "0" * 64}, "was made with other labels"),
        ({"seed": 99}, "gives other pixels than the teacher saw"),
    ],
)
def test_whole_knowledge_of_something_else_is_refused(
    data: Dataset, copy: Path, changes: dict[str, Any], said: str
) -> None:
    restated(copy, **changes)
    with pytest.raises(VerifyError, match=said):
        read_knowledge(copy / FILE, data)


def test_another_augmentation_is_refused(data: Dataset, copy: Path) -> None:
    augment = read_header(copy / FILE)["augment"]
    restated(copy, augment=augment | {"name": "shift-rotate-2"})
    with pytest.raises(VerifyError, match="this version does not replay"):
        read_knowledge(copy / FILE, data)
    restated(copy, augment=augment | {"shift_px": 2.0})
    with pytest.raises(VerifyError, match="gives other pixels"):
        read_knowledge(copy / FILE, data)


def test_ids_of_another_order_are_refused(data: Dataset, copy: Path) -> None:
    np.save(copy / IDS, data.splits["train"][::-1])
    restated(copy)
    with pytest.raises(VerifyError, match="sample ids are not those of the split"):
        read_knowledge(copy / FILE, data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: np.where(np.arange(10) == 3, np.float16(np.nan), a), "a logit is NaN or infinite"),
        (lambda a: a[:, :9].copy(), r"float16 of shape \(1189, 9\)"),
        (lambda a: a.astype(np.float32), "float32 of shape"),
        (lambda a: a[:-1].copy(), r"shape \(1188, 10\)"),
    ],
)
def test_shards_that_cannot_be_are_refused(data: Dataset, copy: Path, change: Any, said: str) -> None:
    np.save(copy / SHARD, change(np.load(copy / SHARD)))
    restated(copy)
    with pytest.raises(ArtifactError, match=said):
        read_knowledge(copy / FILE, data)


@pytest.mark.parametrize("name", [SHARD, IDS, FILE])
def test_a_missing_file_is_named(data: Dataset, copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} (cannot be read|does not exist)"):
        read_knowledge(copy / FILE, data)


@pytest.mark.parametrize("name", [SHARD, IDS, FILE])
def test_every_truncation_and_flipped_bit_is_refused(data: Dataset, copy: Path, name: str) -> None:
    raw = (copy / name).read_bytes()
    random = np.random.Generator(np.random.Philox(1))
    broken = [raw[:length] for length in (0, 1, 100, len(raw) // 2, len(raw) - 2)]
    for position in {*range(0, 400, 7), *random.integers(0, len(raw), 60).tolist()}:
        flipped = bytearray(raw)
        flipped[position] ^= 1 << int(random.integers(0, 8))
        broken.append(bytes(flipped))
    for content in broken:
        (copy / name).write_bytes(content)
        with pytest.raises((ArtifactError, VerifyError), match="again"):
            read_knowledge(copy / FILE, data)


def test_a_killed_run_goes_on_behind_its_last_shard(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after two of three shards; the second run predicts the third alone: the same bytes."""
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir(), out.mkdir()

    def stop(label: str, done: int, total: int) -> None:
        if label == "knowledge" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_knowledge(chain.data, chain.teacher, chain.recipe, out, watch=Watch(stop, work))
    assert sorted(p.name for p in work.iterdir()) == ["v0000-s0000.npy", "v0001-s0000.npy"]
    predicted = counted_shards(monkeypatch)
    write_knowledge(chain.data, chain.teacher, chain.recipe, out, watch=Watch(work=work))
    assert predicted == ["v0002-s0000"]
    for path in chain.knowledge.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_views_are_appended_to_older_knowledge(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, grown = tmp_path / "fresh", tmp_path / "grown"
    fresh.mkdir(), grown.mkdir()
    recipe = more_views(chain.recipe, 5)
    write_knowledge(chain.data, chain.teacher, recipe, fresh)
    predicted = counted_shards(monkeypatch)
    write_knowledge(chain.data, chain.teacher, recipe, grown, reuse=(tmp_path / "absent", chain.knowledge))
    assert predicted == ["v0003-s0000", "v0004-s0000"]
    for path in fresh.iterdir():
        assert (grown / path.name).read_bytes() == path.read_bytes()


def counted_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of shards as they are predicted and written."""
    names: list[str] = []

    def counting(directory: Path, place: Place, *rest: Any) -> None:
        names.append(place.name)
        write_shard(directory, place, *rest)

    monkeypatch.setattr(record, "write_shard", counting)
    return names


def test_a_damaged_older_shard_is_predicted_again(chain: Chain, copy: Path, tmp_path: Path) -> None:
    (copy / SHARD).write_bytes((copy / SHARD).read_bytes()[:-1] + b"x")
    out = tmp_path / "out"
    out.mkdir()
    write_knowledge(chain.data, chain.teacher, chain.recipe, out, reuse=(copy,))
    assert (out / SHARD).read_bytes() == (chain.knowledge / SHARD).read_bytes()


def test_several_shards_a_view_read_as_one(
    chain: Chain, data: Dataset, knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "SHARD_SAMPLES", 500)
    write_knowledge(chain.data, chain.teacher, chain.recipe, tmp_path)
    assert (tmp_path / "v0002-s0002.npy").is_file() and not (tmp_path / "v0002-s0003.npy").exists()
    sharded = read_knowledge(tmp_path / FILE, data)
    rows = np.array([1188, 0, 499, 500, 999, 1000])
    assert np.allclose(sharded.read(1, rows), knowledge.read(1, rows), rtol=1e-2, atol=1e-2)


def test_every_sample_has_one_place() -> None:
    found = [(p.view, row) for p in places(2, 23, 10) for row in range(p.start, p.stop)]
    assert found == [(view, row) for view in range(2) for row in range(23)]


def test_the_top_classes_and_the_rest_by_hand() -> None:
    """p = (1/2, 1/4, 1/8, 1/8): two are kept, the others share 1/4."""
    logits = np.log(np.array([[0.125, 0.5, 0.125, 0.25]], np.float32)) + 3
    values, index = truncated(logits, 2)
    assert index.tolist() == [[1, 3]]
    assert np.allclose(np.exp(values), [[0.5, 0.25, 0.25]])
    assert np.allclose(np.exp(expanded(values, index, 4)), [[0.125, 0.5, 0.125, 0.25]])


def test_where_there_are_many_classes_the_top_ones_are_kept(
    chain: Chain, data: Dataset, knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "ALL_CLASSES", 9)
    params = dataclasses.replace(chain.recipe.knowledge, top_classes=3)
    recipe = dataclasses.replace(chain.recipe, knowledge=params)
    write_knowledge(chain.data, chain.teacher, recipe, tmp_path)
    few = read_knowledge(tmp_path / FILE, data)
    assert few.kept == 3 and np.load(tmp_path / "v0000-s0000.index.npy").dtype == np.uint16
    rows = np.arange(50)
    stored, whole = (np.exp(each.read(1, rows).astype(np.float64)) for each in (few, knowledge))
    whole = whole / whole.sum(axis=1, keepdims=True)
    assert np.allclose(stored.sum(axis=1), 1, atol=0.01)
    top = np.argsort(-whole, axis=1)[:, :3]
    assert np.allclose(*(np.take_along_axis(p, top, axis=1) for p in (stored, whole)), atol=0.01)
    verify_knowledge(tmp_path / FILE, chain.teacher, chain.data)
    index = tmp_path / "v0000-s0000.index.npy"
    np.save(index, np.full((1189, 3), 10, np.uint16))
    restated(tmp_path)
    with pytest.raises(ArtifactError, match="names a class that is not there"):
        read_knowledge(tmp_path / FILE, data)
