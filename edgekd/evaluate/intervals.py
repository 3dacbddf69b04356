"""How sure a figure is: intervals for a share, for a paired difference, for a mean over seeds (no scipy).

docs/methods/evaluation.md derives each and says why it was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True)
class Interval:
    """A figure and the limits of its interval, all in the figure's own unit."""

    value: float
    low: float
    high: float


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact interval of a share (Clopper and Pearson 1934): never less sure than it says.

    >>> share = clopper_pearson(351, 360)
    >>> f"{share.low:.4f} {share.high:.4f}"
    '0.9531 0.9885'
    """
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    tail = (1 - confidence) / 2
    low = beta_quantile(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta_quantile(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(successes / trials, low, high)


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value that two models are equally right (McNemar 1947, exact binomial).

    lost: samples that only the first has right; gained: that only the second has. 1.0 where both are 0.
    """
    n, k = lost + gained, min(lost, gained)
    return float(min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n))


def paired_drop(lost: int, gained: int, samples: int, z: float = _Z95) -> Interval:
    """The fall of accuracy (lost - gained) / samples between two models on the same samples.

    Tango's score interval (1998, Statistics in Medicine 17: 891-908): all drops d that a score test of
    "the drop is d" does not reject, the nuisance parameter at its likeliest under d. It keeps its level
    for few samples, and is as wide as it must be where no sample tells the models apart.

    >>> drop = paired_drop(lost=6, gained=1, samples=360)
    >>> f"{drop.value:.4f} {drop.low:.4f} {drop.high:.4f}"
    '0.0139 -0.0007 0.0335'
    """
    value = (lost - gained) / samples
    score = _score(lost, gained, samples)
    # The score falls as d grows; it is 0 at the value itself.
    low = _root(lambda d: score(d) - z, -1.0, value)
    high = _root(lambda d: score(d) + z, value, 1.0)
    return Interval(value, low, high)


def samples_to_decide(drop: float, disagreement: float, budget: float, z: float = _Z95) -> int | None:
    """About how many samples set a drop apart from `budget`; None where they are too close to say.

    disagreement: the share of samples that exactly one model has right; the drop's variance is about that
    share over n.
    """
    distance = abs(drop - budget)
    if distance < 1e-4:
        return None
    spread = max(disagreement - drop * drop, 1e-4)
    return math.ceil(z * z * spread / (distance * distance))


def mean_of(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of a few independent values with Student's t interval; no width can be told from one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(1 - (1 - confidence) / 2, n - 1) * deviation(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation (n - 1 below); 0 for one value."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def t_quantile(probability: float, freedom: int) -> float:
    """The point of Student's t with `freedom` degrees below which `probability` (0.5 .. 1) lies.

    >>> f"{t_quantile(0.975, 4):.3f}"
    '2.776'
    """
    x = beta_quantile(2 * (1 - probability), freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x) if x > 0 else math.inf


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The point of the beta distribution below which `probability` lies."""
    return _root(lambda x: incomplete_beta(x, a, b) - probability, 0.0, 1.0)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    return front * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b), evaluated forwards (Lentz 1976); x is below its mean."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def _score(lost: int, gained: int, n: int) -> Callable[[float], float]:
    """Tango's score for "the drop is d" as a function of d."""

    def score(d: float) -> float:
        # q: the likeliest share of `gained` under d, the root of 2 n q^2 + b q + c = 0.
        b = -lost - gained + (2 * n - lost + gained) * d
        c = -gained * d * (1 - d)
        q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + d * (1 - d))
        gap = lost - gained - n * d
        if variance <= 0:
            return 0.0 if gap == 0 else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)

    return score


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a monotone function crosses zero between `low` and `high`, by halving."""
    rising = function(high) > function(low)
    for _ in range(80):
        middle = (low + high) / 2
        if (function(middle) < 0) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2
