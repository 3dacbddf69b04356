"""After a release was confirmed: does it crash, does it err, has the world changed. Pure functions.

Crashes and errors are the release's doing and revert it. Predictions that are spread otherwise than in this
device's last week are the world's doing, most often: an alarm in the report, never a revert.
"""

from __future__ import annotations

import math
from typing import Any

from edgekd.fleet.agent import machine
from edgekd.fleet.agent.ledger import DAY_S, MINUTE_S, Account
from edgekd.fleet.agent.state import State
from edgekd.fleet.formats import Watch

FEWEST_ANSWERS = 100  # below that a share of errors says nothing
FEWEST_PREDICTIONS = 200
FLOOR_SHARE = 1e-4  # of a class that never came, in the index


def unwell(state: State, account: Account | None, limits: Watch, now_s: int) -> machine.Unwell | None:
    """The event that reverts the confirmed release, where its account says so."""
    if account is None or not state.serves(account.sha256):
        return None
    since_s = now_s - limits.within_s
    crashes = sum(since_s <= at <= now_s for at in account.crashes)
    if crashes >= limits.max_crashes:
        return machine.Unwell(account.sha256, "crashes")
    recent = [row for row in account.minutes if since_s <= row[0] * MINUTE_S <= now_s]
    answers, errors = sum(row[1] for row in recent), sum(row[2] for row in recent)
    if answers + errors >= FEWEST_ANSWERS and errors > limits.max_error_rate * (answers + errors):
        return machine.Unwell(account.sha256, "errors")
    return None


def drift(account: Account | None, limits: Watch, now_s: int) -> dict[str, Any] | None:
    """Today's predictions against those of the days before: {"psi", "alarm"}; None: too few of either."""
    if account is None:
        return None
    today = str(now_s // DAY_S)
    recent = account.days.get(today, [])
    before = _sum([counts for day, counts in account.days.items() if int(day) < int(today)])
    if min(sum(recent), sum(before)) < FEWEST_PREDICTIONS:
        return None
    index = stability_index(before, recent)
    return {"psi": round(index, 4), "alarm": index > limits.psi_alarm}


def stability_index(expected: list[int], actual: list[int]) -> float:
    """The population stability index of two histograms: sum of (a - e) ln(a / e) over the classes' shares."""
    count = max(len(expected), len(actual))
    shares: list[list[float]] = []
    for counts in (expected, actual):
        padded = counts + [0] * (count - len(counts))
        shares.append([max(each / sum(padded), FLOOR_SHARE) for each in padded])
    return math.fsum((a - e) * math.log(a / e) for e, a in zip(*shares, strict=True))


def _sum(rows: list[list[int]]) -> list[int]:
    width = max(map(len, rows), default=0)
    return [sum(row[place] for row in rows if place < len(row)) for place in range(width)]
