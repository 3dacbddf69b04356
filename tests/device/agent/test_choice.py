"""The rule that keeps one variant: budget, noise, ties, and what is never ranked."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.device.agent.choice import choose, noise_of


def candidate(variant: str, p50_us: float | None, **changes: Any) -> dict[str, Any]:
    """A candidate that is in, unless `changes` say otherwise."""
    golden = {"within_tolerance": True, "max_difference_steps": 0.0, "tolerance_steps": 2, "exact": False}
    return {
        "variant": variant,
        "threads": 1,
        "failure": None,
        "golden": golden | {"exact": variant == "native"},
        "drop": 0.0,
        "p50_us": p50_us,
        "noise": 0.02,
        "instructions": None,
        "instructions_noise": None,
        "rss_rise_bytes": 1000,
    } | changes


def verdicts(candidates: list[dict[str, Any]], **rule: Any) -> tuple[dict[str, Any] | None, list[str]]:
    decided = choose(candidates, **{"max_drop": 0.01, "emulated": False} | rule)
    return decided["chosen"], [each["verdict"] for each in decided["verdicts"]]


def test_the_fastest_is_kept_and_the_others_are_told_by_how_much_they_are_slower() -> None:
    given = [candidate("float", 200.0), candidate("int8", 100.0), candidate("native", 150.0)]
    decided = choose(given, max_drop=0.01, emulated=False)
    assert decided["chosen"] == {"variant": "int8", "threads": 1} and decided["ranked_by"] == "time"
    assert [each["verdict"] for each in decided["verdicts"]] == ["slower", "kept", "slower"]
    assert decided["verdicts"][0]["why"] == "2.00 x the time of int8 with 1 thread"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"failure": "its process was killed by SIGSEGV during 'runs'"}, "SIGSEGV"),
        ({"drop": 0.02}, "loses 0.0200 against the reference, 0.01 allowed"),
        ({"drop": float("inf")}, "loses inf"),
        (
            {"golden": {"within_tolerance": False, "max_difference_steps": 9.0, "tolerance_steps": 2}},
            "differs by 9 steps on the golden samples, 2 allowed",
        ),
        (
            {"golden": {"within_tolerance": False, "max_difference_steps": None, "tolerance_steps": 2}},
            "no finite number",
        ),
    ],
)
def test_the_fastest_is_out_for_a_reason(changes: dict[str, Any], words: str) -> None:
    decided = choose(
        [candidate("int8", 10.0, **changes), candidate("float", 90.0)], max_drop=0.01, emulated=False
    )
    assert decided["chosen"] == {"variant": "float", "threads": 1}
    assert decided["verdicts"][0]["verdict"] == "out" and words in decided["verdicts"][0]["why"]


def test_a_drop_of_just_the_budget_and_a_gain_are_in() -> None:
    assert verdicts([candidate("int8", 10.0, drop=0.01), candidate("float", 90.0, drop=-0.5)])[1][0] == "kept"


def test_a_difference_smaller_than_the_noise_is_a_tie_and_goes_to_the_smaller() -> None:
    near = [candidate("int8", 100.0), candidate("native", 101.5), candidate("litert", 140.0)]
    assert verdicts(near) == ({"variant": "native", "threads": 1}, ["tie", "kept", "slower"])
    threads = [candidate("int8", 100.0, threads=4), candidate("int8", 101.0)]
    assert verdicts(threads) == ({"variant": "int8", "threads": 1}, ["tie", "kept"])
    memory = [candidate("int8", 100.0, rss_rise_bytes=50), candidate("litert", 99.0, rss_rise_bytes=60)]
    assert verdicts(memory)[0] == {"variant": "int8", "threads": 1}
    loud = [candidate("int8", 100.0), candidate("float", 120.0, noise=0.3, rss_rise_bytes=10)]
    assert verdicts(loud)[0] == {"variant": "float", "threads": 1}  # its own noise is the larger


def test_on_an_emulated_processor_times_are_not_ranked() -> None:
    counts = {"instructions_noise": 0.001}
    given = [
        candidate("float", 10.0, instructions=2_000, **counts),
        candidate("int8", 90.0, instructions=1_000, **counts),
        candidate("litert", 5.0),
    ]
    decided = choose(given, max_drop=0.01, emulated=True)
    assert decided["chosen"] == {"variant": "int8", "threads": 1}
    assert decided["ranked_by"] == "instructions"
    assert decided["verdicts"][0]["why"] == "2.00 x the instructions of int8 with 1 thread"
    blind = choose([candidate("float", 1.0), candidate("int8", 9.0)], max_drop=0.01, emulated=True)
    assert blind["ranked_by"] is None and blind["chosen"] is not None
    assert "not ranked" in blind["verdicts"][0]["why"]


def test_nothing_is_chosen_of_nothing() -> None:
    assert verdicts([candidate("int8", None, failure="gone")]) == (None, ["out"])
    assert verdicts([]) == (None, [])


@pytest.mark.parametrize(
    ("rounds", "noise"),
    [
        ([], 0.0),
        ([5.0], 0.0),
        ([5.0] * 8, 0.0),
        ([100.0, 110.0] * 4, 2 / 21),
        ([1.0, 1.0, 2.0, 2.0], 2 / 3),
    ],
)
def test_noise_is_the_difference_of_a_candidate_from_itself(rounds: list[float], noise: float) -> None:
    assert noise_of(rounds) == pytest.approx(noise)
