"""What the teacher adds: the same student from labels only and from knowledge, over several seeds.

    python benchmarks/learn_effect.py cifar10 --store DIR --seeds 3 --out FILE.json

Dataset and knowledge come from the store (made where they are absent). AdamW replaces the recipe's
optimizer, for its step does not depend on the size of the loss: with SGD a loss of 0.9 T^2 KD would also
take longer steps than cross entropy does. Views, epochs, batches and initial weights are the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.learn_chain import Told, commit, cpu_s, machine, save  # noqa: E402
from edgekd import api  # noqa: E402
from edgekd.learn.ablation import distillation_report  # noqa: E402

LEARNING_RATE, WEIGHT_DECAY = 0.005, 0.02  # set beforehand, tuned on nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--store", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--dataset", default="", help="a data set's directory, in place of the store's")
    parser.add_argument("--knowledge", default="", help="a knowledge directory, in place of the store's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--losses", default="kd")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    told = Told()
    request = api.request(
        recipe=given.recipe, store=given.store, source=given.source, start=ROOT, progress=told
    )
    recipe = request.need_recipe()
    distill = dataclasses.replace(
        recipe.distill, optimizer="adamw", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    ablation = dataclasses.replace(recipe.ablation, seeds=given.seeds, losses=tuple(given.losses.split(",")))
    recipe = dataclasses.replace(recipe, distill=distill, ablation=ablation)
    chosen = (("dataset", given.dataset), ("knowledge", given.knowledge))
    places = [Path(place) if place else api.make(request, stage).path for stage, place in chosen]
    before = cpu_s()
    with tempfile.TemporaryDirectory() as out:
        report = distillation_report(*places, recipe, Path(out), progress=told)
    about = {"recipe": given.recipe, "commit": commit(), "machine": machine(), "seed": recipe.seed}
    about |= {"distill": dataclasses.asdict(distill), "views": recipe.knowledge.views}
    save(about | {"report": report, "cpu_minutes": round((cpu_s() - before) / 60, 2)}, given.out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
