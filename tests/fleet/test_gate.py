"""The gate: its evidence against exact sums, its promises over simulated releases, its words."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.fleet.gate import (
    ALPHA,
    Ledger,
    Limits,
    conviction,
    judge,
    least_failures,
    log_binomial_tail,
    log_evidence,
    upper_bound,
    waves,
)

LIMIT = math.log(1 / ALPHA)


def exact_tail(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([Fraction(1, 100), Fraction(3, 10), Fraction(1, 2)]),
)
def test_the_tail_is_the_binomials(k: int, more: int, p: Fraction) -> None:
    found = log_binomial_tail(k, k + more, float(p))
    assert found == pytest.approx(math.log(exact_tail(k, k + more, p)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 1), (3, 3), (6, 212), (18, 600)])
def test_the_evidence_is_the_integral(k: int, n: int) -> None:
    """Simpson's rule over the prior in place of the closed form."""
    p0, steps = 0.01, 200_000
    width = (1 - p0) / steps
    total = 0.0
    for i in range(steps + 1):
        p = p0 + i * width
        weight = 1 if i in (0, steps) else 4 if i % 2 else 2
        prior = 9 * (1 - p) ** 8 / (1 - p0) ** 9
        total += weight * prior * (p / p0) ** k * ((1 - p) / (1 - p0)) ** (n - k)
    assert log_evidence(k, n, p0) == pytest.approx(math.log(total * width / 3), rel=1e-6)


def test_the_upper_bound_is_the_rule_of_three() -> None:
    assert upper_bound(0, 59) < 0.05 < upper_bound(0, 58)
    assert upper_bound(0, 0) == upper_bound(4, 4) == 1.0


def stopped_at(failing: float, devices: int, rng: random.Random) -> int:
    """Devices admitted when the evidence suffices; 0: never."""
    ledger = Ledger(0.01)
    for i in range(devices):
        ledger.admit([str(i)])
        ledger.answer(str(i), "failed" if rng.random() < failing else "confirmed")
        if ledger.log_evidence >= LIMIT:
            return i + 1
    return 0


def test_a_tolerated_release_is_seldom_stopped_and_a_bad_one_always() -> None:
    rng = random.Random(5)
    assert sum(stopped_at(0.01, 2000, rng) > 0 for _ in range(400)) <= 3
    assert all(stopped_at(0.05, 2000, rng) for _ in range(200))


ANSWERS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["confirmed", "failed", "silent"])), max_size=80
)


@given(ANSWERS, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_answers_in_any_order_and_number_give_the_same_ledger(
    answers: list[tuple[int, str]], rng: random.Random
) -> None:
    """Failures win, then confirmations; silence is what is left. Twice, late or reordered changes nothing."""

    def ledger_of(given: list[tuple[int, str]]) -> tuple[object, ...]:
        ledger = Ledger(0.01)
        ledger.admit(map(str, range(25)))
        for device, outcome in given:
            ledger.answer(str(device), outcome)  # type: ignore[arg-type]
        outcomes = [ledger.outcome(str(device)) for device in range(31)]
        return outcomes, ledger.log_evidence, ledger.confirmed, ledger.failed, ledger.silent, ledger.open

    shuffled = answers + rng.choices(answers, k=5) if answers else []
    rng.shuffle(shuffled)
    assert ledger_of(answers) == ledger_of(shuffled)


def test_the_order_of_admission_decides_not_that_of_arrival() -> None:
    """Failures that report first convict nobody: the 994 admitted before are successes until they answer."""
    ledger = Ledger(0.01)
    ledger.admit(map(str, range(1000)))
    for device in range(994, 1000):
        ledger.answer(str(device), "failed")
    assert ledger.log_evidence < 0 or ledger.log_evidence < LIMIT
    first = Ledger(0.01)
    first.admit(map(str, range(1000)))
    for device in range(6):
        first.answer(str(device), "failed")
    assert first.log_evidence > LIMIT


def ledger(confirmed: int, failed: int = 0, silent: int = 0, waiting: int = 0) -> Ledger:
    found = Ledger(0.01)
    outcomes = ["confirmed"] * confirmed + ["silent"] * silent + ["failed"] * failed
    found.admit(map(str, range(len(outcomes) + waiting)))
    for device, outcome in enumerate(outcomes):
        found.answer(str(device), outcome)  # type: ignore[arg-type]
    return found


NONE = Ledger(0.01)
LIMITS = Limits.of(0.01, 1000, 10)


def test_a_wave_widens_when_all_have_answered_and_at_most_doubles() -> None:
    assert judge(ledger(10), NONE, LIMITS, 1000, 10, is_over=True).allowed == 20
    assert judge(ledger(9, waiting=1), NONE, LIMITS, 1000, 10, is_over=True).action == "wait"
    assert judge(ledger(9), NONE, LIMITS, 1000, 10).action == "wait"
    few = judge(ledger(60), NONE, LIMITS, 1000, 100, is_over=True)  # 40 never began: they are still exposed
    assert few.allowed == 120
    assert judge(ledger(980, 5, 15), NONE, LIMITS, 1000, 1000, is_over=True).action == "finish"


def test_silence_is_failure_for_the_widening_and_success_for_the_stop() -> None:
    quiet = judge(ledger(100, silent=100), NONE, LIMITS, 1000, 200, is_over=True)
    assert quiet.log_odds <= 0 and quiet.bound is not None and quiet.bound > 0.5
    assert quiet.allowed == 200 + int(LIMITS.max_failed_devices / quiet.bound)


def test_without_a_bound_a_person_is_asked() -> None:
    strict = Limits(0.01, 0, 10)
    asked = judge(ledger(10), NONE, strict, 1000, 10, is_over=True)
    assert asked.action == "ask" and "say yes" in asked.why
    assert judge(ledger(10), NONE, strict, 1000, 10, is_over=True, has_yes=True).allowed == 20


def test_evidence_stops_and_says_so() -> None:
    bad = ledger(0, failed=6)
    found = judge(bad, NONE, LIMITS, 1000, 10)
    assert found.action == "stop" and found.why == conviction(bad)
    assert found.why.startswith("stopped after 6 of 6: evidence ") and found.why.endswith(" : 1 against 1 %")


def test_where_the_old_release_fails_too_the_environment_is_to_blame() -> None:
    assert judge(ledger(0, failed=9), ledger(0, failed=9), LIMITS, 1000, 10).action == "pause"
    assert judge(ledger(0, failed=9), ledger(90, failed=1), LIMITS, 1000, 10).action == "stop"


def test_a_lost_canary_pauses() -> None:
    found = judge(ledger(9, failed=1), NONE, LIMITS, 1000, 10, lost_canaries=1, is_over=True)
    assert found.action == "pause" and found.why.startswith("1 canary did not confirm")


def test_the_plan_of_a_small_fleet_says_what_cannot_be_decided() -> None:
    assert least_failures(0.01) == 3
    assert [size for size, _ in waves(Limits.of(0.01, 1000, 10), 1000)] == [
        10,
        20,
        40,
        80,
        160,
        320,
        640,
        1000,
    ]
    assert [size for size, _ in waves(Limits(0.01, 0, 2), 8)] == [2]
