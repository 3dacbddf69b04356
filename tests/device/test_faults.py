"""Two trials of each fault over a real SSH server, and of power cuts; the soaks make twenty of each."""

from __future__ import annotations

import pytest

from benchmarks.soaks.device_faults import FAULTS, device_faults
from benchmarks.soaks.pi_faults import pi_faults
from tests.spine.test_soak_slices import commit_seed


@pytest.mark.needs("sshd", "gcc")
def test_twice_each_fault() -> None:
    found = device_faults(commit_seed(), 2)
    assert found["failures"] == []
    assert all(counts["trials"] == 2 for counts in found["faults"].values())
    assert set(FAULTS) - set(found["faults"]) <= {"disk full"}  # which needs the right to mount
    assert sum(counts["stopped"] for counts in found["faults"].values()) >= len(FAULTS)  # they did hit


@pytest.mark.needs("pi-sim")
def test_twice_the_power_of_a_virtual_pi() -> None:
    found = pi_faults(commit_seed(), 2, only=("power cut",))
    assert found["failures"] == [] and found["faults"]["power cut"]["trials"] == 2
