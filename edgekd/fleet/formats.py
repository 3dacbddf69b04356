"""What the two signed repositories say, as frozen dataclasses: parse, check, dump; docs/formats/fleet.md.

Operator and device read the same bytes with this file, so it needs the standard library alone. Every `parse`
takes what JSON gives, signed or not, and returns a checked value or raises FormatError with one sentence. A
change of meaning raises SCHEMA, and a reader refuses a number that it does not know.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edgekd.fleet.fields import FormatError, checked, dump, dump_bytes, parse, rule

__all__ = ["FormatError", "checked", "dump", "dump_bytes"]  # of fields.py, for whoever reads formats

T = TypeVar("T")

SCHEMA = 1
NAME = r"[a-z0-9][a-z0-9_.-]{0,63}"  # a model, a hardware, a device, a rollout
SHA256 = r"[0-9a-f]{64}"
PATH = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,7}"  # inside a release, never upwards
LABEL = r"[^\x00-\x1f\x7f]{0,100}"
INTEGER_MAX = 2**53 - 1  # what every JSON reader keeps exact
PPM = 1_000_000
WAVE_TAG = b"edgekd-wave-1\x00"
MOST_CANARIES = 4096

# Places on the static host, below its root; both metadata folders are what TUF clients take as base URL.
RELEASES_METADATA, RELEASES_TARGETS = "releases/metadata", "releases/targets"
ROLLOUT_METADATA = "rollout/metadata"

# Names of signed targets.
FLEET_POLICY = "fleet.json"
KINDS = ("linux", "mcu")
STATES = ("running", "paused")

# How far ahead an expiry may lie that a device believes, in days.
MAX_AHEAD_DAYS = 14
MOST_AHEAD_DAYS = 30
OFFLINE_AHEAD_DAYS = 400
SIGNED_AT = "at"  # Unix seconds of signing: a field of every signed part, beside TUF's own


@dataclass(frozen=True)
class FleetPolicy:
    """Custom of the target `fleet.json` in `releases` (role targets): what holds for every device.

    max_ahead_days: an expiry in `rollout` farther ahead is refused; min_interval_s: least time between two
    installations of one model on one device.
    """

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    fleet: str = rule(pattern=NAME)
    max_ahead_days: int = rule(MAX_AHEAD_DAYS, minimum=1, maximum=MOST_AHEAD_DAYS)
    min_interval_s: int = rule(600, minimum=0, maximum=86_400)


@dataclass(frozen=True)
class ModelPolicy:
    """Custom of the target `MODEL/policy.json` in `releases` (role model-MODEL): what holds for one model.

    min_release: the floor; a device never runs, nor accepts, a smaller release number, and never lowers the
    floor that it has seen. slot_bytes: room that a device keeps for one release of it.
    """

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    model: str = rule(pattern=NAME)
    min_release: int = rule(1, minimum=1, maximum=INTEGER_MAX)
    slot_bytes: int = rule(64 << 20, minimum=1, maximum=INTEGER_MAX)


@dataclass(frozen=True)
class ReleaseNote:
    """Custom of the target `MODEL/NUMBER.json` in `releases`: what decides before anything is fetched."""

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    model: str = rule(pattern=NAME)
    release: int = rule(minimum=1, maximum=INTEGER_MAX)
    kind: str = rule(choices=KINDS)
    hardware: tuple[str, ...] = rule(pattern=NAME, most=64)
    payload_bytes: int = rule(minimum=1, maximum=INTEGER_MAX)
    label: str = rule("", pattern=LABEL)


@dataclass(frozen=True)
class FileEntry:
    """One file of a release. It lies at `releases/targets/MODEL/SHA256.BASENAME` on the host."""

    sha256: str = rule(pattern=SHA256)
    size_bytes: int = rule(minimum=0, maximum=INTEGER_MAX)


@dataclass(frozen=True)
class Health:
    """Limits that a release meets on a device before it is confirmed; None: no such limit.

    golden_top1: least share of golden vectors with the stored top class; golden_steps: allowed difference of
    an output in its quantization steps (0: bit-exact). latency_ratio_*: p10 and median of new over old, the
    two interleaved in one process, `latency_runs` each; max_latency_us: median, where there is no old one.
    max_peak_rss_bytes: of the trial's process; max_rss_growth_bytes: over the soak of `soak_inferences`
    inferences; trial_s: the whole trial, or it has failed.
    """

    golden_top1: float = rule(1.0, minimum=0, maximum=1)
    golden_steps: int = rule(2, minimum=0, maximum=255)
    latency_ratio_p10: float = rule(1.25, minimum=1, maximum=100)
    latency_ratio_median: float = rule(1.25, minimum=1, maximum=100)
    latency_runs: int = rule(200, minimum=10, maximum=100_000)
    max_latency_us: float | None = rule(None, minimum=1, maximum=1e9)
    max_peak_rss_bytes: int | None = rule(None, minimum=1 << 20, maximum=INTEGER_MAX)
    max_rss_growth_bytes: int | None = rule(16 << 20, minimum=0, maximum=INTEGER_MAX)
    soak_inferences: int = rule(2000, minimum=0, maximum=10_000_000)
    trial_s: float = rule(60.0, minimum=1, maximum=86_400)


@dataclass(frozen=True)
class Watch:
    """Limits after a release is confirmed: `max_crashes` crashes, or errors above `max_error_rate`, within
    `within_s` revert it; a population stability index above `psi_alarm` is an alarm and reverts nothing."""

    max_crashes: int = rule(3, minimum=1, maximum=1000)
    max_error_rate: float = rule(0.01, minimum=0, maximum=1)
    within_s: int = rule(3600, minimum=1, maximum=30 * 86_400)
    psi_alarm: float = rule(0.25, minimum=0, maximum=100)


HEALTH, WATCH = Health(), Watch()


@dataclass(frozen=True)
class MadeFrom:
    """The artifact in the operator's store that a release was made from."""

    stage: str = rule(pattern=NAME)
    key: str = rule(pattern=NAME)
    digest: str = rule(pattern=SHA256)


@dataclass(frozen=True)
class Release:
    """The file `MODEL/NUMBER.json`: all that a release is; both repositories sign its hash and length.

    files: every byte of the payload by its path; bundle: the folder among them that holds the Linux bundle,
    or the firmware; golden: the paths of the golden vectors; bench, bom: the bench record and the ML-BOM
    (CycloneDX); tolerated_failure_rate: p0 of the fleet's gate; made_from: the artifact in the store.
    """

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    model: str = rule(pattern=NAME)
    release: int = rule(minimum=1, maximum=INTEGER_MAX)
    kind: str = rule(choices=KINDS)
    hardware: tuple[str, ...] = rule(pattern=NAME, most=64)
    files: Mapping[str, FileEntry] = rule(pattern=PATH)
    bundle: str = rule(pattern=PATH)
    golden: tuple[str, ...] = rule(pattern=PATH, most=16)
    bench: str = rule(pattern=PATH)
    bom: str = rule(pattern=PATH)
    tolerated_failure_rate: float = rule(0.01, minimum=1e-6, maximum=0.5)
    health: Health = rule(HEALTH)
    watch: Watch = rule(WATCH)
    made_from: MadeFrom | None = rule(None)
    label: str = rule("", pattern=LABEL)

    @property
    def payload_bytes(self) -> int:
        """The sum of its files' sizes."""
        return sum(entry.size_bytes for entry in self.files.values())

    @property
    def note(self) -> ReleaseNote:
        """What the signed target's custom says of it; a device holds the two to each other."""
        same = (self.schema, self.model, self.release, self.kind, self.hardware)
        return ReleaseNote(*same, self.payload_bytes, self.label)


@dataclass(frozen=True)
class Wave:
    """Custom of the target `wave/MODEL/HARDWARE` in `rollout`: which release, for whom.

    The target's hash and length are those of `MODEL/NUMBER.json` in `releases`. rollout: its id; attempt: a
    device that reverted this release tries it again only at a higher number, or in another rollout. salt:
    32 hex digits; ppm: share of devices by `in_wave`; canaries: `wave_mark` of each device that takes part
    whatever ppm says. state "paused": who has it keeps it, nobody else starts. deadline_s: after that long
    without an answer an admitted device has failed. releases_version: least version of `releases`' timestamp
    that a device must have verified before it acts.
    """

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    rollout: str = rule(pattern=NAME)
    model: str = rule(pattern=NAME)
    hardware: str = rule(pattern=NAME)
    release: int = rule(minimum=1, maximum=INTEGER_MAX)
    salt: str = rule(pattern=r"[0-9a-f]{32}")
    ppm: int = rule(minimum=0, maximum=PPM)
    state: str = rule(choices=STATES)
    deadline_s: int = rule(minimum=60, maximum=90 * 86_400)
    releases_version: int = rule(minimum=1, maximum=INTEGER_MAX)
    attempt: int = rule(1, minimum=1, maximum=INTEGER_MAX)
    canaries: tuple[str, ...] = rule((), pattern=r"[0-9a-f]{16}", most=MOST_CANARIES)


@dataclass(frozen=True)
class Base:
    """Custom of the target `base/MODEL/HARDWARE` in `rollout`: what a device without any release installs
    while it is in no wave. Hash and length are again those of `MODEL/NUMBER.json`."""

    schema: int = rule(minimum=SCHEMA, maximum=SCHEMA)
    model: str = rule(pattern=NAME)
    hardware: str = rule(pattern=NAME)
    release: int = rule(minimum=1, maximum=INTEGER_MAX)
    releases_version: int = rule(minimum=1, maximum=INTEGER_MAX)


# ---- names ----------------------------------------------------------------------------------------------


def model_role(model: str) -> str:
    """The delegated role of `releases` that signs a model's policy and releases."""
    return f"model-{check_name(model)}"


def policy_path(model: str) -> str:
    """The target whose custom is the ModelPolicy."""
    return f"{check_name(model)}/policy.json"


def release_path(model: str, release: int) -> str:
    """The target that is the Release file; its custom is the ReleaseNote."""
    return f"{check_name(model)}/{int(release)}.json"


def payload_path(model: str, file: str) -> str:
    """The TUF target path of one file of a release; clients and hosts put `SHA256.` before the last part."""
    return f"{check_name(model)}/{file.rpartition('/')[2]}"


def hashed_path(path: str, sha256: str) -> str:
    """Where a target lies below `releases/targets/`, as TUF's consistent snapshots have it."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


def wave_path(model: str, hardware: str) -> str:
    """The target of `rollout` whose custom is the Wave."""
    return f"wave/{check_name(model)}/{check_name(hardware)}"


def base_path(model: str, hardware: str) -> str:
    """The target of `rollout` whose custom is the Base."""
    return f"base/{check_name(model)}/{check_name(hardware)}"


def check_name(text: str) -> str:
    """`text`, once it may name a model, a hardware, a device or a rollout."""
    if not re.fullmatch(NAME, text):
        raise FormatError(f"{text!r} is no name: use lower case letters, digits, '_', '.' and '-', up to 64")
    return text


# ---- waves ----------------------------------------------------------------------------------------------


def wave_hash(salt: str, device: str) -> int:
    """Where a device stands in a rollout, from 0 to 2**64 - 1: the first 8 bytes, big endian, of
    SHA-256("edgekd-wave-1" || 0 || salt (16 bytes) || device id in UTF-8)."""
    return int.from_bytes(
        hashlib.sha256(WAVE_TAG + bytes.fromhex(salt) + device.encode()).digest()[:8], "big"
    )


def wave_mark(salt: str, device: str) -> str:
    """How a device is listed among the canaries: `wave_hash` as 16 hex digits, so that no id is public."""
    return f"{wave_hash(salt, device):016x}"


def in_wave(wave: Wave, device: str) -> bool:
    """Whether a device takes part: it is a canary, or its hash as a fraction of 2**64 is below ppm / 10**6.

    In whole numbers: hash * 10**6 < ppm * 2**64. The state is another matter: see Wave.
    """
    place = wave_hash(wave.salt, device)
    return f"{place:016x}" in wave.canaries or place * PPM < wave.ppm << 64


# ---- reading and writing --------------------------------------------------------------------------------


def parse_fleet_policy(value: Any) -> FleetPolicy:
    """A FleetPolicy from JSON. Raises FormatError, as all of these do."""
    return parse(FleetPolicy, value, FLEET_POLICY)


def parse_model_policy(value: Any, model: str) -> ModelPolicy:
    """The ModelPolicy of `model`; one of another model is refused."""
    return _of(parse(ModelPolicy, value, policy_path(model)), policy_path(model), model=model)


def parse_note(value: Any, model: str, release: int) -> ReleaseNote:
    """The ReleaseNote of exactly that release."""
    where = release_path(model, release)
    return _of(parse(ReleaseNote, value, where), where, model=model, release=release)


def parse_release(data: bytes, model: str, release: int) -> Release:
    """The Release in the bytes of `MODEL/NUMBER.json`, held to itself: its bench record, ML-BOM, bundle and
    golden vectors are among its files, and no two files would lie at one place."""
    where = release_path(model, release)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise FormatError(f"{where}: not valid JSON") from None
    found = _of(parse(Release, value, where), where, model=model, release=release)
    check_release(found)
    return found


def check_release(found: Release) -> None:
    """Raise FormatError where a Release contradicts itself."""
    where = release_path(found.model, found.release)
    if not found.hardware:
        raise FormatError(f"{where}: hardware names nothing that it may run on")
    for file in (found.bench, found.bom, *found.golden):
        if file not in found.files:
            raise FormatError(f"{where}: {file} is not among its files")
    if not found.golden:
        raise FormatError(f"{where}: golden names no vectors to check it by")
    if not any(file.startswith(f"{found.bundle}/") for file in found.files):
        raise FormatError(f"{where}: no file lies in its bundle {found.bundle}")
    for file in found.files:
        if any(other.startswith(f"{file}/") for other in found.files):
            raise FormatError(f"{where}: {file} is a file and a folder at once")


def parse_wave(value: Any, model: str, hardware: str) -> Wave:
    """The Wave of exactly that model and hardware."""
    where = wave_path(model, hardware)
    return _of(parse(Wave, value, where), where, model=model, hardware=hardware)


def parse_base(value: Any, model: str, hardware: str) -> Base:
    """The Base of exactly that model and hardware."""
    where = base_path(model, hardware)
    return _of(parse(Base, value, where), where, model=model, hardware=hardware)


def _of(found: T, where: str, **expected: Any) -> T:
    """`found`, once it is of the model, release or hardware that its place says."""
    for name, value in expected.items():
        if getattr(found, name) != value:
            raise FormatError(f"{where}: {name} is {getattr(found, name)!r}, but its place says {value!r}")
    return found
