"""FORMATS.md is held to the code: same keys, same schema numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError
from edgekd.evaluate import evaluation, record
from edgekd.quantize.mixed import report
from edgekd.store import Origin, Store

TEXT = (Path(__file__).resolve().parent.parent / "FORMATS.md").read_text("utf-8")


def described(title: str) -> set[str]:
    """The keys in the first column of the table under `title`."""
    section = TEXT.split(f"## {title}")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_bench_records_keys() -> None:
    assert described("Bench record (schema 1)") == {
        *record.KEYS,
        *record.OF_AUTOENCODERS,
        *record.OF_CORES,
        *record.OF_DEVICES,
    }
    assert record.SCHEMA == 1


def test_the_sensitivitys_keys() -> None:
    assert described("Sensitivity (schema 1)") == set(report([], {}))


def test_the_evaluations_keys() -> None:
    assert described("Evaluation (schema 1)") == set(evaluation.KEYS)
    assert set(evaluation.new_evaluation()) == set(evaluation.KEYS) and evaluation.SCHEMA == 1


def test_the_manifests_keys(tmp_path: Path) -> None:
    made = Store(tmp_path).make(Origin("s", 1, {}, {}, {}), lambda out: {})
    assert described("manifest.json (schema 1)") == set(made.manifest)


def test_a_new_record_is_null_where_nothing_was_measured() -> None:
    made = record.new_record(target="t")
    assert made["target"] == "t" and made["schema"] == 1
    assert all(value is None for key, value in made.items() if key not in ("schema", "target"))
    with pytest.raises(ArtifactError, match="unknown key lantency"):
        record.new_record(lantency=1)


def test_a_record_of_another_schema_is_refused() -> None:
    good = record.new_record(target="t")
    assert record.parse_record(good, "here") == good
    with pytest.raises(ArtifactError, match="schema 9"):
        record.parse_record(good | {"schema": 9}, "here")
    with pytest.raises(ArtifactError, match="no key accuracy"):
        record.parse_record({k: v for k, v in good.items() if k != "accuracy"}, "here")
