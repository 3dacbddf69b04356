"""A slice of each soak in CI, on inputs that change with the commit."""

from __future__ import annotations

import json

import pytest

from benchmarks import soak

pytestmark = [pytest.mark.shared, pytest.mark.needs("ziglang", "unicorn", "tflite-micro")]


def test_a_slice_of_agreement() -> None:
    seed = int(soak.commit().rstrip("+")[:8] or "1", 16)
    result = soak.agreement(seed, 12, on_core=4)
    assert len(result["models"]) == 4 and result["differing_bytes"] == 0, result


def test_the_committed_result_is_whole() -> None:
    record = json.loads((soak.RESULTS / "agreement.json").read_text())
    assert record["count"] >= 1000 and record["seed"] is not None and len(record["commit"]) >= 40
    assert record["result"]["differing_bytes"] == 0 and len(record["result"]["models"]) == 4
