"""Two trials of each fault over a real SSH server; the soak `device-faults` makes twenty."""

from __future__ import annotations

import pytest

from benchmarks.soaks.device_faults import FAULTS, device_faults
from tests.spine.test_soak_slices import commit_seed

pytestmark = pytest.mark.needs("sshd", "gcc")


def test_twice_each_fault() -> None:
    found = device_faults(commit_seed(), 2)
    assert found["failures"] == []
    assert all(counts["trials"] == 2 for counts in found["faults"].values())
    assert set(FAULTS) - set(found["faults"]) <= {"disk full"}  # which needs the right to mount
    assert sum(counts["stopped"] for counts in found["faults"].values()) >= len(FAULTS)  # they did hit
