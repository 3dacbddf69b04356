"""Checks that take too long for CI: run by `./bootstrap soak NAME`, results kept under benchmarks/results/.

A result names its seed, its count, the commit and the machine. CI runs a slice of each soak whose seed
comes from the commit (tests/spine/test_soak_slices.py). The soaks themselves: benchmarks/soaks/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.soaks.agreement import agreement
from benchmarks.soaks.device_faults import device_faults
from benchmarks.soaks.fleet_cuts import fleet_cuts
from benchmarks.soaks.fleet_field import fleet_field
from benchmarks.soaks.graphs import graphs, histogram
from benchmarks.soaks.mutations import mutations
from benchmarks.soaks.pi_faults import pi_faults
from benchmarks.soaks.pi_trixie import pi_trixie
from benchmarks.soaks.places import RESULTS, ROOT
from benchmarks.soaks.rollouts import rollouts

SOAKS: dict[str, tuple[Callable[..., dict[str, Any]], int]] = {
    "agreement": (agreement, 1000),
    "fleet-cuts": (fleet_cuts, 1_000_000),
    "device-faults": (device_faults, 20),
    "graphs": (graphs, 1000),
    "fleet-field": (fleet_field, 1),
    "fleet-gate": (rollouts, 1000),
    "mutations": (mutations, 200_000),
    "pi-faults": (pi_faults, 20),
    "pi-trixie": (pi_trixie, 3),
}
IN_MINUTES = ("mutations", "fleet-cuts")


def machine() -> dict[str, Any]:
    """What the soak ran on."""
    return {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}


def commit() -> str:
    """The commit that is checked out, with + where the tree differs from it."""
    ask = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        [*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    )
    return found + ("+" if changed.stdout.strip() else "")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description="long checks; results under benchmarks/results/"
    )
    parser.add_argument("name", choices=sorted(SOAKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--minutes", type=float, help="of mutations, fleet-cuts: stop after so long")
    chosen = parser.parse_args(arguments)
    work, count = SOAKS[chosen.name][0], chosen.count or SOAKS[chosen.name][1]
    began = time.monotonic()
    if chosen.minutes and chosen.name not in IN_MINUTES:
        parser.error(f"--minutes is for the soaks {' and '.join(IN_MINUTES)}; leave it out")
    result = work(chosen.seed, count, **({"minutes": chosen.minutes} if chosen.minutes else {}))
    counts = result.get("counts", {})
    count = counts.get("files", counts.get("cuts", counts.get("rollouts", count)))  # what ran
    record = {
        "soak": chosen.name,
        "seed": chosen.seed,
        "count": count,
        "commit": commit(),
        "machine": machine(),
        "minutes": round((time.monotonic() - began) / 60, 2),
        "result": result,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    (RESULTS / f"{chosen.name}.json").write_text(text)
    print(text)
    print("\n".join(histogram(result.get("hits", {}))), file=sys.stderr)
    return 0 if result.get("differing_bytes", 0) == 0 and not result.get("failures") else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
