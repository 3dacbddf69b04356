"""Attacks on one device, each refused with its reason while the device keeps what serves (docs/fleet.md).

The repositories are the operator's own code's; the attacker changes what the host says, has the stolen online
key, or sits on the line. `TestDevice.refused` holds that what serves is whole and the same after each.
"""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile

from edgekd.fleet import formats, pair, payload
from edgekd.fleet.agent import machine
from tests.fleet.hosts import IMPATIENT, Host, TestDevice, memory_folder, serving
from tests.fleet.made import CONTENTS, HARDWARE, MODEL, Fleet, make_release, now

DAY_S = 86_400
ROLLOUT, RELEASES = formats.ROLLOUT_METADATA, formats.RELEASES_METADATA
WAVE = formats.wave_path(MODEL, HARDWARE)


class Stage:
    """A fleet with release 1 on a device, release 2 signed, and the host in between."""

    def __init__(self, folder: Path, host: Host, fleet: Fleet) -> None:
        self.host, self.fleet, self.folder = host, fleet, folder
        fleet.release(1)
        fleet.release(2, CONTENTS | {"bundle/int8.onnx": b"the second"})
        fleet.choose(1)
        self.device = TestDevice(folder / "device", fleet)
        assert self.device.refused(host.url) == "" and self.device.release == 1
        self.device.clock.ahead_s = 700  # past the least time between two installations

    def read(self, place: str, name: str) -> Metadata[Any]:
        """A file of metadata."""
        return Metadata.from_bytes((self.fleet.host / place / name).read_bytes())

    def forge(
        self, place: str, name: str, edit: Callable[[Any], None], signers: list[CryptoSigner], to: str = ""
    ) -> None:
        """Change metadata on the host, signed by `signers`."""
        md = self.read(place, name)
        edit(md.signed)
        md.signatures.clear()
        for signer in signers:
            md.sign(signer, append=True)
        (self.fleet.host / place / (to or name)).write_bytes(md.to_bytes())

    def newest(self, role: str, place: str = ROLLOUT) -> str:
        """The file of a role's newest version."""
        paths = (self.fleet.host / place).glob(f"*.{role}.json")
        return max(paths, key=lambda path: int(path.name.split(".")[0])).name

    def steal(self, edit: Callable[[dict[str, TargetFile]], None], days: int = 7, ahead_s: int = 0) -> None:
        """What a thief of the online key signs: any change of rollout's targets, with any expiry."""
        made = self.fleet.pair(now() + timedelta(seconds=ahead_s))
        made.rollout.days = dict.fromkeys(made.rollout.days, days)
        with made.rollout.edit_targets() as targets:
            edit(targets.targets)
        made.rollout.refresh()
        made.rollout.sign(self.fleet.online)
        made.rollout.publish()

    def choose_raw(self, **values: Any) -> Callable[[dict[str, TargetFile]], None]:
        """An edit that names release 2 whatever the operator's code would say to it."""
        found = pair.releases_of(self.fleet.pair().releases, MODEL).get(2)

        def edit(targets: dict[str, TargetFile]) -> None:
            wave = formats.dump(formats.parse_wave(targets[WAVE].custom, MODEL, HARDWARE))
            hardware = values.get("hardware", HARDWARE)
            path = formats.wave_path(MODEL, hardware)
            signed = values.pop("target", None) or (found and found[1]) or targets[WAVE]
            targets[path] = TargetFile(signed.length, dict(signed.hashes), path)
            changed = wave | {"release": 2, "rollout": "stolen"} | values
            targets[path].unrecognized_fields["custom"] = changed

        return edit


@pytest.fixture(scope="module")
def template() -> Iterator[Stage]:
    """The stage, set once; each test gets a copy."""
    with memory_folder() as folder, serving(folder / "host") as host:
        yield Stage(folder, host, Fleet(folder / "host"))


@contextmanager
def copied(template: Stage) -> Iterator[Stage]:
    """A stage of its own, as the template was."""
    with memory_folder() as folder:
        shutil.copytree(template.folder, folder, dirs_exist_ok=True, symlinks=True)
        made = copy.copy(template)
        made.fleet, made.device = copy.copy(template.fleet), copy.deepcopy(template.device)
        made.folder, made.fleet.host = folder, folder / "host"
        made.device.root, made.device.fleet = folder / "device", made.fleet
        with serving(folder / "host") as made.host:
            yield made


@pytest.fixture
def stage(template: Stage) -> Iterator[Stage]:
    with copied(template) as made:
        yield made


# ---- what the host says ---------------------------------------------------------------------------------


def other_key(stage: Stage) -> None:
    thief = CryptoSigner.generate_ed25519()
    stage.forge(ROLLOUT, "timestamp.json", lambda signed: _next(signed), [thief])


def too_few_signatures(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.forge(RELEASES, "1.root.json", _next, stage.fleet.root[:1], to="2.root.json")


def one_key_twice(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.forge(RELEASES, "1.root.json", _next, stage.fleet.root[:1], to="2.root.json")
    path = stage.fleet.host / RELEASES / "2.root.json"
    table = json.loads(path.read_text())
    table["signatures"].append({**table["signatures"][0], "keyid": stage.fleet.root[1].public_key.keyid})
    path.write_text(json.dumps(table))


def timestamp_rolled_back(stage: Stage) -> None:
    kept = (stage.fleet.host / ROLLOUT / "timestamp.json").read_bytes()
    stage.fleet.choose(2)
    stage.device.verdict = machine.TrialFailed("wrong-answers")
    stage.device.visit(stage.host.url)
    (stage.fleet.host / ROLLOUT / "timestamp.json").write_bytes(kept)


def snapshot_rolled_back(stage: Stage) -> None:
    def edit(signed: Any) -> None:
        _next(signed)
        signed.snapshot_meta.version -= 1

    stage.forge(ROLLOUT, "timestamp.json", edit, stage.fleet.online)


def _snapshot(stage: Stage, edit: Callable[[Any], None]) -> None:
    """A next snapshot and timestamp, properly signed, the snapshot changed."""
    name = stage.newest("snapshot")
    version = int(name.split(".")[0]) + 1

    def both(signed: Any) -> None:
        _next(signed)
        edit(signed)

    def named(signed: Any) -> None:
        _next(signed)
        signed.snapshot_meta.version = version

    stage.forge(ROLLOUT, name, both, stage.fleet.online, to=f"{version}.snapshot.json")
    stage.forge(ROLLOUT, "timestamp.json", named, stage.fleet.online)


def targets_rolled_back(stage: Stage) -> None:
    _snapshot(stage, lambda signed: setattr(signed.meta["targets.json"], "version", 1))


def targets_removed(stage: Stage) -> None:
    _snapshot(stage, lambda signed: signed.meta.pop("targets.json"))


def releases_rolled_back(stage: Stage) -> None:
    kept = (stage.fleet.host / RELEASES / "timestamp.json").read_bytes()
    stage.fleet.floor(2)
    stage.fleet.choose(2, ppm=0)
    stage.device.visit(stage.host.url)  # has seen the floor
    (stage.fleet.host / RELEASES / "timestamp.json").write_bytes(kept)
    stage.fleet.choose(2, releases_version=1)


def releases_held_back(stage: Stage) -> None:
    stage.steal(stage.choose_raw(releases_version=999))


def mixed(stage: Stage) -> None:
    old = (stage.fleet.host / ROLLOUT / stage.newest("snapshot")).read_bytes()
    stage.fleet.choose(2)
    (stage.fleet.host / ROLLOUT / stage.newest("snapshot")).write_bytes(old)


def other_version_than_the_url(stage: Stage) -> None:
    old = (stage.fleet.host / ROLLOUT / stage.newest("targets")).read_bytes()
    stage.fleet.choose(2)
    (stage.fleet.host / ROLLOUT / stage.newest("targets")).write_bytes(old)


def expired(stage: Stage) -> None:
    stage.fleet.choose(2, at=now() - timedelta(days=8))


def frozen(stage: Stage) -> None:
    stage.device.clock.ahead_s = 8 * DAY_S  # the host says what it said a week ago


def root_expired(stage: Stage) -> None:
    stage.fleet.choose(2, at=now() + timedelta(days=399))
    stage.device.clock.ahead_s = 400 * DAY_S


def other_payload(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.change = lambda path, data: b"THE SECOND" if path.endswith("int8.onnx") else data


def other_release_file(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.change = lambda path, data: (
        data.replace(b"int8.onnx", b"evil.onnx") if path.endswith(".2.json") else data
    )


def payload_missing(stage: Stage) -> None:
    wave = stage.fleet.choose(2)
    release = make_release(wave.release, CONTENTS | {"bundle/int8.onnx": b"the second"})
    entry = release.files["bundle/int8.onnx"]
    payload.place(stage.fleet.host, formats.payload_path(MODEL, "int8.onnx"), entry.sha256).unlink()


def malformed(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.change = lambda path, data: data[: len(data) // 2] if path.endswith("snapshot.json") else data


def captive_portal(stage: Stage) -> None:
    stage.host.everything = b"<html><body>Please log in</body></html>"


def bomb(stage: Stage) -> None:
    stage.host.everything = gzip.compress(bytes(1 << 20))


def deep_nesting(stage: Stage) -> None:
    stage.host.everything = b"[" * 10_000


def nothing_there(stage: Stage) -> None:
    (stage.fleet.host / ROLLOUT / "timestamp.json").unlink()


def breaks_off(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.cut_after = 100


def endless(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.endless = True


def slow(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.host.drip_s = 0.01
    stage.device.patience = IMPATIENT


def nobody_listens(stage: Stage) -> None:
    stage.host.server_close()
    stage.host.shutdown()


# ---- what a stolen online key signs ---------------------------------------------------------------------


def unsigned_bytes(stage: Stage) -> None:
    stage.steal(stage.choose_raw(target=TargetFile.from_data("x", b"evil")))


def unsigned_release(stage: Stage) -> None:
    stage.steal(stage.choose_raw(release=77))


def wrong_hardware(stage: Stage) -> None:
    stage.device.root.joinpath("agent.toml").write_text(
        'device = "pi-1"\nhardware = "rpi5"\nmodels = ["digits"]\nclock = "system"\n'
    )
    stage.steal(stage.choose_raw(hardware="rpi5"))


def below_floor(stage: Stage) -> None:
    stage.fleet.release(3, CONTENTS | {"bundle/int8.onnx": b"the third"})
    stage.fleet.floor(3)
    stage.steal(stage.choose_raw())


def expiry_far_ahead(stage: Stage) -> None:
    stage.steal(stage.choose_raw(), days=15)


def signed_far_ahead(stage: Stage) -> None:
    stage.steal(stage.choose_raw(), ahead_s=15 * DAY_S)


def no_wave_at_all(stage: Stage) -> None:
    stage.steal(lambda targets: targets[WAVE].unrecognized_fields.update(custom="everybody"))


def too_soon(stage: Stage) -> None:
    stage.device.clock.ahead_s = 0
    stage.steal(stage.choose_raw())


# ---- what an operator's mistake, or an offline key, signs -----------------------------------------------


def bigger_than_the_slot(stage: Stage) -> None:
    made = stage.fleet.pair()
    pair.set_model_policy(made, formats.ModelPolicy(formats.SCHEMA, MODEL, slot_bytes=10))
    made.releases.refresh()
    stage.fleet.publish(made)
    stage.fleet.choose(2)


def path_traversal(stage: Stage) -> None:
    """A release file with a path upwards, properly signed by the offline keys."""
    good = formats.dump_bytes(make_release(3)).replace(b'"bundle/bundle.json"', b'"../../bundle.json"')
    made = stage.fleet.pair()
    note = make_release(3).note
    where = formats.release_path(MODEL, 3)
    with made.releases.edit_targets(formats.model_role(MODEL)) as targets:
        targets.targets[where] = TargetFile.from_data(where, good)
        targets.targets[where].unrecognized_fields["custom"] = formats.dump(note)
    payload.put(stage.fleet.host, where, good)
    made.releases.refresh()
    stage.fleet.publish(made)
    stage.fleet.choose(3)


def note_says_other_things(stage: Stage) -> None:
    where = formats.release_path(MODEL, 2)
    made = stage.fleet.pair()
    with made.releases.edit_targets(formats.model_role(MODEL)) as targets:
        custom = targets.targets[where].custom | {"payload_bytes": 1}
        targets.targets[where].unrecognized_fields["custom"] = custom
    made.releases.refresh()
    stage.fleet.publish(made)
    stage.fleet.choose(2)


# ---- the device's own trouble ---------------------------------------------------------------------------


def clock_not_set(stage: Stage) -> None:
    stage.device.clock.is_set = False
    stage.fleet.choose(2)


def reverted_before(stage: Stage) -> None:
    stage.fleet.choose(2)
    stage.device.verdict = machine.TrialFailed("wrong-answers")
    stage.device.visit(stage.host.url)
    stage.fleet.choose(2, ppm=999_999)
    stage.device.clock.ahead_s += 700


def root_lost(stage: Stage) -> None:
    (stage.device.root / "roots" / "rollout.json").unlink()


ATTACKS: tuple[tuple[Callable[[Stage], None], str], ...] = (
    (other_key, "bad-signature"),
    (too_few_signatures, "bad-signature"),
    (one_key_twice, "bad-signature"),
    (timestamp_rolled_back, "rolled-back"),
    (snapshot_rolled_back, "rolled-back"),
    (targets_rolled_back, "rolled-back"),
    (targets_removed, "rolled-back"),
    (releases_rolled_back, "rolled-back"),
    (releases_held_back, "mix-and-match"),
    (mixed, "mix-and-match"),
    (other_version_than_the_url, "mix-and-match"),
    (expired, "expired"),
    (frozen, "expired"),
    (root_expired, "expired"),
    (other_payload, "wrong-hash"),
    (other_release_file, "wrong-hash"),
    (payload_missing, "not-found"),
    (malformed, "malformed"),
    (captive_portal, "malformed"),
    (bomb, "malformed"),
    (deep_nesting, "malformed"),
    (nothing_there, "not-found"),
    (breaks_off, "unreachable"),
    (endless, "too-long"),
    (slow, "too-slow"),
    (nobody_listens, "unreachable"),
    (unsigned_bytes, "unsigned"),
    (unsigned_release, "unsigned"),
    (wrong_hardware, "wrong-hardware"),
    (below_floor, "below-floor"),
    (expiry_far_ahead, "too-far-ahead"),
    (signed_far_ahead, "too-far-ahead"),
    (no_wave_at_all, "malformed"),
    (too_soon, "too-soon"),
    (bigger_than_the_slot, "too-big"),
    (path_traversal, "malformed"),
    (note_says_other_things, "mix-and-match"),
    (clock_not_set, "no-clock"),
    (reverted_before, "quarantined"),
    (root_lost, "not-set-up"),
)


def _next(signed: Any) -> None:
    signed.version += 1


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_an_attack_is_refused_by_name(stage: Stage, attack: Callable[[Stage], None], reason: str) -> None:
    attack(stage)
    assert stage.device.refused(stage.host.url) == reason
    assert stage.device.release == 1
