"""A virtual Pi that was provisioned: its runtimes run, and it chooses by exact counts of instructions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.device.bench import bench_device
from edgekd.device.deploy import deploy
from edgekd.device.provisioning.examine import examine_device
from edgekd.device.provisioning.provision import provision
from edgekd.device.virtual.machine import VirtualPi
from tests.device.support import make_bundle

pytestmark = pytest.mark.needs("pi-sim", "ziglang", "onnxruntime", "ai-edge-litert")


def test_a_second_provisioning_sends_nothing_and_the_doctor_is_content(provisioned_pi: VirtualPi) -> None:
    with provisioned_pi.connect() as transport:
        told = provision(transport, "edgekd")
    assert told.unchanged and told.uploaded_bytes == 0 and told.runtimes == ("onnxruntime", "litert")
    rows = {row["check"]: row for row in examine_device(provisioned_pi.connect, "edgekd")}
    assert rows["runtime"]["state"] == rows["clock"]["state"] == "ok", rows
    assert told.environment in rows["runtime"]["found"] and "onnxruntime 1." in rows["runtime"]["found"]


def test_it_keeps_the_variant_of_least_instructions(provisioned_pi: VirtualPi, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, 1, samples=16, every_variant=True, architectures=("aarch64", "armv7"))
    with provisioned_pi.connect() as transport:
        deploy(transport, bundle, "edgekd")
        record = bench_device(transport, "edgekd", runs=10)
    selection = record["selection"]
    rows = {row["variant"]: row for row in selection["candidates"]}
    assert record["emulated"] and selection["ranked_by"] == "instructions"
    assert set(rows) == {"float", "int8", "litert", "native"}
    for row in rows.values():
        assert row["golden"]["within_tolerance"] and row["failure"] is None, row
        assert row["instructions"] > 10_000 and row["instructions_noise"] < 0.02, row
    least = min(rows.values(), key=lambda row: row["instructions"])
    assert selection["chosen"]["variant"] == least["variant"] == record["variant"]["variant"]
    native = rows["native"]
    assert native["golden"]["exact"] and native["golden"]["max_difference_steps"] == 0
    assert native["rss_rise_bytes"] < rows["float"]["rss_rise_bytes"] / 4  # no runtime is loaded for it
    assert record["instructions"]["counted_samples"] == 5
