"""Power cuts, refusing and lying disks under the agent's own code (tests/fleet/cuts.py tells a story)."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from benchmarks import soak
from edgekd.fleet.agent import durable, machine, slots
from edgekd.fleet.agent.disk import RealDisk
from edgekd.fleet.agent.fetch import fetch
from edgekd.fleet.agent.installer import Installer
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.agent.state import Candidate
from tests.fleet import cuts
from tests.fleet.cuts import SCENARIOS, Broken, Device, base, calls_of, release, scenario, source
from tests.fleet.torn_disk import PowerCut, TornDisk

CUTS = 10_000


def test_ten_thousand_cuts_break_nothing() -> None:
    seed = done = 0
    while done < CUTS:
        done += cuts.story(seed)
        seed += 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cut_at_every_call(name: str) -> None:
    told = scenario(name)
    for at in range(1, calls_of(name) + 1):
        disk = told.begins.copy()
        disk.cut_at = at
        with pytest.raises(PowerCut):
            told.visit(disk)
        for share in (0, 1):  # nothing of the cache had been written out, or all of it
            device = told.visit(disk.cut(_Fixed(share)))
            assert slots.current(device.disk) == told.ends_with
            assert slots.is_whole(device.disk, told.ends_with or "")


class _Fixed(cuts.random.Random):
    """Draws that keep nothing, or everything."""

    def __init__(self, share: int) -> None:
        super().__init__(0)
        self._share = share

    def choice(self, options: object) -> float:  # type: ignore[override]
        return float(self._share)

    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize("call", ["fsync", "fsync_dir"])
def test_a_disk_that_does_not_sync_is_found_out(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TornDisk, call, lambda disk, path: disk._count(path))
    with pytest.raises(Broken):
        for seed in range(400):
            cuts.story(seed)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refusal_at_every_call(name: str, number: int) -> None:
    """The run may fail; what serves stays whole, and the next run on a mended disk comes to the end."""
    told = scenario(name)
    for at in range(1, calls_of(name) + 1):
        disk = told.begins.copy()
        disk.refuse = {at: number}
        try:
            told.visit(disk)
        except OSError as error:
            assert error.errno == number
        disk.refuse = {}
        if name not in ("first", "damaged"):
            assert slots.current(disk) in told.may_serve
        device = told.visit(disk.copy())
        assert slots.current(device.disk) == told.ends_with, (at, device.installer.state)
        assert slots.is_whole(device.disk, told.ends_with or "")


@pytest.mark.parametrize("knob", ["full", "read_only"])
def test_a_disk_that_stays_full_or_read_only_goes_on_serving(knob: str) -> None:
    for at in range(1, calls_of("good") + 1):
        disk = base(1).copy()
        disk.cut_at = at
        with pytest.raises(PowerCut):
            scenario("good").visit(disk)
        disk = disk.cut(_Fixed(1))
        setattr(disk, knob, True)
        for _ in range(2):
            try:
                scenario("good").visit(disk)
            except OSError as error:
                assert error.errno in (errno.ENOSPC, errno.EROFS)
            assert slots.is_whole(disk, slots.current(disk) or "")


def test_the_same_code_over_files(tmp_path: Path) -> None:
    """A real directory goes through the same states as the disk in memory."""
    disk, memory = RealDisk(tmp_path), TornDisk()
    for number, passes in ((1, True), (2, True), (3, False)):
        made = release(number)
        for each in (disk, memory):
            verdict = machine.TrialPassed() if passes else machine.TrialFailed("golden")
            installer = Installer(each, lambda new, old, verdict=verdict: verdict, lambda: None)
            installer.start()
            fetch(each, made.sha256, made.note, made.wanted(), source(made))
            installer.handle(machine.Fetched(Candidate(made.sha256, number, "r", 1), 1))
    assert (tmp_path / "state.json").read_bytes() == memory.read("state.json")
    assert (tmp_path / "current" / "bundle" / "model").read_bytes() == release(2).files["bundle/model"]
    assert sorted(p.name for p in (tmp_path / "slots").iterdir()) == memory.names("slots")
    assert (tmp_path / "current" / "bundle" / "model").stat().st_mode & 0o777 == 0o444


def test_real_files_are_not_written_through_links(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    (tmp_path / "outside").write_bytes(b"mine")
    disk.symlink("outside", "state.json.new")
    durable.write_whole(disk, "state.json", b"new")
    assert (tmp_path / "outside").read_bytes() == b"mine" and disk.read("state.json") == b"new"
    disk.symlink("outside", "link")
    with pytest.raises(OSError, match="symbolic"):
        disk.append("link", b"x")


def test_a_state_file_that_was_damaged_is_taken_from_what_serves() -> None:
    disk = base(1, 2).copy()
    disk._file("state.json").data[60] ^= 1
    state = Device(disk).installer.state
    assert state.adopted and state.serves(release(2).sha256) and state.confirmed.release == 2


def test_a_fetch_goes_on_where_it_was_cut_and_takes_from_slots_what_they_have() -> None:
    made, disk = release(2), base(1).copy()
    asked: list[tuple[str, int]] = []

    def breaks(wanted, offset):  # type: ignore[no-untyped-def]
        asked.append((wanted.path, offset))
        yield next(source(made)(wanted, offset))
        raise Refused("unreachable", "the link was cut")

    with pytest.raises(Refused):
        fetch(disk, made.sha256, made.note, made.wanted(), breaks)
    assert fetch(disk, made.sha256, made.note, made.wanted(), source(made)) == 1300 - 700 + 500 + 40
    assert asked == [("bundle/model", 0)]  # and "labels" came from the slot of release 1


@pytest.mark.parametrize(("extra", "reason"), [(b"!", "too-long"), (None, "wrong-hash")])
def test_other_bytes_than_signed_never_reach_staging(extra: bytes | None, reason: str) -> None:
    made, disk = release(2), base(1).copy()

    def lies(wanted, offset):  # type: ignore[no-untyped-def]
        data = made.files[wanted.path][offset:]
        yield data + extra if extra else bytes(len(data))

    with pytest.raises(Refused) as refused:
        fetch(disk, made.sha256, made.note, made.wanted(), lies)
    assert refused.value.reason == reason
    assert disk.names("incoming") == [] and not slots.is_whole(disk, made.sha256)


def test_the_committed_soak_is_whole() -> None:
    found = json.loads((soak.RESULTS / "fleet-cuts.json").read_text())
    counts = found["result"]["counts"]
    assert found["seed"] is not None and len(found["commit"]) == 40
    assert found["count"] == counts["cuts"] >= 1_000_000 and counts["broken"] == 0
    assert found["result"]["failures"] == [] and found["result"]["scenarios"] == list(SCENARIOS)
