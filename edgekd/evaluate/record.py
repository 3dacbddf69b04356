"""The bench record: the public format (schema 1) in which every measurement leaves edgekd.

`new_record` has every key of the format; what was not measured stays None: never 0, never a guess.
FORMATS.md describes each key, and a test holds the two together.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.errors import ArtifactError

SCHEMA = 1

KEYS = (
    "schema",
    "target",
    "recipe",
    "model",
    "artifact",
    "split",
    "samples",
    "samples_on_device",
    "accuracy",
    "accuracy_source",
    "accuracy_float",
    "agreement",
    "bit_exact",
    "instructions",
    "estimated_cycles",
    "estimated_latency_us",
    "latency_us",
    "load_us",
    "flash_bytes",
    "ram_bytes",
    "peak_rss_bytes",
    "model_bytes",
    "device",
    "tools",
    "when",
)


# Keys of a model that gives its input again: there only where an area under the ROC curve was measured.
OF_AUTOENCODERS = ("auc", "auc_float")
# Keys of generated C on a microcontroller: there only on such records.
OF_CORES = ("memory_plan",)
# Keys of what ran on a Linux device: there only on its records, None for what was not measured.
OF_DEVICES = (
    "variant",
    "cold_start_us",
    "throughput_per_s",
    "rss_rise_bytes",
    "energy",
    "noise",
    "emulated",
    "conditions",
    "selection",
)


def new_record(**known: Any) -> dict[str, Any]:
    """A record with every key; those not given are None. Raises ArtifactError for a key of no meaning."""
    unknown = sorted(set(known) - {*KEYS, *OF_AUTOENCODERS, *OF_CORES, *OF_DEVICES})
    if unknown:
        raise ArtifactError(f"bench record: unknown key {unknown[0]}")
    further = {key: known[key] for key in (*OF_AUTOENCODERS, *OF_CORES) if key in known}
    if not known.keys().isdisjoint(OF_DEVICES):
        further |= {key: known.get(key) for key in OF_DEVICES}
    return {key: known.get(key) for key in KEYS} | further | {"schema": SCHEMA}


def spread(values: Sequence[int]) -> dict[str, float]:
    """Median, least and most of exact counts."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def parse_record(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check a record that was read from a file. Raises ArtifactError naming what is missing."""
    if value.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{where}: a bench record of schema {value.get('schema')!r}; this edgekd reads {SCHEMA}"
        )
    missing = sorted(set(KEYS) - set(value))
    if missing:
        raise ArtifactError(f"{where}: the bench record has no key {missing[0]}; run the bench again")
    return dict(value)
