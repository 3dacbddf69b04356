"""Whether this device installs what the two repositories say: pure functions of signed values and its state.

1. `choose`: the wave of this model and hardware, if the device is in it and it runs; else, for a device that
   has nothing yet, the base; else nothing.
2. `admit`: both repositories name the same hash and length; this hardware; not below the floor, the device's
   own memory of it included; fits a slot; not reverted here; not too soon after the last one. Or Refused.
3. `check_times`: nothing in `rollout` expires, or was signed, farther ahead than a device believes.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.fleet import formats
from edgekd.fleet.agent.clock import Now
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.agent.state import Candidate, State
from edgekd.fleet.formats import Base, FleetPolicy, ModelPolicy, Release, ReleaseNote, Wave

DAY_S = 86_400


@dataclass(frozen=True)
class Device:
    """Who asks: its id (what waves are drawn by) and its hardware."""

    id: str
    hardware: str


@dataclass(frozen=True)
class Target:
    """What a repository signs of a release's file."""

    sha256: str
    length_bytes: int


@dataclass(frozen=True)
class Choice:
    """What `rollout` wants on this device, at whose wish, and how new `releases` must be for it."""

    release: int
    target: Target
    rollout: str
    attempt: int
    releases_version: int

    @property
    def candidate(self) -> Candidate:
        """As the machine knows it."""
        return Candidate(self.target.sha256, self.release, self.rollout, self.attempt)


@dataclass(frozen=True)
class Chosen:
    """A Choice, or None and a word why: "no-wave", "not-in-wave", "paused"."""

    choice: Choice | None
    why: str = ""


def choose(
    device: Device,
    state: State,
    wave: tuple[Wave, Target] | None,
    base: tuple[Base, Target] | None,
) -> Chosen:
    """What `rollout` wants here."""
    why = "no-wave"
    if wave is not None:
        said, target = wave
        inside = formats.in_wave(said, device.id)
        if inside and (said.state == "running" or state.serves(target.sha256)):
            return Chosen(Choice(said.release, target, said.rollout, said.attempt, said.releases_version))
        why = "paused" if inside else "not-in-wave"
    if base is not None and state.confirmed is None:
        first, target = base
        return Chosen(Choice(first.release, target, "", 0, first.releases_version))
    return Chosen(None, why)


def admit(
    choice: Choice,
    signed: tuple[ReleaseNote, Target] | None,
    device: Device,
    state: State,
    fleet: FleetPolicy,
    policy: ModelPolicy,
    releases_version: int,
    now_s: int,
) -> Candidate:
    """The release as a candidate, or Refused with the first rule that it breaks.

    signed: what `releases` says of the chosen number, None for nothing; releases_version: of its timestamp.
    """
    name = f"release {choice.release} of {policy.model}"
    if releases_version < choice.releases_version:
        raise Refused(
            "mix-and-match",
            f"releases is at version {releases_version} and the rollout was made with "
            f"{choice.releases_version}; bring both to the host",
        )
    if signed is None or signed[1] != choice.target:
        raise Refused("unsigned", f"{name} is chosen by the rollout, and releases does not sign these bytes")
    note = signed[0]
    if note.kind != "linux" or device.hardware not in note.hardware:
        raise Refused("wrong-hardware", f"{name} is for {', '.join(note.hardware)}, not {device.hardware}")
    floor = max(policy.min_release, state.floor)
    if choice.release < floor:
        raise Refused("below-floor", f"{name} is below the floor, release {floor}")
    if note.payload_bytes > policy.slot_bytes:
        raise Refused("too-big", f"{name} has {note.payload_bytes} bytes and a slot {policy.slot_bytes}")
    _check_history(name, choice.candidate, state, fleet, now_s)
    return choice.candidate


def _check_history(name: str, candidate: Candidate, state: State, fleet: FleetPolicy, now_s: int) -> None:
    if state.is_quarantined(candidate):
        reason = state.quarantine[candidate.sha256].reason
        raise Refused("quarantined", f"{name} was reverted here ({reason}); a new attempt would try it again")
    if 0 <= now_s - state.installed_at_s < fleet.min_interval_s:
        left_s = fleet.min_interval_s - (now_s - state.installed_at_s)
        raise Refused("too-soon", f"{name} waits {left_s} s: the last installation is too short ago")


def check_release(release: Release, note: ReleaseNote) -> None:
    """Hold a release's file to what was signed of it beside its hash."""
    if release.note != note:
        raise Refused(
            "mix-and-match", f"the file of release {note.release} says other things than its signed note"
        )


def check_times(times: dict[str, tuple[int, int]], ahead_days: int, now: Now) -> None:
    """times: role of `rollout` -> when it expires and when it was signed (Unix seconds; 0: not said)."""
    ahead_s = ahead_days * DAY_S
    for role, (expires_s, at_s) in times.items():
        if expires_s > now.trusted_s(min(at_s, now.newest_believed_s)) + ahead_s:
            raise Refused(
                "too-far-ahead",
                f"the rollout's {role} expires more than {ahead_days} days ahead; no device believes that",
            )
        if at_s > now.newest_believed_s:
            raise Refused(
                "too-far-ahead",
                f"the rollout's {role} was signed more than 14 days ahead of this device's clock; "
                f"set the one that is wrong",
            )
