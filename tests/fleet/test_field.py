"""A slice of the soak `fleet-field`: real devices that pull from nginx, a good release and a bad one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import soak
from tests.fleet import field, native_models
from tests.fleet.made import MODEL

DEVICES = 3


@pytest.mark.needs("nginx", "sshd", "ssh", "ziglang")
def test_a_good_release_reaches_all_and_a_bad_one_stops_at_the_canary(
    fast_path: Path, native: dict[str, Mapping[str, bytes]]
) -> None:
    with field.running(fast_path, DEVICES, native) as found:
        good = found.sign("good")
        told = found.roll_out(good, 1, 300.0)
        assert (told["status"], told["confirmed"]) == ("finished", DEVICES), told
        mood = "crashes at the 1,000th input"
        told = found.roll_out(found.sign(mood), 1, 300.0)
        assert (told["status"], told["failed"], told["admitted"]) == ("paused", 1, 1), told
        said = found.reported()
        assert {each["release"] for each in said.values()} == {good} and len(said) == DEVICES
        (lost,) = told["lost_canaries"]
        assert said[lost]["reason"] == native_models.MOODS[mood]
        report = json.loads((found.reports / f"{lost}.json").read_bytes())  # it came by HTTP PUT
        assert report["models"][MODEL]["trial"]["seconds"] < 60


def test_the_committed_field_is_whole() -> None:
    found = json.loads((soak.RESULTS / "fleet-field.json").read_text())
    assert found["seed"] is not None and len(found["commit"]) >= 40
    result = found["result"]
    assert len(result["devices"]) == 8 and field.PI in result["devices"] and result["failures"] == []
    rows = {row["mood"]: row for row in result["rollouts"]}
    assert set(rows) == set(native_models.MOODS) and rows["good"]["waves"][-1] == 8
    for mood in native_models.BAD:
        assert rows[mood]["everybody_back"] and rows[mood]["lost"] <= 3
        assert rows[mood]["reasons"] == [native_models.MOODS[mood]] and rows[mood]["longest_trial_s"] < 60
