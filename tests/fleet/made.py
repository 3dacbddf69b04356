"""A small fleet for tests: two signed repositories in a folder, keys in memory, the shipped code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from edgekd.fleet import formats, pair, payload
from edgekd.fleet.formats import Base, FleetPolicy, ModelPolicy, Release, Wave

MODEL, HARDWARE = "digits", "pi-sim"
SALT = "000102030405060708090a0b0c0d0e0f"
# Not a model that runs: give `Fleet.release(contents=...)` a bundle where one must.
CONTENTS = {
    "bundle/bundle.json": b"{}",
    "bundle/int8.onnx": b"an int8 model",
    "bundle/golden_int8.npy": b"golden vectors",
    "bench.json": b"{}",
    "bom.cdx.json": b"{}",
}


def now() -> datetime:
    """The time of signing, by default: the system's."""
    return datetime.now(UTC)


@dataclass
class Fleet:
    """`host` is what a static host serves. Keys: three of root (threshold 2), two of targets, one online."""

    host: Path
    root: list[CryptoSigner] = field(default_factory=lambda: _signers(3))
    targets: list[CryptoSigner] = field(default_factory=lambda: _signers(2))
    online: list[CryptoSigner] = field(default_factory=lambda: _signers(1))
    online_days: int = 7

    def __post_init__(self) -> None:
        made = self.pair()
        pair.begin(made, self.duties(), FleetPolicy(formats.SCHEMA, "test-fleet"))
        self.publish(made, self.root[:2])

    def duties(self) -> pair.Duties:
        return pair.Duties(*([s.public_key for s in each] for each in (self.root, self.targets, self.online)))

    def pair(self, at: datetime | None = None) -> pair.Pair:
        """Both repositories, opened to be edited at a time."""
        return pair.Pair(self.host, at or now(), self.online_days)

    def publish(self, made: pair.Pair, others: list[CryptoSigner] | None = None) -> None:
        """Sign what is pending with one key of targets, the online key and `others`, and publish it."""
        for repository in (made.releases, made.rollout):
            if repository.pending:
                repository.sign([self.targets[0], *self.online, *(others or [])])
                repository.publish()

    @property
    def roots(self) -> tuple[bytes, bytes]:
        """The first root of `releases` and of `rollout`: what a device is provisioned with."""
        places = (formats.RELEASES_METADATA, formats.ROLLOUT_METADATA)
        first, second = ((self.host / place / "1.root.json").read_bytes() for place in places)
        return first, second

    def release(
        self, number: int, contents: Mapping[str, bytes] = CONTENTS, at: datetime | None = None, **other: Any
    ) -> Release:
        """Sign and publish a release, the model's policy with the first; `other` replaces fields."""
        made = self.pair(at)
        release = make_release(number, contents, **other)
        if pair.model_policy(made.releases, release.model) is None:
            pair.set_model_policy(made, ModelPolicy(formats.SCHEMA, release.model))
        payload.put_release(self.host, release, pair.add_release(made, release), contents)
        made.releases.refresh()
        self.publish(made)
        return release

    def floor(self, number: int, model: str = MODEL, at: datetime | None = None) -> None:
        """Raise the floor."""
        made = self.pair(at)
        pair.set_model_policy(made, ModelPolicy(formats.SCHEMA, model, min_release=number))
        made.releases.refresh()
        self.publish(made)

    def choose(
        self,
        number: int,
        ppm: int = formats.PPM,
        at: datetime | None = None,
        devices: tuple[str, ...] = (),
        **other: Any,
    ) -> Wave:
        """Sign and publish a wave; `other` replaces fields of Wave."""
        made = self.pair(at)
        salt = other.pop("salt", SALT)
        values = {
            "schema": formats.SCHEMA,
            "rollout": f"{MODEL}-{number}",
            "model": MODEL,
            "hardware": HARDWARE,
            "release": number,
            "salt": salt,
            "ppm": ppm,
            "state": "running",
            "deadline_s": 3600,
            "releases_version": made.releases.version("timestamp"),
            "canaries": pair.marks(salt, devices),
        }
        wave = Wave(**values | other)
        pair.set_wave(made, wave)
        made.rollout.refresh()
        self.publish(made)
        return wave

    def base(self, number: int, at: datetime | None = None) -> None:
        """Sign and publish what a device without a release installs."""
        made = self.pair(at)
        version = made.releases.version("timestamp")
        pair.set_base(made, Base(formats.SCHEMA, MODEL, HARDWARE, number, version))
        made.rollout.refresh()
        self.publish(made)


def make_release(number: int, contents: Mapping[str, bytes] = CONTENTS, **other: Any) -> Release:
    """A Release of those bytes; `other` replaces its fields."""
    values: dict[str, Any] = {
        "schema": formats.SCHEMA,
        "model": MODEL,
        "release": number,
        "kind": "linux",
        "hardware": (HARDWARE,),
        "files": payload.entries(contents),
        "bundle": "bundle",
        "golden": tuple(path for path in contents if "/golden_" in path),
        "bench": "bench.json",
        "bom": "bom.cdx.json",
    }
    return Release(**values | other)


def _signers(count: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]
