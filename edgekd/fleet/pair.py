"""The two repositories of a fleet: `releases`, signed offline, and `rollout`, signed by the online key.

Here is what each says at its beginning, how a release enters the one, and how the other chooses it for
devices. Nothing here signs or publishes: `StaticRepository.sign` and `.publish` do, so the same functions
serve a person with a key file and a machine with a KMS.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from edgekd.errors import ArtifactError, ConfigError, RolloutError
from edgekd.fleet import formats
from edgekd.fleet.formats import Base, FleetPolicy, ModelPolicy, Release, ReleaseNote, Wave
from edgekd.fleet.repository import StaticRepository

ROOT_DAYS, OFFLINE_DAYS, ONLINE_DAYS = 365, 180, 7


@dataclass(frozen=True)
class Duties:
    """Who signs what: the public keys of the offline root, of the offline targets, and the online key."""

    root: Sequence[Key]
    targets: Sequence[Key]
    online: Sequence[Key]
    root_threshold: int = 2


@dataclass
class Pair:
    """Both repositories below one folder, opened to be edited at the time `now` (aware, UTC)."""

    folder: Path
    now: datetime
    online_days: int = ONLINE_DAYS

    def __post_init__(self) -> None:
        offline = {"root": ROOT_DAYS, "targets": OFFLINE_DAYS, "snapshot": OFFLINE_DAYS}
        online = {"targets": self.online_days, "snapshot": self.online_days, "timestamp": self.online_days}
        place = self.folder / formats.RELEASES_METADATA
        self.releases = StaticRepository(place, now=self.now, days=offline | {"timestamp": OFFLINE_DAYS})
        place = self.folder / formats.ROLLOUT_METADATA
        self.rollout = StaticRepository(place, now=self.now, days={"root": ROOT_DAYS} | online)


def begin(pair: Pair, duties: Duties, policy: FleetPolicy) -> None:
    """First versions of every role of both repositories, pending. ConfigError where a fleet is there."""
    if pair.releases.version("root") or pair.rollout.version("root"):
        raise ConfigError(f"{pair.folder}: a fleet is there already; take another folder")
    for repository, signer in ((pair.releases, duties.targets), (pair.rollout, duties.online)):
        with repository.edit_root() as root:
            root.consistent_snapshot = True
            root.roles["root"].threshold = duties.root_threshold
            for key in duties.root:
                root.add_key(key, "root")
            for role in ("targets", "snapshot", "timestamp"):
                for key in signer:
                    root.add_key(key, role)
        with repository.edit_targets():
            pass
    set_fleet_policy(pair, policy)
    pair.releases.refresh()
    pair.rollout.refresh()


def set_fleet_policy(pair: Pair, policy: FleetPolicy) -> None:
    """Put `fleet.json` into `releases`."""
    formats.checked(policy, formats.FLEET_POLICY)
    with pair.releases.edit_targets() as targets:
        targets.targets[formats.FLEET_POLICY] = _target(formats.FLEET_POLICY, policy)


def set_model_policy(pair: Pair, policy: ModelPolicy) -> None:
    """Put `MODEL/policy.json` into `releases`, with a role of the model's own where it is new.

    Raises RolloutError where the floor would sink, or would rise above what `rollout` chooses now.
    """
    formats.checked(policy, formats.policy_path(policy.model))
    role = formats.model_role(policy.model)
    if role not in pair.releases.delegated():
        _delegate(pair.releases, policy.model)
    old = model_policy(pair.releases, policy.model)
    if old and policy.min_release < old.min_release:
        raise RolloutError(
            f"{policy.model}: the floor is release {old.min_release}, and no device lowers the one that it "
            f"has seen; name {old.min_release} or a later release"
        )
    with pair.releases.edit_targets(role) as targets:
        path = formats.policy_path(policy.model)
        targets.targets[path] = _target(path, policy)


def model_policy(releases: StaticRepository, model: str) -> ModelPolicy | None:
    """The model's policy as it will be; None for a model that has none yet."""
    role = formats.model_role(model)
    if role not in releases.delegated():
        return None
    found = releases.targets(role).targets.get(formats.policy_path(model))
    return formats.parse_model_policy(found.custom, model) if found else None


def releases_of(releases: StaticRepository, model: str) -> dict[int, tuple[ReleaseNote, TargetFile]]:
    """The model's live releases by number, as they will be."""
    role = formats.model_role(model)
    targets = releases.targets(role).targets if role in releases.delegated() else {}
    numbers = {path: path.rpartition("/")[2].removesuffix(".json") for path in targets}
    return {
        int(number): (formats.parse_note(targets[path].custom, model, int(number)), targets[path])
        for path, number in numbers.items()
        if number.isdigit()
    }


def add_release(pair: Pair, release: Release) -> bytes:
    """Put a release into `releases` (pending) and return the bytes of its file, which are to be published.

    Raises RolloutError where its number is not above all before it, is below the floor, or its payload is
    larger than the slot.
    """
    where = formats.release_path(release.model, release.release)
    formats.check_release(formats.checked(release, where))
    policy = model_policy(pair.releases, release.model)
    if policy is None:
        raise RolloutError(f"{release.model}: no policy is set for this model; set its floor and slot first")
    newest = max(releases_of(pair.releases, release.model), default=0)
    if release.release <= newest:
        raise RolloutError(f"{where}: release {newest} is there already; take number {newest + 1}")
    if release.release < policy.min_release:
        raise RolloutError(f"{where}: below the floor, which is release {policy.min_release}")
    if release.payload_bytes > policy.slot_bytes:
        raise RolloutError(
            f"{where}: {release.payload_bytes:,} bytes, and a slot has {policy.slot_bytes:,}; "
            f"make the release smaller, or the slot larger"
        )
    data = formats.dump_bytes(release)
    with pair.releases.edit_targets(formats.model_role(release.model)) as targets:
        targets.targets[where] = TargetFile.from_data(where, data)
        targets.targets[where].unrecognized_fields["custom"] = formats.dump(release.note)
    return data


def withdraw(pair: Pair, model: str, release: int) -> None:
    """Take a release out of `releases`: no device accepts it any more."""
    if release not in releases_of(pair.releases, model):
        raise RolloutError(f"{model}: there is no release {release} to withdraw")
    with pair.releases.edit_targets(formats.model_role(model)) as targets:
        del targets.targets[formats.release_path(model, release)]


def set_wave(pair: Pair, wave: Wave) -> None:
    """Choose a release for one hardware (pending in `rollout`). Raises RolloutError as `chosen` does."""
    path = formats.wave_path(wave.model, wave.hardware)
    formats.checked(wave, path)
    _choose(pair, path, wave.model, wave.hardware, wave.release, formats.dump(wave))


def set_base(pair: Pair, base: Base) -> None:
    """What a device without a release installs (pending in `rollout`)."""
    path = formats.base_path(base.model, base.hardware)
    formats.checked(base, path)
    _choose(pair, path, base.model, base.hardware, base.release, formats.dump(base))


def waves(rollout: StaticRepository) -> list[Wave]:
    """Every wave as it will be."""
    found = []
    for path, target in rollout.targets().targets.items():
        kind, model, hardware = path.split("/")
        if kind == "wave":
            found.append(formats.parse_wave(target.custom, model, hardware))
    return found


def choices(rollout: StaticRepository) -> list[tuple[str, str, int]]:
    """Model, hardware and release of every wave and base as it will be."""
    found = []
    for path, target in rollout.targets().targets.items():
        kind, model, hardware = path.split("/")
        read = formats.parse_wave if kind == "wave" else formats.parse_base
        found.append((model, hardware, read(target.custom, model, hardware).release))
    return found


def new_salt() -> str:
    """A salt of a new rollout, from the system's random source: 32 hex digits."""
    return secrets.token_hex(16)


def marks(salt: str, devices: Iterable[str]) -> tuple[str, ...]:
    """The canary marks of devices, sorted, so that their order says nothing."""
    return tuple(sorted({formats.wave_mark(salt, device) for device in devices}))


def _choose(pair: Pair, path: str, model: str, hardware: str, release: int, custom: object) -> None:
    signed = chosen(pair.releases, model, hardware, release)
    with pair.rollout.edit_targets() as targets:
        targets.targets[path] = TargetFile(signed.length, dict(signed.hashes), path)
        targets.targets[path].unrecognized_fields["custom"] = custom


def chosen(releases: StaticRepository, model: str, hardware: str, release: int) -> TargetFile:
    """The signed target of a release that may run on `hardware` now.

    Raises RolloutError for a release that `releases` does not have, for other hardware, or below the floor.
    """
    found = releases_of(releases, model)
    if release not in found:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise RolloutError(f"{model}: release {release} is not signed; signed are {known}")
    note, target = found[release]
    if hardware not in note.hardware:
        raise RolloutError(
            f"{model}: release {release} is signed for {', '.join(note.hardware)}, not for {hardware}"
        )
    policy = model_policy(releases, model)
    if policy and release < policy.min_release:
        raise RolloutError(f"{model}: release {release} is below the floor, release {policy.min_release}")
    return target


def _delegate(releases: StaticRepository, model: str) -> None:
    """A role for one model, signed by the keys of `targets`."""
    root = releases.root()
    keyids = list(root.roles["targets"].keyids)
    role = formats.model_role(model)
    with releases.edit_targets() as targets:
        if targets.delegations is None:
            targets.delegations = Delegations({}, {})
        if targets.delegations.roles is None:
            raise ArtifactError(f"{releases.folder}: its targets delegate to hash bins; edgekd has none")
        threshold = root.roles["targets"].threshold
        targets.delegations.roles[role] = DelegatedRole(role, keyids, threshold, True, [f"{model}/*"])
        targets.delegations.keys.update({keyid: root.keys[keyid] for keyid in keyids})
    with releases.edit_targets(role):
        pass


def _target(path: str, value: object) -> TargetFile:
    """A target whose custom is `value`; its bytes are the same as JSON, and nobody needs to fetch them."""
    data = formats.dump_bytes(value)
    return TargetFile(
        len(data),
        {"sha256": hashlib.sha256(data).hexdigest()},
        path,
        unrecognized_fields={"custom": formats.dump(value)},
    )
