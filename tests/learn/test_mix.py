"""A mix of knowledge directories: the sum by hand, what a student learns from it, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data import Dataset, load_dataset
from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.learn.distill import distill_student
from edgekd.learn.knowledge import FILE, Knowledge, read_header, read_knowledge, write_header
from edgekd.learn.mix import MIX, mixed, open_knowledge, write_mix
from edgekd.learn.shards import sha256_of
from edgekd.recipe import AugmentParams, MixPart
from tests.learn.chain import Chain


@pytest.fixture(scope="module")
def data(chain: Chain) -> Dataset:
    return load_dataset(chain.data)


@pytest.fixture(scope="module")
def other(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole knowledge of the same views by a teacher that says the reverse."""
    directory = shutil.copytree(chain.knowledge, tmp_path_factory.mktemp("other") / "knowledge")
    header = read_header(directory / FILE)
    for row in header["shards"]:
        np.save(directory / row["file"], -np.load(directory / row["file"]))
        row["sha256"] = sha256_of(directory / row["file"])
    kept = {k: v for k, v in header.items() if k not in ("content_sha256", "ids_sha256", "shards")}
    write_header(kept | {"teachers": {"f" * 64: 1.0}}, header["shards"], directory)
    return directory


def saying(knowledge: Knowledge, logits: list[float], sha256: str, **changes: Any) -> Knowledge:
    """Knowledge that says the same of every sample."""
    row = np.array([logits], np.float32)
    read = lambda view, rows: np.repeat(row, len(rows), axis=0)  # noqa: E731
    return dataclasses.replace(knowledge, read=read, sha256=sha256, teachers={sha256: 1.0}, **changes)


@pytest.fixture(scope="module")
def knowledge(chain: Chain, data: Dataset) -> Knowledge:
    return read_knowledge(chain.knowledge / FILE, data)


def test_the_sum_by_hand(knowledge: Knowledge) -> None:
    """0.75 (4, 0) + 0.25 (0, 8) = (3, 2)."""
    parts = [(saying(knowledge, [4, 0], "a"), 0.75), (saying(knowledge, [0, 8], "b"), 0.25)]
    found = mixed(parts)
    assert found.read(0, np.arange(2)).tolist() == [[3, 2], [3, 2]]
    assert found.read(0, np.arange(2)).dtype == np.float32
    assert found.teachers == {"a": 0.75, "b": 0.25}
    assert (
        mixed(parts[::-1]).sha256 == found.sha256 != mixed([(parts[0][0], 0.25), (parts[1][0], 0.75)]).sha256
    )
    assert mixed([(knowledge, 1.0)]) is knowledge


@pytest.mark.parametrize("shares", [(), (0.5, 0.6), (1.5, -0.5), (1.0, 0.0), (float("nan"), 0.5), (0.4, 0.4)])
def test_weights_that_are_no_shares(knowledge: Knowledge, shares: tuple[float, ...]) -> None:
    parts = [(saying(knowledge, [1, 0], str(n)), share) for n, share in enumerate(shares)]
    with pytest.raises(ConfigError, match=r"weights of a mix are .*; take shares above 0 that sum to 1"):
        mixed(parts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset_sha256": "0"}, "another data set"),
        ({"split": "validation"}, "another split"),
        ({"classes": tuple("1023456789")}, "another class order"),
        ({"augment": AugmentParams(shift_px=3.0)}, "another augmentation"),
        ({"seed": 9}, "another seed of the views"),
        ({"views": 2}, r"another number of views than the first \(2, not 3\)"),
        ({"kept": 3}, "another number of classes kept"),
    ],
)
def test_unlike_parts_are_refused(knowledge: Knowledge, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(VerifyError, match=f"knowledge 2 of the mix has {said}"):
        mixed([(knowledge, 0.5), (saying(knowledge, [1, 0], "b", **changes), 0.5)])
    with pytest.raises(VerifyError, match="the same knowledge twice"):
        mixed([(knowledge, 0.5), (knowledge, 0.5)])


def test_a_mix_is_copied_whole_and_read_at_each_step(
    chain: Chain, data: Dataset, knowledge: Knowledge, other: Path, tmp_path: Path
) -> None:
    """0.75 z - 0.25 z = z / 2, to the rounding of float16."""
    sources = (MixPart(str(chain.knowledge), 0.75), MixPart(str(other), 0.25))
    metrics = write_mix(sources, data, tmp_path)
    assert metrics["parts"] == 2 and metrics["views"] == 3
    found, rows = open_knowledge(tmp_path, data), np.arange(100)
    assert np.allclose(found.read(2, rows), knowledge.read(2, rows) / 2, rtol=1e-6)
    assert found.sha256 == metrics["sha256"] != knowledge.sha256
    shutil.rmtree(tmp_path / "part-02")
    with pytest.raises(ArtifactError, match=r"part-02/knowledge.json does not exist"):
        open_knowledge(tmp_path, data)


def test_a_mix_of_one_teaches_as_the_one(chain: Chain, data: Dataset, tmp_path: Path) -> None:
    """Knowledge from elsewhere, without a teacher: the same student, byte for byte."""
    for name in ("mix", "student"):
        (tmp_path / name).mkdir()
    write_mix((MixPart(str(chain.knowledge)),), data, tmp_path / "mix")
    distill_student(chain.data, tmp_path / "mix", chain.recipe, tmp_path / "student")
    for path in chain.student.iterdir():
        assert (tmp_path / "student" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("header", "error", "said"),
    [
        ("{", ArtifactError, "is not a readable mix"),
        ({"schema": 1}, ArtifactError, "is not a readable mix"),
        ({"schema": 2, "parts": []}, ArtifactError, "has schema 2 and this version reads 1"),
        ({"schema": 1, "parts": [{"directory": "../x", "weight": 1}]}, ArtifactError, "outside its own"),
        ({"schema": 1, "parts": []}, ConfigError, "weights of a mix are none"),
    ],
)
def test_a_broken_mix_is_named(
    data: Dataset, tmp_path: Path, header: Any, error: type[Exception], said: str
) -> None:
    (tmp_path / MIX).write_text(header if isinstance(header, str) else json.dumps(header))
    with pytest.raises(error, match=said):
        open_knowledge(tmp_path, data)


def test_a_directory_that_holds_no_knowledge_is_named(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"knowledge.json does not exist"):
        write_mix((MixPart(str(tmp_path / "nothing")),), data, tmp_path)
