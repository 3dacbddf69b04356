"""What a structure search brings: its front's volume against a width sweep, between samplers, and its rate.

    python benchmarks/search.py --out benchmarks/results/search-digits.json  # against a sweep
    python benchmarks/search.py --samplers --seeds 2                         # tpe, nsga2, gp, random
    python benchmarks/search.py --rate                                       # one worker against two
    python benchmarks/search.py --warm                                       # with and without a warm start

The sweep is fixed by the recipe before any search: its own [student], with all channels times m, for as many
m as there are trials, evenly from 1/4 to the widest that fits the limits; each trained as a trial is. Both
volumes have one reference (docs/methods/search.md). A trial that was stopped early counts as one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.learn_chain import commit, machine, save  # noqa: E402
from edgekd import api  # noqa: E402
from edgekd.pipeline import searching  # noqa: E402
from edgekd.pipeline.request import Request  # noqa: E402
from edgekd.recipe import Recipe  # noqa: E402
from edgekd.recipe.blocks import BlockParams  # noqa: E402
from edgekd.recipe.search import SAMPLERS  # noqa: E402
from edgekd.search.fit import Pricer, described  # noqa: E402
from edgekd.search.front import front, hypervolume  # noqa: E402
from edgekd.search.space import Candidate  # noqa: E402
from edgekd.search.study import figures_of  # noqa: E402
from edgekd.search.trial import open_classroom, run_trial  # noqa: E402

KINDS = {"ds-cnn": "separable", "resnet": "residual"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--target", default="mcu-sim")
    parser.add_argument("--store", default="")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samplers", action="store_true")
    parser.add_argument("--rate", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    request = api.request(recipe=given.recipe, target=given.target, store=given.store, start=ROOT)
    recipe = request.need_recipe()
    own = replace(recipe.search, trials=given.trials or recipe.search.trials)
    request = replace(request, recipe=replace(recipe, search=own))
    api.make(request, "distill" if given.warm else "knowledge")
    report: dict[str, Any] = {"recipe": given.recipe, "target": given.target, "trials": own.trials}
    report |= {"commit": commit(), "machine": machine(), "load_before": os.getloadavg()}
    ways = {given.samplers: samplers, given.rate: rate, given.warm: warm}
    report |= ways.get(True, against_sweep)(request, given.seeds) | {"load_behind": os.getloadavg()}
    print(json.dumps(report, indent=1))
    if given.out:
        save(report, given.out)


def seeded(request: Request, seed: int, **search: Any) -> Request:
    """The request with another seed of the sampler and the students; the knowledge stays."""
    recipe = request.need_recipe()
    more = replace(recipe, seed=recipe.seed + seed, search=replace(recipe.search, **search))
    return replace(request, recipe=more)


def searched(request: Request, fresh: bool = True, workers: int = 1) -> tuple[dict[str, Any], float]:
    """(result, seconds) of a search that begins from nothing."""
    recipe = request.need_recipe()
    folder = searching.prepare(request, searching.Wanted()).folder
    if fresh:
        shutil.rmtree(folder)
    started = time.monotonic()
    found = api.search(request, workers=workers, trials=recipe.search.trials, say=print)
    return found, time.monotonic() - started


def against_sweep(request: Request, seeds: int) -> dict[str, Any]:
    rows = []
    for seed in range(seeds):
        found, seconds = searched(seeded(request, seed))
        swept = sweep(seeded(request, seed), found["reference"])
        rows.append({"seed": seed, "search": told(found), "search_s": round(seconds, 1), "sweep": swept})
    gains = [row["search"]["hypervolume"] / row["sweep"]["hypervolume"] for row in rows]
    return {"rows": rows, "ratio_of_volumes": round(statistics.mean(gains), 4)}


def told(found: dict[str, Any]) -> dict[str, Any]:
    rows = {row["trial"]: row for row in found["rows"]}
    kept = [{k: rows[n][k] for k in ("trial", "accuracy", "costs", "what")} for n in found["front"]]
    return {k: found[k] for k in ("hypervolume", "reference", "trials", "stopped", "unfit")} | {"front": kept}


def sweep(request: Request, reference: Sequence[float]) -> dict[str, Any]:
    """The recipe's own student at as many widths as there are trials."""
    search = searching.prepare(request, searching.Wanted())
    recipe, pricer, started = search.recipe, search.pricer(), time.monotonic()
    room = open_classroom(search.data.path, search.knowledge.path, recipe, None)
    if search.parent is not None:
        room = open_classroom(search.data.path, search.knowledge.path, recipe, search.parent.path)
    rows = []
    for candidate in widths(recipe, pricer, recipe.search.trials):
        accuracy = run_trial(room, candidate, lambda epoch, accuracy: None)
        costs = pricer.costs(candidate)
        rows.append({"accuracy": accuracy, "costs": costs, "what": described(candidate)})
    points = [figures_of(row, recipe.search.cost) for row in rows]
    shares = [tuple(v / r for v, r in zip(point, reference, strict=True)) for point in points]
    return {
        "hypervolume": hypervolume(shares, (1.0,) * len(reference)),
        "trials": len(rows),
        "seconds": round(time.monotonic() - started, 1),
        "front": [rows[i] for i in front(points)],
    }


def widths(recipe: Recipe, pricer: Pricer, count: int) -> Iterator[Candidate]:
    widest = 4.0
    while pricer.broken_by(pricer.costs(scaled(recipe, widest))) and widest > 0.25:
        widest *= 0.98
    for index in range(count):
        yield scaled(recipe, 0.25 + (widest - 0.25) * index / max(1, count - 1))


def scaled(recipe: Recipe, times: float) -> Candidate:
    """The recipe's [student] as blocks, all channels times `times`."""
    student = recipe.student
    kinds = ["conv", *[KINDS[student.model]] * (len(student.channels) - 1)]
    rows = zip(kinds, student.channels, student.strides, strict=True)
    blocks = tuple(BlockParams(kind, max(1, round(times * full)), stride) for kind, full, stride in rows)
    return Candidate(blocks, (8,) * len(blocks))


def samplers(request: Request, seeds: int) -> dict[str, Any]:
    rows = []
    for name in SAMPLERS:
        volumes = [searched(seeded(request, s, sampler=name))[0]["hypervolume"] for s in range(seeds)]
        rows.append({"sampler": name, "hypervolumes": volumes, "mean": statistics.mean(volumes)})
        print(rows[-1], file=sys.stderr, flush=True)
    return {"rows": rows}


def warm(request: Request, seeds: int) -> dict[str, Any]:
    """The same students with and without the recipe's own student to begin with: mean accuracy."""
    search = searching.prepare(seeded(request, 0, warm_start=True), searching.Wanted())
    assert search.parent is not None
    recipe, pricer, rows = search.recipe, search.pricer(), []
    for candidate in widths(recipe, pricer, recipe.search.trials):
        pair = []
        for parent in (None, search.parent.path):
            room = open_classroom(search.data.path, search.knowledge.path, recipe, parent)
            pair.append(run_trial(room, candidate, lambda epoch, accuracy: None))
        rows.append({"what": described(candidate), "cold": pair[0], "warm": pair[1]})
    return {"rows": rows, "gain": statistics.mean(row["warm"] - row["cold"] for row in rows)}


def rate(request: Request, seeds: int) -> dict[str, Any]:
    """Trials an hour with one worker and with two, start-up included; the same students in both.

    None is stopped early, and each is drawn by its number alone: else one of the two might have drawn the
    quicker students.
    """
    request = seeded(request, 0, margin=0.0, sampler="random")
    found = {}
    for workers in (1, 2):
        result, seconds = searched(request, workers=workers)
        an_hour = round(3600 * result["trials"] / seconds, 1)
        found[workers] = {"trials": result["trials"], "seconds": round(seconds, 1), "trials_an_hour": an_hour}
    return {"workers": found, "ratio": round(found[2]["trials_an_hour"] / found[1]["trials_an_hour"], 3)}


if __name__ == "__main__":
    main()
