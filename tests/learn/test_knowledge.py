"""The knowledge file: what it holds, that it is reproducible, and everything that it refuses."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data import Dataset, load_dataset, prepare
from edgekd.errors import ArtifactError, VerifyError
from edgekd.learn.knowledge import FILE, Knowledge, read_knowledge, save_knowledge
from edgekd.learn.record import verify_knowledge, write_knowledge
from edgekd.learn.teacher import load_teacher, teacher_sha256, train_teacher
from tests.learn.chain import Chain


@pytest.fixture(scope="module")
def data(chain: Chain) -> Dataset:
    return load_dataset(chain.data)


@pytest.fixture(scope="module")
def knowledge(chain: Chain, data: Dataset) -> Knowledge:
    return read_knowledge(chain.knowledge / FILE, data)


def test_what_it_holds(chain: Chain, data: Dataset, knowledge: Knowledge) -> None:
    assert knowledge.logits.dtype == np.float16
    assert knowledge.logits.shape == (3, len(data.splits["train"]), 10)
    assert np.array_equal(knowledge.ids, data.splits["train"])
    assert knowledge.teacher_sha256 == teacher_sha256(chain.teacher)
    assert (chain.knowledge / FILE).stat().st_size < knowledge.logits.nbytes + knowledge.ids.nbytes + 2048


def test_the_same_teacher_gives_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    write_knowledge(chain.data, chain.teacher, chain.recipe, tmp_path)
    assert (tmp_path / FILE).read_bytes() == (chain.knowledge / FILE).read_bytes()


def test_the_file_is_as_documented(chain: Chain) -> None:
    """docs/formats/knowledge.md: 8 bytes of length, a JSON header, ids, then logits."""
    raw = (chain.knowledge / FILE).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    assert set(header) == {"__metadata__", "ids", "logits"}
    assert header["ids"]["dtype"] == "I64" and header["logits"]["dtype"] == "F16"
    own = json.loads(header["__metadata__"]["edgekd"])
    documented = (Path(__file__).parents[2] / "docs/formats/knowledge.md").read_text()
    for key in (*own, *own["augment"]):
        assert f"`{key}`" in documented, key
    first = raw[8 + length :][slice(*header["logits"]["data_offsets"])][:20]
    assert len(np.frombuffer(first, "<f2")) == 10


def test_it_is_verified_against_the_teacher(chain: Chain) -> None:
    verify_knowledge(chain.knowledge / FILE, chain.teacher, chain.data)


def test_a_teacher_that_says_otherwise_is_noticed(
    chain: Chain, data: Dataset, knowledge: Knowledge, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(knowledge, logits=(knowledge.logits * np.float16(1.1)).astype(np.float16))
    save_knowledge(wrong, data, tmp_path / FILE)
    with pytest.raises(VerifyError, match="is not what the teacher predicts"):
        verify_knowledge(tmp_path / FILE, chain.teacher, chain.data)


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


def test_another_split_is_refused(chain: Chain, data: Dataset) -> None:
    with pytest.raises(VerifyError, match="is of another split"):
        read_knowledge(chain.knowledge / FILE, data, split="test")


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"classes": tuple("1023456789")}, "is of another class order"),
    ({"dataset_sha256": "0" * 64}, "is of another data set"),
    ({"split": "calibration"}, "is of another split"),
]


@pytest.mark.parametrize(("changes", "said"), CHANGES)
def test_a_whole_file_of_something_else_is_refused(
    data: Dataset, knowledge: Knowledge, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    save_knowledge(dataclasses.replace(knowledge, **changes), data, tmp_path / FILE)
    with pytest.raises(VerifyError, match=said):
        read_knowledge(tmp_path / FILE, data)


def test_ids_of_another_order_and_logits_that_are_no_numbers(
    data: Dataset, knowledge: Knowledge, tmp_path: Path
) -> None:
    shuffled = dataclasses.replace(knowledge, ids=knowledge.ids[::-1].copy())
    save_knowledge(shuffled, data, tmp_path / FILE)
    with pytest.raises(VerifyError, match="sample ids are not those of the split"):
        read_knowledge(tmp_path / FILE, data)
    logits = knowledge.logits.copy()
    logits[0, 0, 0] = np.nan
    save_knowledge(dataclasses.replace(knowledge, logits=logits), data, tmp_path / FILE)
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        read_knowledge(tmp_path / FILE, data)
    short = dataclasses.replace(knowledge, logits=np.ascontiguousarray(knowledge.logits[:, :, :9]))
    save_knowledge(short, data, tmp_path / FILE)
    with pytest.raises(ArtifactError, match="logits are float16 of shape"):
        read_knowledge(tmp_path / FILE, data)


def test_every_truncation_is_refused(chain: Chain, data: Dataset, tmp_path: Path) -> None:
    raw = (chain.knowledge / FILE).read_bytes()
    path = tmp_path / FILE
    for length in [*range(0, 1400, 83), *range(1400, len(raw), 9001), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(ArtifactError, match="make the knowledge again"):
            read_knowledge(path, data)


def test_every_flipped_bit_is_refused(chain: Chain, data: Dataset, tmp_path: Path) -> None:
    """Each byte of the header, and samples of the arrays: no flip may pass."""
    raw = (chain.knowledge / FILE).read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    random = np.random.Generator(np.random.Philox(1))
    positions = [*range(0, header, 3), *random.integers(header, len(raw), 60).tolist()]
    path = tmp_path / FILE
    for position in positions:
        flipped = bytearray(raw)
        flipped[position] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(flipped)
        with pytest.raises((ArtifactError, VerifyError), match="again"):
            read_knowledge(path, data)


def test_no_file_and_no_safetensors(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_knowledge(tmp_path / FILE, data)
    (tmp_path / FILE).write_bytes(b"\x80\x04}q\x00." * 10)
    with pytest.raises(ArtifactError, match="not a whole knowledge file"):
        read_knowledge(tmp_path / FILE, data)
