"""Soak `fleet-cuts`: power cuts under the code with which a device installs, reverts and recovers.

Each story (tests/fleet/cuts.py) is an update or a revert on a disk that loses what was not synced, cut once
to three times, in recovery too. `count` cuts in all; a failure names the seed that tells the story again.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from tests.fleet.cuts import SCENARIOS, Broken, story

STORIES_APART = 1 << 32  # seeds of two soaks do not meet


def fleet_cuts(seed: int, count: int, minutes: float = 1e9) -> dict[str, Any]:
    """Stories until `count` cuts were made or `minutes` are over. failures: what broke, with its seed."""
    end_s = time.monotonic() + 60 * minutes
    by_cuts: Counter[int] = Counter()
    failures: list[str] = []
    told = cuts = 0
    while cuts < count and time.monotonic() < end_s:
        try:
            made = story(seed * STORIES_APART + told)
            by_cuts[made] += 1
            cuts += made
        except Broken as broken:
            failures.append(str(broken))
            cuts += 1
        told += 1
    counts = {"cuts": cuts, "stories": told, "broken": len(failures)}
    by = {f"cut {number} times": by_cuts[number] for number in sorted(by_cuts)}
    scenarios = list(SCENARIOS)
    return {"counts": counts | by, "scenarios": scenarios, "differing_bytes": 0, "failures": failures[:20]}
