"""Visits of one device to a static host: who takes part, what it costs, and the way back from an attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from edgekd.fleet import formats
from edgekd.fleet.agent import config, machine
from edgekd.fleet.agent.fetchers import FolderFetcher
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.agent.visit import Hands, Visit, locked
from tests.fleet.hosts import Host, TestDevice, serving
from tests.fleet.made import CONTENTS, MODEL, Fleet

SECOND = CONTENTS | {"bundle/int8.onnx": b"the second"}
POLL_BYTES = 400
DAY_S = 86_400


@pytest.fixture
def fleet(fast_path: Path) -> Fleet:
    made = Fleet(fast_path / "host")
    made.release(1)
    return made


@pytest.fixture
def host(fast_path: Path, fleet: Fleet) -> Iterator[Host]:
    with serving(fast_path / "host") as running:
        yield running


@pytest.fixture
def device(fast_path: Path, fleet: Fleet) -> TestDevice:
    return TestDevice(fast_path / "device", fleet)


def test_a_poll_that_finds_nothing_is_one_small_request(fleet: Fleet, host: Host, device: TestDevice) -> None:
    fleet.choose(1)
    device.visit(host.url)
    before = {path: path.stat().st_mtime_ns for path in device.root.rglob("*") if path.is_file()}
    host.requests.clear()
    found = device.visit(host.url)
    assert found.outcome == {MODEL: "unchanged"} and host.requests == ["rollout/metadata/timestamp.json"]
    assert 0 < found.received_bytes <= POLL_BYTES
    after = {path: path.stat().st_mtime_ns for path in device.root.rglob("*") if path.is_file()}
    assert after == before  # nothing was written: a card lives longer


def test_waves_bases_pauses_and_recalls(fleet: Fleet, host: Host, device: TestDevice) -> None:
    fleet.release(2, SECOND)
    fleet.choose(2, ppm=0)
    assert device.visit(host.url).outcome == {MODEL: "not-in-wave"} and device.release is None
    fleet.base(1)
    assert device.visit(host.url).outcome == {MODEL: "confirmed"} and device.release == 1
    device.clock.ahead_s = 700
    fleet.choose(2, ppm=0, devices=("pi-1",), state="paused")
    assert device.visit(host.url).outcome == {MODEL: "paused"}
    fleet.choose(2, ppm=0, devices=("pi-1",))
    assert device.visit(host.url).outcome == {MODEL: "confirmed"} and device.release == 2
    fleet.choose(2, ppm=0, devices=("pi-1",), state="paused")
    assert device.visit(host.url).outcome == {MODEL: "up-to-date"}
    device.clock.ahead_s += 700
    fleet.choose(1)  # a recall is a newer choice of an older release
    host.requests.clear()
    assert device.visit(host.url).outcome == {MODEL: "confirmed"} and device.release == 1
    assert not [path for path in host.requests if "onnx" in path]  # its slot was still there


def test_a_reverted_release_is_tried_again_at_a_new_attempt(
    fleet: Fleet, host: Host, device: TestDevice
) -> None:
    fleet.choose(1)
    device.verdict = machine.TrialFailed("too-slow")
    assert device.visit(host.url).outcome == {MODEL: "reverted"}
    device.clock.ahead_s, device.verdict = 700, machine.TrialPassed()
    fleet.choose(1, ppm=999_999)
    assert device.refused(host.url) == "quarantined"
    fleet.choose(1, attempt=2)
    assert device.visit(host.url).outcome == {MODEL: "confirmed"} and len(device.trials) == 2


def test_a_trial_put_off_is_taken_up_at_the_next_visit(fleet: Fleet, host: Host, device: TestDevice) -> None:
    fleet.choose(1)
    device.verdict = machine.TrialDisturbed("throttled")
    device.visit(host.url)
    assert len(device.trials) == machine.MOST_DISTURBED and device.release is None
    device.verdict = machine.TrialPassed()
    device.visit(host.url)
    assert device.release == 1


def test_fast_forward_is_undone_by_new_keys(fleet: Fleet, host: Host, device: TestDevice) -> None:
    """A thief raises the version so far that no honest one follows; a rotation brings the device back."""
    fleet.choose(1)
    device.visit(host.url)
    made = fleet.pair()
    with made.rollout.edit_targets():
        pass
    made.rollout.refresh()
    made.rollout.pending["timestamp"].signed.version = 1_000_000
    made.rollout.sign(fleet.online)
    path = fleet.host / formats.ROLLOUT_METADATA / "timestamp.json"
    honest = path.read_bytes()
    for role in ("targets", "snapshot", "timestamp"):
        md = made.rollout.pending[role]
        name = "timestamp.json" if role == "timestamp" else f"{md.signed.version}.{role}.json"
        (path.parent / name).write_bytes(md.to_bytes())
    assert device.refused(host.url) == ""  # the thief may: it is the online key
    path.write_bytes(honest)
    assert device.refused(host.url) == "rolled-back"
    stolen, fleet.online = fleet.online, [CryptoSigner.generate_ed25519()]
    made = fleet.pair()
    with made.rollout.edit_root() as root:
        for role in ("targets", "snapshot", "timestamp"):
            root.revoke_key(stolen[0].public_key.keyid, role)
            root.add_key(fleet.online[0].public_key, role)
    with made.rollout.edit_targets():
        pass
    made.rollout.refresh()
    fleet.publish(made, fleet.root[:2])
    assert device.refused(host.url) == ""
    fleet.release(2, SECOND)
    fleet.choose(2)
    device.clock.ahead_s = 700
    assert device.visit(host.url).outcome == {MODEL: "confirmed"} and device.release == 2


def test_the_same_folder_on_a_stick(fleet: Fleet, device: TestDevice) -> None:
    fleet.choose(1)
    hands = Hands(device.clock, lambda model: device._trial, device._restart)
    visit = Visit(device.root, config.read(device.root), hands)
    assert visit.run(FolderFetcher(fleet.host), FolderFetcher.BASE).outcome == {MODEL: "confirmed"}
    outside = FolderFetcher(fleet.host / "rollout")
    with pytest.raises(Exception, match="no such file"):
        next(outside._fetch("folder:/../releases/metadata/1.root.json"))


@pytest.mark.parametrize("ahead_s", [-50 * 365 * DAY_S, -DAY_S, 3 * DAY_S])
def test_a_clock_that_is_wrong_within_reason_changes_nothing(
    fleet: Fleet, host: Host, device: TestDevice, ahead_s: int
) -> None:
    fleet.choose(1)
    device.clock.ahead_s = ahead_s
    assert device.refused(host.url) == "" and device.release == 1


def test_a_download_that_was_cut_goes_on(fleet: Fleet, host: Host, device: TestDevice) -> None:
    fleet.release(2, CONTENTS | {"bundle/int8.onnx": bytes(range(256)) * 400})
    fleet.choose(2)
    host.change = lambda path, data: data
    host.cut_after = 50_000
    assert device.refused(host.url) == "unreachable"
    host.cut_after = None
    host.requests.clear()
    found = device.visit(host.url)
    assert device.release == 2 and found.received_bytes < 256 * 400 - 50_000 + 20_000


def test_two_agents_at_once(device: TestDevice) -> None:
    with locked(device.root), pytest.raises(Refused) as refused, locked(device.root):
        pass
    assert refused.value.reason == "busy"
