"""A rollout to 100,000 devices through the event log, and its replay, on SQLite and PostgreSQL.

    python benchmarks/rollout_replay.py [--devices 100000] [--out benchmarks/results/rollout-replay.json]

Every device begins and answers (0.5 % fail), in looks of up to 2,000 reports, by the watcher's own functions.
Measured, each database in a process of its own: writing it all, the size on disk, a new watcher's replay of
the whole log, one look of 2,000 reports behind that, one decision, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import sqlalchemy as sa

from edgekd.doctor import find_program
from edgekd.fleet.gate import Limits
from edgekd.fleet.log import EventLog, Follower
from edgekd.fleet.rollout import Event, Plan, Rollout, ordered
from edgekd.fleet.watch import Report, answers
from tests.fleet.postgres import server

LOOK, FAILING, CANARIES = 2000, 0.005, 10
SALT = "5a" * 16


def plan(devices: int) -> Plan:
    order = ordered(SALT, (f"device-{number:07d}" for number in range(devices)))
    return Plan("digits-2", "digits", 2, SALT, order, Limits.of(0.01, devices, CANARIES), 3600.0)


def looks(state: Rollout, rng: np.random.Generator) -> Iterator[list[Report]]:
    """What the devices of a wave say, in looks: each begins, and in the next one has answered."""
    fresh = [each for each in state.plan.devices[: state.allowed] if state.ledger.outcome(each) is None]
    for begin in range(0, len(fresh), LOOK):
        part = fresh[begin : begin + LOOK]
        bad = rng.random(len(part)) < FAILING
        yield [Report(device, "began", 1.0) for device in part]
        yield [
            Report(device, "failed" if lost else "confirmed", 2.0)
            for device, lost in zip(part, bad, strict=True)
        ]


def write_all(url: str, devices: int) -> tuple[float, int, list[float]]:
    """Seconds, events, and seconds of each look with its decision; a person resumes what pauses."""
    log = EventLog(url)
    log.create(plan(devices), "ana", 0.0)
    log.append("digits-2", 0, [Event("started", 0.0, "ana")])
    follower, rng = Follower(log, "digits-2"), np.random.default_rng(1)
    began, taken = time.perf_counter(), []
    while follower.rollout.status not in ("finished", "stopped"):
        for reports in looks(follower.rollout, rng):
            begin = time.perf_counter()
            one_look(follower, reports, 1.0 + len(taken))
            taken.append(time.perf_counter() - begin)
    return time.perf_counter() - began, follower.last, taken


def one_look(follower: Follower, reports: list[Report], now_s: float) -> None:
    """What Watcher.step does with a look's reports; and the person who resumes."""
    follower.write(lambda state: answers(state, reports, now_s))
    while follower.write(lambda state: state.decide(now_s)):
        pass
    if follower.rollout.status == "paused":
        lost = follower.rollout.lost_canaries
        follower.write(lambda _: [Event("resumed", now_s, "ana", lost)])
        follower.write(lambda state: state.decide(now_s))


def size_bytes(url: str) -> int:
    """Of the database on the disk."""
    if "://" not in url:
        return sum(path.stat().st_size for path in Path(url).parent.glob(Path(url).name + "*"))
    with sa.create_engine(url).connect() as connection:
        tables = "('rollouts', 'events', 'leases')"
        query = f"select sum(pg_total_relation_size(c.oid)) from pg_class c where relname in {tables}"
        return int(connection.scalar(sa.text(query)))


def replay(url: str) -> dict[str, Any]:
    """A new watcher takes over: its replay, a look that says nothing new, one decision, its memory."""
    begin = time.perf_counter()
    follower = Follower(EventLog(url), "digits-2")
    replayed_s = time.perf_counter() - begin
    state = follower.rollout
    again = [Report(device, "confirmed", 9.0) for device in state.plan.devices[:LOOK]]
    begin = time.perf_counter()
    answers(state, again, 9.0)
    look_s, times = time.perf_counter() - begin, []
    for _ in range(200):
        begin = time.perf_counter()
        state.verdict(10.0)
        times.append(time.perf_counter() - begin)
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    ledger = state.ledger
    return {
        "replay_s": round(replayed_s, 2),
        "look_of_2000_ms": round(1e3 * look_s, 1),
        "decision_ms": round(1e3 * statistics.median(times), 3),
        "peak_rss_bytes": peak,
        "status": state.status,
        "confirmed": ledger.confirmed,
        "failed": ledger.failed,
    }


def in_process(work: Any, *arguments: Any) -> Any:
    """The result of a call in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def measured(url: str, devices: int) -> dict[str, Any]:
    written_s, events, taken = in_process(write_all, url, devices)
    return {
        "events": events,
        "write_all_s": round(written_s, 2),
        "look_and_decision_ms": {
            "median": round(1e3 * statistics.median(taken), 1),
            "most": round(1e3 * max(taken), 1),
        },
        "size_bytes": size_bytes(url),
        **in_process(replay, url),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="a large rollout through the event log")
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    record: dict[str, Any] = {"devices": chosen.devices, "failing": FAILING, "machine": machine}
    with tempfile.TemporaryDirectory() as folder:
        record["sqlite"] = measured(str(Path(folder) / "rollouts.db"), chosen.devices)
    if find_program("postgres"):
        with server() as url:
            record["postgresql"] = measured(url, chosen.devices)
    text = json.dumps(record, indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
