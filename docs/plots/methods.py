"""The plots of docs/methods: `python docs/plots/methods.py` writes them; a test holds them to this file.

Curves are computed here; measurements are read from benchmarks/results, where the run that made them put
them. No plotting library is needed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

sys.path.insert(0, str(Path(__file__).resolve().parent))

from svg import COLOURS, Chart

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent.parent / "benchmarks" / "results"

TEACHER = (1.0, 0.5, 0.0, 2.0, 9.0, -1.0, 0.5, 3.0, 2.5, 6.0)  # logits of a "4" that looks like a "9"


def softmax(logits: tuple[float, ...], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in logits]
    return [x / sum(powers) for x in powers]


def temperature() -> Chart:
    """What a teacher says of one digit at three temperatures."""
    chart = Chart("What the teacher says of a 4, by temperature", (-0.5, 9.5), (0, 1), "class", "probability")
    chart.ticks_x([float(c) for c in range(10)])
    chart.ticks_y([0, 0.25, 0.5, 0.75, 1])
    for t in (1.0, 4.0, 16.0):
        points = list(enumerate(softmax(TEACHER, t)))
        chart.line(points, f"T = {t:g}")
        for x, y in points:
            chart.dot(x, y, chart.legend[-1][1])
    return chart


def gradient() -> Chart:
    """The largest gradient of the soft loss against T, with and without the factor T^2."""
    student, temperatures = tuple(0.3 * v for v in TEACHER), [2 ** (i / 8) for i in range(49)]

    def size(t: float, factor: float) -> float:
        pairs = zip(softmax(student, t), softmax(TEACHER, t), strict=True)
        return max(abs(q - p) for q, p in pairs) / t * factor

    chart = Chart(
        "The soft gradient keeps its size only with T²",
        (1, 64),
        (0, 1),
        "temperature T",
        "largest |∂L/∂z|",
        True,
    )
    chart.ticks_x([1, 2, 4, 8, 16, 32, 64])
    chart.ticks_y([0, 0.25, 0.5, 0.75, 1])
    chart.line([(t, size(t, t * t)) for t in temperatures], "T² · KL")
    chart.line([(t, size(t, 1)) for t in temperatures], "KL")
    spread = [0.7 * (v - sum(TEACHER) / 10) / 10 for v in TEACHER]
    limit = max(map(abs, spread))
    chart.line([(1, limit), (64, limit)], "|z − v| / C", "#888", dashed=True)
    return chart


def ablation() -> Chart:
    """Every seed of every loss on digits, with the mean and one standard deviation."""
    report = json.loads((RESULTS / "ablation-digits.json").read_text("utf-8"))
    rows = report["rows"]
    title = f"digits: accuracy on {report['split']} by loss, {report['seeds']} seeds, mean ± deviation"
    chart = Chart(title, (-0.5, len(rows) - 0.5), (0.965, 1.0), "loss", "accuracy")
    chart.ticks_x(
        [(float(i), "labels only" if row["loss"] == "hard" else row["loss"]) for i, row in enumerate(rows)]
    )
    chart.ticks_y([0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 1.0])
    for i, row in enumerate(rows):
        colour = COLOURS[1] if row["loss"] == report["baseline"] else COLOURS[0]
        low, high = row["mean"] - row["spread"], row["mean"] + row["spread"]
        chart.line([(i, low), (i, min(1.0, high))], colour=colour)
        chart.line([(i - 0.15, row["mean"]), (i + 0.15, row["mean"])], colour=colour)
        for k, value in enumerate(row["values"]):
            chart.dot(i + 0.28 + 0.04 * (k - 2), value, colour, 3, 0.6)
    return chart


def staircase() -> Chart:
    """A real number, the integer that holds it, and the straight-through gradient, at 3 bits."""
    scale, low, high = 0.5, -4, 3
    chart = Chart("Three bits, s = 0.5: the value held, and its gradient", (-3, 3), (-2.5, 2), "r", "value")
    chart.ticks_x([-3, -2, -1, 0, 1, 2, 3])
    chart.ticks_y([-2, -1, 0, 1, 2])
    points = [(-3 + i / 100, 0.0) for i in range(601)]
    held = [(r, scale * min(high, max(low, math.floor(r / scale + 0.5)))) for r, _ in points]
    chart.line([(-2.5, -2.5), (2, 2)], "r itself", "#888", dashed=True)
    chart.line(held, "s · q(r)")
    inside = [(r, 1.0 if scale * low <= r <= scale * high else 0.0) for r, _ in points]
    chart.line(inside, "straight-through ∂/∂r")
    return chart


def clipping() -> Chart:
    """Mean squared error of a normal variable against the clip, at 4 and 8 bits: round or clip, not both."""
    values = [NormalDist().inv_cdf((i + 0.5) / 4000) for i in range(4000)]

    def error_db(clip: float, levels: int) -> float:
        step = clip / levels
        total = sum((v - step * min(levels, max(-levels, math.floor(v / step + 0.5)))) ** 2 for v in values)
        return 10 * math.log10(total / len(values))

    chart = Chart(
        "Clip or round: error of a normal variable by its clip",
        (1, 10),
        (-50, 0),
        "clip, in deviations",
        "error, dB",
    )
    chart.ticks_x([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    chart.ticks_y([-50, -40, -30, -20, -10, 0])
    for bits in (8, 4, 3, 2):
        levels = 2 ** (bits - 1) - 1
        chart.line([(c / 10, error_db(c / 10, levels)) for c in range(10, 101, 2)], f"{bits} bits")
    return chart


def gate() -> Chart:
    """How wide the paired interval is against the number of samples, for three shares of disagreement."""
    sys.path.insert(0, str(HERE.parent.parent))
    from edgekd.evaluate.intervals import paired_drop

    sizes = [100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10_000, 20_000, 50_000]
    chart = Chart(
        "What a test set can tell: half width of a drop's interval",
        (100, 50_000),
        (0, 8),
        "samples",
        "points",
        True,
    )
    chart.ticks_x([100, 360, 1000, (10_000, "10,000"), (50_000, "50,000")])
    chart.ticks_y([0, 1, 2, 3, 4, 5, 6, 7, 8])
    for share in (0.10, 0.04, 0.01):
        rows = []
        for n in sizes:
            one_way = round(n * share / 2)
            drop = paired_drop(one_way, one_way, n)
            rows.append((n, 50 * (drop.high - drop.low)))
        chart.line(rows, f"{100 * share:g} % of answers differ")
    return chart


def table_error() -> Chart:
    """Error of the best table and of evenly spaced values, by bits, of normal and of long-tailed weights."""
    sys.path.insert(0, str(HERE.parent.parent))
    import numpy as np

    from edgekd.compress.tables import LARGEST, best_table, error_of

    shares = (np.arange(1000) + 0.5) / 1000
    tailed = np.sign(shares - 0.5) * -np.log(1 - np.abs(2 * shares - 1))  # Laplace's
    kinds = {"normal": np.array([NormalDist().inv_cdf(share) for share in shares]), "Laplace": tailed}
    alike, every = np.ones(1000), range(2, 7)
    chart = Chart("The error of 2 to 6 bits a weight", (1.8, 6.2), (-40, 0), "bits", "error, dB")
    chart.ticks_x([2, 3, 4, 5, 6])
    chart.ticks_y([-40, -30, -20, -10, 0])
    for colour, (name, values) in zip(COLOURS, kinds.items(), strict=False):
        weights = values / np.abs(values).max() * LARGEST
        tables = [error_of(weights, alike, best_table(weights, alike, 2**bits)) for bits in every]
        evens = [
            min(error_of(weights, alike, np.arange(-(2**b) // 2, 2**b // 2) * step / 2**b) for step in _STEPS)
            for b in every
        ]
        for title, errors, dashed in (("table", tables, False), ("even steps", evens, True)):
            shown = [(b, 10 * math.log10(e / (weights**2).sum())) for b, e in zip(every, errors, strict=True)]
            chart.line(shown, f"{title}, {name}", colour, dashed)
    return chart


def low_rank() -> Chart:
    """What a 3 x 3 layer of 32 to 32 channels costs by its ranks, of what it cost whole."""
    sys.path.insert(0, str(HERE.parent.parent))
    from edgekd.compress.ranks import cost, split_specs
    from edgekd.learn.structure import LayerSpec

    ranks = range(4, 33, 4)
    chart = Chart(
        "A layer of 32 to 32 channels, split", (4, 32), (0, 1.6), "rank", "share of the whole layer"
    )
    chart.ticks_x(list(ranks))
    chart.ticks_y([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5])
    for title, kernel, both in (
        ("3 × 3, both ranks", 3, True),
        ("3 × 3, one", 3, False),
        ("1 × 1", 1, False),
    ):
        layer = LayerSpec("conv", 32, 32, kernel)
        whole = cost([layer], (16, 16))[1]
        points = []
        for rank in ranks[:-1]:
            chosen = (rank,) if kernel == 1 else (rank, rank if both else 32)
            points.append((rank, cost(split_specs(layer, chosen), (16, 16))[1] / whole))
        chart.line(points, title)
    chart.line([(4, 1), (32, 1)], "whole", "#888", dashed=True)
    return chart


def compressed() -> Chart:
    """Each way to a smaller CIFAR-10 student: int8 accuracy against the instructions that are left."""
    rows = json.loads((RESULTS / "compress-cifar10.json").read_text("utf-8"))["rows"]
    whole = rows["int8"]["bench"]["instructions"]
    title = "CIFAR-10, one student: accuracy against instructions"
    chart = Chart(title, (0.35, 1.1), (0.81, 0.87), "instructions, share of the student's", "int8 accuracy")
    chart.ticks_x([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1])
    chart.ticks_y([0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87])
    lost = rows["int8"]["accuracy"] - 0.02
    chart.line([(0.35, lost), (1.1, lost)], "two points lost", "#888", dashed=True)
    for name, row in sorted(rows.items()):
        if "bench" in row and row["recipe"] == "cifar10-release":
            share = row["bench"]["instructions"] / whole
            chart.dot(
                share,
                row["accuracy"],
                COLOURS[1] if row["gates"]["quantize"]["outcome"] == "failed" else COLOURS[0],
            )
            chart.text(share + 0.01, row["accuracy"] + 0.001, name, "start")
    return chart


_STEPS = range(20, 260, 4)  # how wide evenly spaced values are tried


PLOTS: dict[str, Callable[[], Chart]] = {
    "temperature": temperature,
    "gradient": gradient,
    "ablation-digits": ablation,
    "staircase": staircase,
    "clipping": clipping,
    "gate": gate,
    "table-error": table_error,
    "low-rank": low_rank,
    "compress-cifar10": compressed,
}


def main() -> None:
    for name, draw in PLOTS.items():
        (HERE / f"{name}.svg").write_text(draw().svg(), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
