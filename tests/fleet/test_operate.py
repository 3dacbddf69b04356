"""Rollouts as a person runs them: a real fleet folder, real signatures, devices that read what is signed."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgekd import api_rollouts
from edgekd.api_fleet import open_fleet
from edgekd.errors import ArtifactError, RolloutError
from edgekd.fleet import choosing, devices, formats, keys
from edgekd.fleet.home import open_home
from edgekd.fleet.log import EventLog
from edgekd.fleet.operate import Mailbox, reported
from tests.fleet.test_releasing import BOARD, MODEL, ask, released

pytestmark = [pytest.mark.needs("ssh")]
COUNT = 12


@dataclass
class Device:
    """Reads the signed wave, takes the release it names, says so in a signed report. fails: on release 2."""

    name: str
    folder: Path
    fleet: Path
    fails: bool = False
    runs: int = 1
    sequence: int = 0
    quarantined: tuple[dict[str, Any], ...] = ()

    def key(self) -> str:
        path = self.folder / self.name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
        return " ".join(path.with_suffix(".pub").read_text().split()[:2])

    def visit(self) -> None:
        for wave in choosing.current(open_fleet(self.fleet), MODEL):
            if wave.state == "running" and formats.in_wave(wave, self.name):
                self._take(wave)
        self.report()

    def _take(self, wave: formats.Wave) -> None:
        tried = any(q["rollout"] == wave.rollout and q["attempt"] >= wave.attempt for q in self.quarantined)
        if wave.release == self.runs or tried:
            return
        if self.fails and wave.release == 2:
            entry = {
                "release": 2,
                "rollout": wave.rollout,
                "attempt": wave.attempt,
                "reason": "golden-differs",
            }
            self.quarantined = (*self.quarantined, entry)
        else:
            self.runs = wave.release

    def report(self, **changes: Any) -> None:
        self.sequence += 1
        said = {"release": self.runs, "candidate": None, "quarantined": list(self.quarantined)}
        report = {
            "device": self.name,
            "sequence": self.sequence,
            "at": self.sequence,
            "models": {MODEL: said},
        }
        self.put(json.dumps(report | changes).encode())

    def put(self, data: bytes) -> None:
        box = self.fleet / "reports"
        box.mkdir(exist_ok=True)
        file = box / f"{self.name}.json"
        file.write_bytes(data)
        file.with_suffix(".json.sig").unlink(missing_ok=True)
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.folder / self.name), "-n", "edgekd-report"]
        subprocess.run([*sign, str(file)], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet with two releases and twelve enrolled devices."""
    folder = tmp_path_factory.mktemp("begun")
    keys.init(folder / "fleet", "plant", datetime.now(UTC), ask, rounds=1)
    released(open_home(folder / "fleet", datetime.now(UTC)), 2)
    (folder / "keys").mkdir()
    for i in range(COUNT):
        device = Device(f"pi-{i}", folder / "keys", folder / "fleet")
        devices.add(folder / "fleet", device.name, devices.Enrolled(device.key(), BOARD, (MODEL,), 1))
    return folder


@dataclass
class Scene:
    where: api_rollouts.Place
    devices: list[Device]

    def start(self, **wish: Any) -> str:
        made = api_rollouts.draft(self.where, MODEL, 2, **({"canaries": 3} | wish))
        api_rollouts.start(self.where, made, ask)
        return made.plan.rollout

    def look(self) -> dict[str, Any]:
        for device in self.devices:
            device.visit()
        return api_rollouts.watch(self.where, "", ask, once=True)

    def run(self, looks: int = 12) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(looks):
            found = self.look()
            if found["status"] in ("finished", "stopped", "paused"):
                break
        return found


@pytest.fixture
def scene(begun: Path, tmp_path: Path) -> Scene:
    shutil.copytree(begun, tmp_path / "all")
    place = api_rollouts.place(tmp_path / "all" / "fleet")
    made = [Device(f"pi-{i}", tmp_path / "all" / "keys", tmp_path / "all" / "fleet") for i in range(COUNT)]
    return Scene(place, made)


def test_the_plan_says_what_would_happen_and_writes_nothing(scene: Scene) -> None:
    told = api_rollouts.draft(scene.where, MODEL, 2, canaries=3).told()
    assert (told["devices"], told["hardware"], len(told["canaries"])) == (COUNT, [BOARD], 3)
    assert [wave["allowed"] for wave in told["waves"]] == [3, 6, 12]
    assert told["bytes_in_all"] == COUNT * told["bytes_a_device"] > 0 and told["least_failures_to_stop"] == 3
    assert not (scene.where.folder / api_rollouts.DATABASE).exists()
    assert choosing.current(open_fleet(scene.where.folder), MODEL) == []


def test_a_good_release_reaches_all_in_waves(scene: Scene) -> None:
    name = scene.start()
    found = scene.run()
    assert found["status"] == "finished" and {device.runs for device in scene.devices} == {2}
    told = [event for event in api_rollouts.events(scene.where, name) if event["kind"] == "widened"]
    assert [event["allowed"] for event in told] == [6, 12]
    (wave,) = choosing.current(open_fleet(scene.where.folder), MODEL)
    assert (wave.ppm, wave.state, wave.rollout) == (1_000_000, "running", name)


def test_a_bad_release_stops_at_the_canaries_and_can_be_recalled(scene: Scene) -> None:
    for device in scene.devices:
        device.fails = True
    name = scene.start()
    found = scene.run()
    assert found["status"] == "stopped" and "stopped after 3 of 3: evidence" in found["why"]
    assert {device.runs for device in scene.devices} == {1}
    (wave,) = choosing.current(open_fleet(scene.where.folder), MODEL)
    assert wave.state == "paused"
    done = api_rollouts.recall(scene.where, name, 1, "the old one again", ask)
    assert done["status"] == "recalled" and done["lacking"] == []
    (wave,) = choosing.current(open_fleet(scene.where.folder), MODEL)
    assert (wave.release, wave.ppm, wave.state) == (1, 1_000_000, "running")


def test_a_lost_canary_pauses_until_a_person_resumes(scene: Scene) -> None:
    name = scene.start()
    first = EventLog(scene.where.database).plan(name).devices[0]
    next(device for device in scene.devices if device.name == first).fails = True
    found = scene.run()
    assert found["status"] == "paused" and found["lost_canaries"] == [first]
    assert choosing.current(open_fleet(scene.where.folder), MODEL)[0].state == "paused"
    assert api_rollouts.resume(scene.where, name, "its card was worn", ask)["status"] == "running"
    assert scene.run()["status"] == "finished"
    assert sum(device.runs == 2 for device in scene.devices) == COUNT - 1
    by = {event["by"] for event in api_rollouts.events(scene.where, name) if event["kind"] == "resumed"}
    assert by == {scene.where.by}


def test_a_person_pauses_and_nobody_else_starts(scene: Scene) -> None:
    name = scene.start()
    scene.look()
    assert api_rollouts.pause(scene.where, name, "", ask)["status"] == "paused"
    before = [device.runs for device in scene.devices]
    for _ in range(3):
        assert scene.look()["status"] == "paused"
    assert [device.runs for device in scene.devices] == before


def test_afresh_tries_the_failed_again_at_a_higher_attempt(scene: Scene) -> None:
    name = scene.start()
    canaries = EventLog(scene.where.database).plan(name).devices[:1]
    unlucky = next(device for device in scene.devices if device.name == canaries[0])
    unlucky.fails = True
    assert scene.run()["status"] == "paused"
    unlucky.fails = False
    assert api_rollouts.resume(scene.where, name, "the network", ask, afresh=True)["attempt"] == 2
    assert scene.run()["status"] == "finished" and {device.runs for device in scene.devices} == {2}


def mailbox(scene: Scene) -> Mailbox:
    return Mailbox(scene.where.reports, devices.enrolled(scene.where.folder))


def test_forged_damaged_replayed_and_flooding_reports_are_passed_over(scene: Scene) -> None:
    one, two, three, four, five = scene.devices[:5]
    for device in scene.devices[:5]:
        device.report()
    box = mailbox(scene)
    assert [report["device"] for report in box.fresh()] == ["pi-0", "pi-1", "pi-2", "pi-3", "pi-4"]
    assert list(box.fresh()) == []
    file = scene.where.reports / f"{one.name}.json"
    file.write_bytes(file.read_bytes().replace(b'"release": 1', b'"release": 2'))  # forged
    two.put(b"{not json")
    three.sequence = 0
    three.report()  # an old number again
    four.report(device=five.name)  # signed by four, of five
    five.put(b" " * (1 << 21))
    assert list(box.fresh()) == []
    assert box.refused == {
        "not signed by its device": 1,
        "damaged": 1,
        "replayed": 1,
        "of another device": 1,
        "too large": 1,
    }
    for _ in range(50):
        one.report()  # a flood is one file
    assert len(list(box.fresh())) == 1


def test_what_a_report_says_of_a_rollout(scene: Scene) -> None:
    plan = api_rollouts.draft(scene.where, MODEL, 2, canaries=3).plan

    def word(**said: Any) -> list[str]:
        model = {"release": 1, "candidate": None, "quarantined": []} | said
        report = {"device": "pi-0", "at": 5, "models": {MODEL: model}}
        return [each.word for each in reported(plan, 2, [report])]

    bad = {"release": 2, "rollout": plan.rollout, "attempt": 2, "reason": "leaks"}
    assert word() == ["well"] and word(reason="crashes, and nothing to go back to") == ["unwell"]
    assert word(release=2) == ["confirmed"] and word(candidate="ab") == ["began"]
    assert word(quarantined=[bad]) == ["failed"] and word(quarantined=[bad | {"attempt": 1}]) == ["well"]
    assert word(quarantined=[bad | {"rollout": "another"}], release=2) == ["confirmed"]
    assert list(reported(plan, 1, [{"device": "pi-0", "at": 5, "models": {}}])) == []


@pytest.mark.parametrize(
    ("release", "wish", "said"),
    [
        (2, {"devices": "device=nobody*"}, "none of the 0 devices named is enrolled"),
        (2, {"canaries": 12}, "all 12 devices would go at once"),
        (9, {}, "release 9 is not signed; signed are 1, 2"),
    ],
    ids=["nobody", "everybody", "unsigned"],
)
def test_a_rollout_that_cannot_be_is_refused(
    scene: Scene, release: int, wish: dict[str, Any], said: str
) -> None:
    with pytest.raises(RolloutError, match=said):
        api_rollouts.draft(scene.where, MODEL, release, **({"canaries": 3} | wish))
    assert not (scene.where.folder / api_rollouts.DATABASE).exists()


def test_everybody_at_once_goes_when_it_is_said(scene: Scene) -> None:
    scene.start(canaries=12, all_at_once=True)
    assert scene.run(2)["status"] == "finished"


def test_other_hardware_and_a_changed_release_file_are_refused(scene: Scene) -> None:
    key = devices.enrolled(scene.where.folder)["pi-0"].public_key
    devices.add(scene.where.folder, "pi-0", devices.Enrolled(key, "other-board", (MODEL,), 1))
    with pytest.raises(RolloutError, match=f"is signed for {BOARD}, not for other-board"):
        api_rollouts.draft(scene.where, MODEL, 2, canaries=3)
    devices.add(scene.where.folder, "pi-0", devices.Enrolled(key, BOARD, (MODEL,), 1))
    file = next((scene.where.folder / "host/releases/targets" / MODEL).glob("*.2.json"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="is not the file that was signed"):
        api_rollouts.draft(scene.where, MODEL, 2, canaries=3)


def test_two_rollouts_of_one_model_and_no_rollout_are_refused(scene: Scene) -> None:
    with pytest.raises(RolloutError, match="which rollout"):
        api_rollouts.watch(scene.where, "", ask, once=True)
    scene.start()
    with pytest.raises(RolloutError, match="another one that has not ended"):
        scene.start()


def test_devices_that_are_pushed_to_report_by_the_session(scene: Scene) -> None:
    """No mailbox: what push gives is what counts, and a device that is away says nothing."""
    scene.start()

    def push() -> list[dict[str, Any]]:
        for device in scene.devices:
            device.visit()
        files = [scene.where.reports / f"{device.name}.json" for device in scene.devices]
        found = [json.loads(file.read_bytes()) for file in files]
        shutil.rmtree(scene.where.reports)
        return found

    for _ in range(4):
        found = api_rollouts.watch(scene.where, "", ask, once=True, push=push)
        if found["status"] == "finished":
            break
    assert found["status"] == "finished" and {device.runs for device in scene.devices} == {2}
