"""The live releases of a fleet as rows: number, hardware, size, floor, and where each is chosen."""

from __future__ import annotations

from typing import Any

from edgekd.fleet import pair
from edgekd.fleet.home import Home
from edgekd.fleet.pair import Pair


def releases(home: Home) -> list[dict[str, Any]]:
    """[{"model", "release", "label", "kind", "hardware", "payload_bytes", "floor", "chosen"}], published.

    chosen: hardware -> millionths of the fleet, for the releases that `rollout` names now.
    """
    made = Pair(home.host, home.now, home.ring.online_days)
    waves = pair.waves(made.rollout)
    rows = []
    for role in made.releases.delegated():
        model = role.removeprefix("model-")
        policy = pair.model_policy(made.releases, model)
        for number, (note, _) in sorted(pair.releases_of(made.releases, model).items()):
            rows.append(
                {
                    "model": model,
                    "release": number,
                    "label": note.label,
                    "kind": note.kind,
                    "hardware": list(note.hardware),
                    "payload_bytes": note.payload_bytes,
                    "floor": policy.min_release if policy else 1,
                    "chosen": {w.hardware: w.ppm for w in waves if (w.model, w.release) == (model, number)},
                }
            )
    return rows
