"""From an artifact to a published release: propose (create), sign, publish; the floor, and withdrawing.

A release is refused without its bench record, golden vectors and ML-BOM: when it is proposed, and once more
from the bytes themselves before it is published. Files go to the host before anything that names them.
"""

from __future__ import annotations

import io
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.declaration import suggest
from edgekd.errors import ArtifactError, ConfigError, RolloutError, VerifyError
from edgekd.evaluate.record import parse_record
from edgekd.fleet import formats, pair, payload
from edgekd.fleet.bom import check_bom
from edgekd.fleet.fields import FormatError, parse
from edgekd.fleet.formats import Health, MadeFrom, ModelPolicy, Release, Watch
from edgekd.fleet.home import Home, named, sign_with
from edgekd.fleet.pair import Pair
from edgekd.store import disk_error, sha256_file, sync_directory

BENCH = "bench.json"
LIMITS = ("health", "watch", "tolerated_failure_rate")
RSS_HEADROOM = 2  # of the peak that the bench saw: another board's allocator, other threads


@dataclass(frozen=True)
class Parts:
    """What a release is made of. contents: every file of the bundle by its path; golden: those with vectors;
    record: the bench record; bom: the ML-BOM's bytes; steps: how far an output may be off."""

    model: str
    kind: str
    contents: Mapping[str, bytes]
    golden: tuple[str, ...]
    record: Mapping[str, Any]
    bom: bytes
    steps: int
    made_from: MadeFrom


@dataclass(frozen=True)
class Wish:
    """What the operator says of a release. number 0: the next one; limits: read_limits' table."""

    hardware: tuple[str, ...]
    number: int = 0
    label: str = ""
    slot_bytes: int = 0
    limits: Mapping[str, Any] | None = None


def propose(home: Home, parts: Parts, wish: Wish) -> Release:
    """Add a release to what waits for signatures; nothing of it is on the host yet.

    Raises ArtifactError for parts that lack something, RolloutError for a number that is taken or below the
    floor, for a payload larger than the slot, and for hardware that its bench record is not of.
    """
    made = home.open()
    if "root" in made.releases.pending:
        raise RolloutError(f"{home.proposed}: a key is being replaced; finish that with release.sign first")
    known = pair.model_policy(made.releases, parts.model)
    if known is None or wish.slot_bytes:
        _set_policy(made, parts.model, slot_bytes=wish.slot_bytes or ModelPolicy.slot_bytes)
    contents = {
        **parts.contents,
        BENCH: (json.dumps(parts.record, indent=1, sort_keys=True) + "\n").encode(),
        "bom.cdx.json": parts.bom,
    }
    release = _release(made, parts, wish, contents)
    check_contents(release, contents)
    data = pair.add_release(made, release)
    made.releases.refresh()
    payload.put_release(home.proposed, release, data, contents)
    home.save(made)
    return release


def _release(made: Pair, parts: Parts, wish: Wish, contents: Mapping[str, bytes]) -> Release:
    where = f"{parts.model}: a new release"
    limits = dict(wish.limits or {})
    policy = pair.model_policy(made.releases, parts.model)
    first = max(
        max(pair.releases_of(made.releases, parts.model), default=0) + 1, policy.min_release if policy else 1
    )
    try:
        release = Release(
            schema=formats.SCHEMA,
            model=parts.model,
            release=wish.number or first,
            kind=parts.kind,
            hardware=wish.hardware,
            files=payload.entries(contents),
            bundle="bundle",
            golden=parts.golden,
            bench=BENCH,
            bom="bom.cdx.json",
            tolerated_failure_rate=limits.get("tolerated_failure_rate", Release.tolerated_failure_rate),
            health=limits.get("health") or _health(parts),
            watch=limits.get("watch") or formats.WATCH,
            made_from=parts.made_from,
            label=wish.label,
        )
        formats.check_release(formats.checked(release, where))
    except FormatError as error:
        raise ArtifactError(f"{error}; mend that and create it again") from None
    return release


def _health(parts: Parts) -> Health:
    """Limits from what the bench saw: peak memory with headroom, the bundle's own tolerance."""
    peak = parts.record.get("peak_rss_bytes")
    limit = max(64 << 20, RSS_HEADROOM * int(peak)) if peak else None
    return replace(formats.HEALTH, golden_steps=parts.steps, max_peak_rss_bytes=limit)


def read_limits(path: Path) -> dict[str, Any]:
    """A TOML file with tables [health] and [watch] and the number tolerated_failure_rate; ConfigError."""
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend that line") from None
    _refuse_unknown(path, table, LIMITS)
    found = dict(table)
    for name, cls in (("health", Health), ("watch", Watch)):
        if name in table:
            if isinstance(table[name], dict):
                _refuse_unknown(path, table[name], cls.__dataclass_fields__)
            try:
                found[name] = parse(cls, table[name], f"{path}: {name}")
            except FormatError as error:
                raise ConfigError(str(error)) from None
    return found


def _refuse_unknown(path: Path, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in set(known):
            raise ConfigError(f"{path}: unknown key {key}{suggest(key, known)}")


# ---- the model's policy ---------------------------------------------------------------------------------


def _set_policy(made: Pair, model: str, **changes: Any) -> None:
    known = pair.model_policy(made.releases, model) or ModelPolicy(formats.SCHEMA, model)
    try:
        pair.set_model_policy(made, replace(known, **changes))
    except FormatError as error:
        raise ConfigError(str(error)) from None


def raise_floor(home: Home, model: str, number: int) -> None:
    """Propose a floor. RolloutError where it would sink, or stands above what rollout chooses now."""
    made = home.open()
    if number not in pair.releases_of(made.releases, model):
        raise RolloutError(f"{model}: there is no release {number} that the floor could be")
    for of, hardware, chosen in pair.choices(made.rollout):
        if of == model and chosen < number:
            raise RolloutError(
                f"{model}: {hardware} is led to release {chosen}, which would be below the floor; "
                f"choose release {number} or a later one first"
            )
    _set_policy(made, model, min_release=number)
    made.releases.refresh()
    home.save(made)


def withdraw(home: Home, model: str, number: int) -> None:
    """Propose that a release is signed no longer. RolloutError where rollout still chooses it."""
    made = home.open()
    for of, hardware, chosen in pair.choices(made.rollout):
        if of == model and chosen == number:
            raise RolloutError(f"{model}: {hardware} is led to release {number}; choose another one first")
    pair.withdraw(made, model, number)
    made.releases.refresh()
    home.save(made)


# ---- signing and publishing -----------------------------------------------------------------------------


def sign(home: Home, ask: Any, names: Iterable[str] = ()) -> dict[str, Any]:
    """Sign what waits, with the named keys or those that are here and needed.

    Returns {"signed_by", "lacking", "changes"}: what was signed, in words. RolloutError where nothing waits.
    """
    made = home.open()
    if not any(each.pending for _, each in named(made)):
        raise RolloutError(f"{home.proposed}: nothing waits for signatures; create a release first")
    told = changes(home, made)
    signed = sign_with(home.ring, made, ask, names)
    home.save(made)
    lacking = [f"{name}: {home.told(each)}" for name, each in named(made) if each.lacking()]
    return {"signed_by": signed, "lacking": lacking, "changes": told}


def publish(home: Home) -> dict[str, Any]:
    """Bring what is signed to the host's folder: files first, then metadata, timestamps last.

    Returns {"published", "changes"}. Raises VerifyError for too few signatures or a file that is not what
    was signed, ArtifactError for a release that lacks something, RolloutError where another was quicker or
    nothing waits. Cut anywhere, the same again finishes.
    """
    made = home.open()
    if not any(each.pending for _, each in named(made)):
        raise RolloutError(f"{home.proposed}: nothing waits to be published; create and sign a release first")
    told = changes(home, made)
    for release in new_releases(home, made):
        _check_payload(home, release)
    for name, repository in named(made):
        if repository.lacking():
            raise VerifyError(f"{name}: {home.told(repository)}; sign with further keys, then publish again")
    _move_payload(home)
    return {"published": home.publish(made), "changes": told}


def new_releases(home: Home, made: Pair) -> list[Release]:
    """The releases that are pending and not published."""
    old = Pair(home.host, home.now, home.ring.online_days)
    found = []
    for role in made.releases.delegated():
        model = role.removeprefix("model-")
        before = pair.releases_of(old.releases, model)
        for number, (_, target) in pair.releases_of(made.releases, model).items():
            if number not in before:
                path = formats.release_path(model, number)
                file = _find(home, path, target.hashes["sha256"])
                found.append(formats.parse_release(file.read_bytes(), model, number))
    return found


def changes(home: Home, made: Pair) -> list[str]:
    """What is pending, in words: for whoever is asked to sign it."""
    found = []
    for release in new_releases(home, made):
        what = f"{release.payload_bytes:,} bytes for {', '.join(release.hardware)}"
        found.append(f"new: {release.model} release {release.release}, {what}")
    old = Pair(home.host, home.now, home.ring.online_days)
    for role in made.releases.delegated():
        model = role.removeprefix("model-")
        gone = set(pair.releases_of(old.releases, model)) - set(pair.releases_of(made.releases, model))
        found += [f"withdrawn: {model} release {number}" for number in sorted(gone)]
        before, after = (pair.model_policy(each.releases, model) for each in (old, made))
        if before and after and before != after:
            found.append(
                f"policy of {model}: floor {before.min_release} -> {after.min_release}, "
                f"slot {before.slot_bytes:,} -> {after.slot_bytes:,} bytes"
            )
    for name, repository in named(made):
        if "root" in repository.pending:
            found.append(f"{name}: keys replaced, root version {repository.root().version}")
    return found


def _find(home: Home, path: str, sha256: str) -> Path:
    """A target's file, where it waits or on the host; VerifyError where it is nowhere or other bytes."""
    for folder in (home.proposed, home.host):
        file = payload.place(folder, path, sha256)
        if file.is_file() and sha256_file(file) == sha256:
            return file
    raise VerifyError(
        f"{path}: its bytes are not those that are signed, or are gone; create the release again"
    )


def _check_payload(home: Home, release: Release) -> None:
    needed = {release.bench, release.bom, *release.golden}
    contents = {}
    for path, entry in release.files.items():
        file = _find(home, formats.payload_path(release.model, path), entry.sha256)
        if path in needed:
            contents[path] = file.read_bytes()
    check_contents(release, contents)


def _move_payload(home: Home) -> None:
    waiting = home.proposed / formats.RELEASES_TARGETS
    try:
        for file in sorted(path for path in waiting.rglob("*") if path.is_file()):
            place = home.host / formats.RELEASES_TARGETS / file.relative_to(waiting)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
            sync_directory(place.parent)
    except OSError as error:
        raise disk_error(error, home.host) from error


def check_contents(release: Release, contents: Mapping[str, bytes]) -> None:
    """Raise ArtifactError where bench record, a golden vector or ML-BOM is absent, damaged or another's."""
    where = f"{release.model} release {release.release}"
    try:
        record = json.loads(contents[release.bench])
    except (ValueError, KeyError):
        raise ArtifactError(f"{where}: has no bench record; run edgekd bench first") from None
    if not isinstance(record, dict):
        raise ArtifactError(f"{where}: its bench record is no table; run edgekd bench again")
    parse_record(record, where)
    if record["target"] not in release.hardware:
        raise ArtifactError(
            f"{where}: was benched on {record['target']}, and is for {', '.join(release.hardware)}; "
            f"bench it there"
        )
    for path in release.golden:
        _check_golden(contents.get(path, b""), f"{where}: {path}")
    check_bom(contents.get(release.bom, b""), where)


def _check_golden(data: bytes, where: str) -> None:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise ArtifactError(f"{where}: the golden vectors are no array; export the bundle again") from None
    if not array.size or not np.isfinite(array.astype(np.float64)).all():
        raise ArtifactError(f"{where}: the golden vectors are empty or not finite; export the bundle again")
