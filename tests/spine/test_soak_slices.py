"""A slice of each soak in CI, on inputs that change with the commit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import soak

pytestmark = [pytest.mark.needs("ziglang", "unicorn", "tflite-micro")]


def commit_seed() -> int:
    return int(soak.commit().rstrip("+")[:8] or "1", 16)


@pytest.mark.shared
def test_a_slice_of_agreement() -> None:
    result = soak.agreement(commit_seed(), 6, on_core=1)
    assert len(result["models"]) == 4 and result["differing_bytes"] == 0, result


def test_a_slice_of_graphs() -> None:
    result = soak.graphs(commit_seed(), 60)
    assert result["differing_bytes"] == 0, result["differing_graphs"]
    assert {"tflite_micro", "c_on_host_portable", "c_on_host_dsp", "c_on_core_dsp"} <= {*result["executions"]}
    assert 180 <= result["ops"] <= 900
    # Kernels are counted by their names in the generated C; a rare one may be missing in a slice.
    never = [feature for feature, hit in result["hits"].items() if feature.startswith("kernel") and not hit]
    assert len(never) <= 3 and sum(feature.startswith("assembly") for feature in result["hits"]) > 10, never


def test_a_slice_of_mutations() -> None:
    result = soak.mutations(commit_seed(), 3000, compiled=10)
    assert result["failures"] == [] and result["differing_bytes"] == 0, result
    assert result["counts"]["files"] == 3000 and result["past_header_pct"] >= 20
    assert result["counts"]["accepted"] > 60 and result["compiled_and_compared"] > 0


def record(name: str) -> dict[str, Any]:
    """A committed result, whole: seed and commit say how to run it again."""
    found: dict[str, Any] = json.loads((soak.RESULTS / f"{name}.json").read_text())
    assert found["seed"] is not None and len(found["commit"]) >= 40
    assert found["result"]["differing_bytes"] == 0 and not found["result"].get("failures")
    return found


def test_the_committed_agreement_is_whole() -> None:
    found = record("agreement")
    assert found["count"] >= 1000 and len(found["result"]["models"]) == 4


def test_the_committed_graphs_are_whole() -> None:
    found = record("graphs")
    assert found["count"] >= 500 and found["result"]["seldom_hit"] == []


def test_the_committed_mutations_are_whole() -> None:
    found = record("mutations")
    assert found["count"] >= 90_000 and found["result"]["past_header_pct"] >= 20
    assert found["result"]["oracle"]["equal"] > 4000
    compiled = record("mutations-compiled")["result"]  # a second seed, every new model of it compiled
    assert compiled["compiled_and_compared"] >= 500 and compiled["past_header_pct"] >= 20
