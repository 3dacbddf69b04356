"""The whole way on the userland trixie (Python 3.13): provision, deploy, choose, power cut.

CI does this on bookworm (Python 3.11). Each round starts a bare machine, provisions it for real, deploys two
releases by turns and lets it choose a variant; then its power is cut, and what it runs is asked again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgekd.device.bench import bench_device
from edgekd.device.deploy import deploy
from edgekd.device.provisioning.provision import provision
from edgekd.device.transport import Transport
from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import CPUS, VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from tests.device.support import make_bundle

ROOT, PATIENT_S = "edgekd", 300.0
VARIANTS = {"float", "int8", "litert", "native"}


def one(pi: VirtualPi, bundle: Path) -> tuple[dict[str, Any], list[str]]:
    """What a round found, and what of it was not as it must be."""
    with pi.connect(PATIENT_S) as transport:
        told, again = provision(transport, ROOT), provision(transport, ROOT)
        release = deploy(transport, bundle, ROOT).release
        before = measured(transport)
    pi.cut_power()
    pi.power_on()
    with pi.connect(PATIENT_S) as transport:
        after = measured(transport)
        unchanged = deploy(transport, bundle, ROOT).unchanged
    wrong = {
        "its Python is not 3.13": not told.facts["python"].startswith("3.13."),
        "a second provisioning changed something": not again.unchanged,
        "a variant did not run or answered otherwise": {*before["instructions"]} != VARIANTS,
        "counts are not exact": differ(before["instructions"], after["instructions"]),
        "after the power cut it runs something else": after["release"] != release or not unchanged,
    }
    found = {"python": told.facts["python"], "libc": told.facts["libc"], "packages": list(told.packages)}
    return found | before, [text for text, is_so in wrong.items() if is_so]


def measured(transport: Transport) -> dict[str, Any]:
    """The release, its choice, and instructions by variant that runs and answers as the host."""
    record = bench_device(transport, ROOT, runs=10, again=True, quiet_s=900.0)
    rows = [
        row
        for row in record["selection"]["candidates"]
        if row["golden"] and row["golden"]["within_tolerance"]
    ]
    return {
        "release": record["device"]["release"],
        "chosen": record["selection"]["chosen"]["variant"],
        "instructions": {row["variant"]: row["instructions"] for row in rows},
    }


def differ(some: dict[str, float], others: dict[str, float]) -> bool:
    """Whether a count is off by more than a hundredth."""
    return any(abs(others.get(name, 0) - count) > 0.01 * count for name, count in some.items())


def pi_trixie(seed: int, count: int) -> dict[str, Any]:
    """`count` rounds on fresh machines."""
    image, rounds, failures = ensure_image("trixie"), [], []
    ensure_booted(image, CPUS[0])
    with tempfile.TemporaryDirectory() as text:
        for number in range(count):
            folder = Path(text) / str(number)
            bundle = make_bundle(
                folder, seed + number, samples=16, every_variant=True, architectures=("aarch64",)
            )
            began = time.monotonic()
            with VirtualPi.start(image, folder / "pi") as pi:
                found, wrong = one(pi, bundle)
            rounds.append(found | {"seconds": round(time.monotonic() - began, 1)})
            failures += [f"round {number}: {words}" for words in wrong]
            print(f"{number + 1}/{count}: {json.dumps(found)} {wrong}", file=sys.stderr, flush=True)
    return {"rounds": rounds, "failures": failures}
