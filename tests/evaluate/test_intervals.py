"""Intervals against published figures, against brute force, and by their coverage, counted exactly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgekd.evaluate import intervals
from edgekd.evaluate.intervals import clopper_pearson, mcnemar, mean_of, paired_drop, t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "point"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 9, 2.26216),
        (0.995, 4, 4.60409),
        (0.975, 1000, 1.96234),
    ],
)
def test_students_t_against_the_printed_table(probability: float, freedom: int, point: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(point, rel=1e-5)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 3), (0.5, 0.5), (30, 4), (400, 900)])
def test_incomplete_beta_against_the_integral(a: float, b: float) -> None:
    x = a / (a + b) * 1.1
    t = np.linspace(0, 1, 400_001)[1:] ** 2 * x  # the square packs points near 0, where a < 1 has its pole
    log_density = (a - 1) * np.log(t) + (b - 1) * np.log1p(-t)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    integral = np.trapezoid(np.exp(log_front + log_density), t)
    assert intervals.incomplete_beta(x, a, b) == pytest.approx(integral, abs=2e-3)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0, 0.3084971),
        (1, 10, 0.0025286, 0.4450161),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1),
    ],
)
def test_clopper_pearson_against_the_printed_table(
    successes: int, trials: int, low: float, high: float
) -> None:
    found = clopper_pearson(successes, trials)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.value == successes / trials


def test_of_no_samples_everything_is_possible() -> None:
    assert (clopper_pearson(0, 0).low, clopper_pearson(0, 0).high) == (0, 1)


def test_mcnemar_by_counting() -> None:
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    assert mcnemar(5, 0) == mcnemar(0, 5) == 2 / 32
    assert mcnemar(6, 1) == 2 * (1 + 7) / 128


def likeliest_score(lost: int, gained: int, n: int, d: float) -> float:
    """The score with the nuisance parameter found by trying 200,001 values, not by Tango's formula."""
    q = np.linspace(max(0.0, -d) + 1e-9, (1 - d) / 2 - 1e-9, 200_001)
    chance = lost * np.log(q + d) + gained * np.log(q) + (n - lost - gained) * np.log(1 - 2 * q - d)
    best = q[chance.argmax()]
    return float((lost - gained - n * d) / math.sqrt(n * (2 * best + d - d * d)))


@pytest.mark.parametrize(
    ("lost", "gained", "samples"),
    [(6, 1, 360), (1, 6, 360), (1, 0, 44), (10, 10, 40), (0, 0, 20), (0, 5, 20)],
)
def test_a_paired_drops_limits_are_where_the_score_is_1_96(lost: int, gained: int, samples: int) -> None:
    drop = paired_drop(lost, gained, samples)
    assert drop.value == (lost - gained) / samples and drop.low < drop.value < drop.high
    assert likeliest_score(lost, gained, samples, drop.low) == pytest.approx(1.96, abs=2e-3)
    assert likeliest_score(lost, gained, samples, drop.high) == pytest.approx(-1.96, abs=2e-3)


def test_a_paired_drop_is_the_mirror_of_the_gain() -> None:
    forward, back = paired_drop(7, 2, 100), paired_drop(2, 7, 100)
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))


def test_where_no_sample_tells_the_models_apart_few_samples_still_say_little() -> None:
    """z^2 / (n + z^2): zero discordant pairs of 10 do not prove equality."""
    z2 = 1.959964**2
    assert paired_drop(0, 0, 10).high == pytest.approx(z2 / (10 + z2), abs=1e-6)
    assert paired_drop(0, 0, 10_000).high == pytest.approx(z2 / (10_000 + z2), abs=1e-6)


@pytest.mark.parametrize("extremes", [(10, 0, 10), (0, 10, 10), (1, 0, 1)])
def test_the_extremes_stay_within_minus_one_and_one(extremes: tuple[int, int, int]) -> None:
    drop = paired_drop(*extremes)
    assert -1 <= drop.low <= drop.value <= drop.high <= 1


@pytest.mark.parametrize(("p_lost", "p_gained"), [(0.05, 0.05), (0.2, 0.1), (0.1, 0.02), (0.02, 0.0)])
def test_ninety_five_of_a_hundred_intervals_hold_the_truth(p_lost: float, p_gained: float) -> None:
    """The coverage over every possible outcome of 40 samples, weighed by its probability: no simulation."""
    n, covered = 40, 0.0
    for lost, gained in itertools.product(range(n + 1), repeat=2):
        if lost + gained > n:
            continue
        rest = n - lost - gained
        chance = math.comb(n, lost) * math.comb(n - lost, gained)
        weight = chance * p_lost**lost * p_gained**gained * (1 - p_lost - p_gained) ** rest
        if weight > 1e-7:
            drop = paired_drop(lost, gained, n)
            covered += weight * (drop.low <= p_lost - p_gained <= drop.high)
    assert 0.93 <= covered <= 1


def test_the_samples_that_would_decide() -> None:
    """A drop of 1 point at 4 % disagreement against a budget of 2: 0.0399 * 1.96^2 / 0.01^2."""
    needed = intervals.samples_to_decide(0.01, 0.04, 0.02)
    assert needed == pytest.approx(1533, abs=2)
    assert needed is not None
    lost = round(0.025 * needed)
    assert paired_drop(lost, lost - round(0.01 * needed), needed).high == pytest.approx(0.02, abs=5e-4)
    assert intervals.samples_to_decide(0.02, 0.04, 0.02) is None


def test_a_mean_over_seeds_by_hand() -> None:
    found = mean_of([0.98, 0.99, 0.985])
    assert found.value == pytest.approx(0.985)
    assert found.high - found.value == pytest.approx(4.30265 * 0.005 / math.sqrt(3), rel=1e-5)
    assert intervals.deviation([0.98, 0.99, 0.985]) == pytest.approx(0.005)
    assert mean_of([0.5]).high == math.inf and intervals.deviation([0.5]) == 0
