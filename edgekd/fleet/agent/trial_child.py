"""The process of one trial: shut in, load the new release, ask it everything, then race it against the old.

Standard input: one line of JSON, the request. Standard output: lines of JSON: {"walls"}, then what was
measured so far after each step ({"measured"}), or {"failure", "message"}. The parent judges (trial.py).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from edgekd.device.agent.machine import memory_bytes
from edgekd.fleet.agent import sandbox
from edgekd.fleet.agent.runner import Loaded, LoadError, NoRuntimeError, Slot

WARM_UP = 20
ROUNDS = 3  # a slow race is run again: a disturbance passes, slowness stays
SETTLED_SHARE = 0.2  # of the soak: what grows afterwards is a leak
NO_RUNTIME = "no-runtime"


class Teller:
    """Writes messages, on a descriptor of its own: what the model prints goes nowhere."""

    def __init__(self) -> None:
        self._handle = os.dup(1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)

    def __call__(self, **message: Any) -> None:
        os.write(self._handle, json.dumps(message).encode() + b"\n")


def main() -> int:
    """Run the trial that the request on standard input describes."""
    request = json.loads(sys.stdin.readline())
    say = Teller()
    try:
        limits = (request["cpu_s"], request["file_bytes"], request["processes"])
        walls = sandbox.enter(request["user"], *limits)
    except (OSError, KeyError, ValueError) as error:
        return _fail(say, NO_RUNTIME, error)
    try:
        slots = preload(request)
    except LoadError as error:
        say(walls=walls)
        return _fail(say, "does-not-load", error)
    except (NoRuntimeError, ImportError, OSError) as error:
        return _fail(say, NO_RUNTIME, error)
    say(walls=[*walls, *sandbox.close_door(request["memory_bytes"])])
    try:
        try_release(slots, request["health"], say)
        say(done=True)
        return 0
    except MemoryError as error:
        return _fail(say, "memory", error)
    except LoadError as error:
        return _fail(say, "does-not-load", error)
    except Exception as error:  # a runtime's errors have many types
        return _fail(say, "memory" if "alloc" in str(error).lower() else "does-not-load", error)


def _fail(say: Teller, reason: str, error: Exception) -> int:
    text = (str(error).splitlines() or [""])[0][:200]
    say(failure=reason, message=f"{type(error).__name__}: {text}")
    return 1


def preload(request: dict[str, Any]) -> list[Slot]:
    """Check the slots, the new one first, and import what runs them, before the door is closed."""
    slots = [Slot(Path(request[name])) for name in ("new", "old") if request[name]]
    for slot in slots:
        slot.import_runtime()
    return slots


def try_release(slots: list[Slot], health: dict[str, Any], say: Teller) -> None:
    """Every question in turn; what was measured is told after each, so that a crash does not lose it."""
    measured = dict[str, Any](inferences=0)
    new = Loaded(slots[0])
    shape, steps, top1 = new.against_golden()
    measured |= {"shape_is_right": shape, "finite": steps is not None, "steps": steps, "top1": top1}
    say(measured=measured)
    if not shape or steps is None:
        return
    if not soak(new, health["soak_inferences"], measured, say):
        return
    race(new, Loaded(slots[1]) if len(slots) > 1 else None, health, measured)
    say(measured=measured)


def soak(new: Loaded, inferences: int, measured: dict[str, Any], say: Teller) -> bool:
    """Real inferences; False at the first that is no answer. Notes the memory: its peak and its growth."""
    settled_at, begin_bytes = int(inferences * SETTLED_SHARE), memory_bytes("VmRSS")
    for index in range(inferences):
        if index == settled_at:
            begin_bytes = memory_bytes("VmRSS")
        measured["inferences"] = index + 1
        answer = new.run(index)
        if not new.is_finite(answer) or not new.has_shape(answer):
            measured |= {"finite": new.is_finite(answer), "shape_is_right": new.has_shape(answer)}
            say(measured=measured)
            return False
        if index % 1000 == 999:
            say(measured=measured)
    end_bytes = memory_bytes("VmRSS")
    if begin_bytes is not None and end_bytes is not None:
        measured["growth_bytes"] = max(0, end_bytes - begin_bytes)
    measured["peak_rss_bytes"] = memory_bytes("VmHWM")
    say(measured=measured)
    return True


def race(new: Loaded, old: Loaded | None, health: dict[str, Any], measured: dict[str, Any]) -> None:
    """Time new and old, an inference of each in turn; the best of ROUNDS is kept, and a good one ends it."""
    for _ in range(ROUNDS):
        found = one_race(new, old, health["latency_runs"])
        if found["median_us"] <= measured.get("median_us", float("inf")):
            measured |= found
        if old is None or (
            found["ratio_p10"] <= health["latency_ratio_p10"]
            and found["ratio_median"] <= health["latency_ratio_median"]
        ):
            measured |= found
            return


def one_race(new: Loaded, old: Loaded | None, runs: int) -> dict[str, float]:
    """`runs` of each; who begins alternates, so that a warming processor favours nobody."""
    times: dict[int, list[int]] = {0: [], 1: []}
    for index in range(WARM_UP + runs):
        pair = ((0, new), (1, old)) if index % 2 else ((1, old), (0, new))
        for side, each in pair:
            if each is not None:
                spent_ns = each.time_ns(index)
                times[side] += [spent_ns] if index >= WARM_UP else []
    found = {"median_us": statistics.median(times[0]) / 1000}
    if old is not None:
        tenths = [sorted(each)[len(each) // 10] for each in times.values()]
        middles = [statistics.median(each) for each in times.values()]
        found |= {"ratio_p10": tenths[0] / tenths[1], "ratio_median": middles[0] / middles[1]}
    return found
