"""Whoever has stolen the online key: each of his moves, on a copy of the host, against a copy of a device.

He may also have the network, so the copy is his to change at will. Every move says what a device answers:
most are refused; what he can do is to choose among signed releases, at or above the floor that the device
has seen, and to hold devices where they are. `keys.drill` tries them all; docs/fleet.md explains them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile

from edgekd.fleet import formats, pair, payload
from edgekd.fleet.drill_fleet import HARDWARE, MODEL, Device, Time, contents_of, release_of, wave_of
from edgekd.fleet.formats import ModelPolicy
from edgekd.fleet.repository import StaticRepository


@dataclass
class Thief:
    """The stolen key, a copy of the host to lie with, and a copy of it from before the floor was raised."""

    host: Path
    before: Path
    key: Signer
    time: Time

    def open(self) -> pair.Pair:
        """Both repositories of his copy."""
        return pair.Pair(self.host, self.time.at)

    def force(self, repository: StaticRepository) -> None:
        """Sign whatever is pending with the stolen key, whoever should sign it, and put it on the host."""
        for md in repository.pending.values():
            md.sign(self.key, append=True)
        repository.write()

    def choose(self, number: int, **changes: object) -> None:
        """Choose a release as an operator would, without the operator's checks."""
        made = self.open()
        signed = pair.releases_of(made.releases, MODEL)[number][1]
        self._put(made, signed, number, **changes)

    def _put(self, made: pair.Pair, signed: TargetFile, number: int, **changes: object) -> None:
        path = formats.wave_path(MODEL, HARDWARE)
        wave = replace(wave_of(made, number, 1), **changes)  # type: ignore[arg-type]
        with made.rollout.edit_targets() as targets:
            targets.targets[path] = TargetFile(signed.length, dict(signed.hashes), path)
            targets.targets[path].unrecognized_fields["custom"] = formats.dump(wave)
        made.rollout.refresh()
        self.force(made.rollout)


def own_release(thief: Thief) -> None:
    """A release of his own in `releases`, signed with the stolen key."""
    made, contents = thief.open(), contents_of(666)
    release = release_of(90, HARDWARE, contents)
    payload.put_release(thief.host, release, pair.add_release(made, release), contents)
    made.releases.refresh()
    thief.force(made.releases)
    thief.choose(90)


def own_bytes(thief: Thief) -> None:
    """Bytes of his own under a signed release's number."""
    data = formats.dump_bytes(release_of(3, HARDWARE, contents_of(666)))
    path = formats.release_path(MODEL, 3)
    payload.put(thief.host, path, data)
    made = thief.open()
    thief._put(made, TargetFile.from_data(path, data), 3)


def own_payload(thief: Thief) -> None:
    """Other bytes of the same length in the place of a signed file."""
    thief.choose(2)
    made = release_of(2, HARDWARE, contents_of(2)).files["bundle/model.onnx"]
    place = payload.place(thief.host, formats.payload_path(MODEL, "bundle/model.onnx"), made.sha256)
    place.write_bytes(b"x" * made.size_bytes)


def other_hardware(thief: Thief) -> None:
    """A release that is signed for other hardware."""
    thief.choose(4)


def below_floor(thief: Thief) -> None:
    """A signed release below the floor."""
    thief.choose(1)


def lower_floor(thief: Thief) -> None:
    """A lower floor, signed with the stolen key."""
    made = thief.open()
    role = formats.model_role(MODEL)
    path = formats.policy_path(MODEL)
    with made.releases.edit_targets(role) as targets:
        targets.targets[path].unrecognized_fields["custom"] = formats.dump(ModelPolicy(1, MODEL))
    made.releases.refresh()
    thief.force(made.releases)
    thief.choose(1)


def old_releases(thief: Thief) -> None:
    """`releases` as it was before the floor was raised, and a release below the floor."""
    _restore(thief, formats.RELEASES_METADATA)
    thief.choose(1)


def old_rollout(thief: Thief) -> None:
    """`rollout` as it was, signatures and all."""
    _restore(thief, formats.ROLLOUT_METADATA)


def _restore(thief: Thief, place: str) -> None:
    shutil.rmtree(thief.host / place)
    shutil.copytree(thief.before / place, thief.host / place)


def own_root(thief: Thief) -> None:
    """A root of his own, with the stolen key for every role."""
    made = thief.open()
    with made.rollout.edit_root() as root:
        for keyid in list(root.roles["root"].keyids):
            root.revoke_key(keyid, "root")
        root.roles["root"].threshold = 1
        root.add_key(thief.key.public_key, "root")
    made.rollout.refresh()
    thief.force(made.rollout)


def far_expiry(thief: Thief) -> None:
    """An expiry 300 days ahead, to freeze the fleet unseen."""
    made = pair.Pair(thief.host, thief.time.at, online_days=300)
    made.rollout.touch("targets")
    made.rollout.refresh()
    thief.force(made.rollout)


def choose_older(thief: Thief) -> None:
    """An older signed release at the floor: the limit of what he can do."""
    thief.choose(2)


def hold(thief: Thief) -> None:
    """Pause everything: nothing new is installed, what serves goes on."""
    thief.choose(3, state="paused")


def freeze(thief: Thief) -> None:
    """Sign nothing more and keep the operator's files away: until the last expiry."""
    thief.time.at += timedelta(days=8)


def fast_forward(thief: Thief) -> None:
    """A version so high that the operator's next one looks old: until the key is replaced."""
    made = thief.open()
    made.rollout.touch("timestamp")
    made.rollout.pending["timestamp"].signed.version = 1_000_000
    for md in made.rollout.pending.values():
        md.sign(thief.key, append=True)
    made.rollout.write()


@dataclass(frozen=True)
class Move:
    """One move, and what a device that runs release 3, with the floor at 2, answers."""

    play: Callable[[Thief], None]
    answer: str


MOVES = (
    Move(own_release, "refuses: bad-signature, runs 3"),
    Move(own_bytes, "refuses: unsigned, runs 3"),
    Move(own_payload, "refuses: wrong-hash, runs 3"),
    Move(other_hardware, "refuses: wrong-hardware, runs 3"),
    Move(below_floor, "refuses: below-floor, runs 3"),
    Move(lower_floor, "refuses: bad-signature, runs 3"),
    Move(old_releases, "refuses: rolled-back, runs 3"),
    Move(old_rollout, "refuses: rolled-back, runs 3"),
    Move(own_root, "refuses: bad-signature, runs 3"),
    Move(far_expiry, "refuses: too-far-ahead, runs 3"),
    Move(choose_older, "runs 2"),
    Move(hold, "runs 3"),
    Move(freeze, "refuses: expired, runs 3"),
    Move(fast_forward, "runs 3"),
)


def play(move: Move, device: Device, host: Path, before: Path, key: Signer, scratch: Path) -> str:
    """One move against a copy of the device, on a copy of the host; what the device answers."""
    copy, time = scratch / "host", Time(device.time.at)
    shutil.copytree(host, copy)
    thief = Thief(copy, before, key, time)
    move.play(thief)
    time.at += timedelta(hours=1)
    twin = device.twin(scratch / "device")
    twin.time = time
    return twin.visit(copy)
