"""Bring signed releases to named devices over SSH: what each lacks of both repositories, then its own agent.

A push needs no static host: the operator's folder is the host. What the device has already (the files of the
release that it runs) is not sent.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from edgekd.errors import RolloutError
from edgekd.fleet import formats
from edgekd.fleet.pair import Pair, releases_of
from edgekd.fleet.remote import RemoteAgent
from edgekd.fleet.repository import StaticRepository, file_name

File = tuple[str, bytes]


def push(agent: RemoteAgent, host: Path, now: datetime) -> dict[str, Any]:
    """Let one device install what `rollout` chooses for it; its report behind that.

    host: the operator's copy of what a static host serves. Raises RolloutError where nothing is published
    for this device, DeviceError and VerifyError as RemoteAgent does; a refusal is in the report.
    """
    before = agent.report()
    return agent.install(files_for(Pair(host, now), before))


def files_for(pair: Pair, report: dict[str, Any]) -> list[File]:
    """The metadata of both repositories, and what the device lacks of the releases chosen for it."""
    places = ((formats.RELEASES_METADATA, pair.releases), (formats.ROLLOUT_METADATA, pair.rollout))
    found = [each for place, repository in places for each in metadata_of(place, repository)]
    targets = pair.rollout.targets().targets
    for model, said in report["models"].items():
        paths = [name(model, report["hardware"]) for name in (formats.wave_path, formats.base_path)]
        numbers = {int(targets[path].custom["release"]) for path in paths if path in targets}
        if not numbers:
            raise RolloutError(
                f"{report['device']}: nothing is chosen for {model} on {report['hardware']}; "
                f"choose a release first"
            )
        have = _hashes(pair, model, said["running"])
        for number in sorted(numbers):
            found += _release(pair, model, number, have)
    return list(dict(found).items())


def metadata_of(place: str, repository: StaticRepository) -> list[File]:
    """Every root, and the newest version of every other role."""
    names = [file_name("root", version + 1) for version in range(repository.version("root"))]
    roles = ("timestamp", "snapshot", "targets", *repository.delegated())
    names += [file_name(role, repository.version(role)) for role in roles]
    return [(f"{place}/{name}", (repository.folder / name).read_bytes()) for name in names]


def _hashes(pair: Pair, model: str, running: str | None) -> set[str]:
    """The hashes of the files in the release that a device runs, where it is one of ours."""
    for number, (_, target) in releases_of(pair.releases, model).items():
        if target.hashes.get("sha256") == running:
            return {each.sha256 for each in _read(pair, model, number)[0].files.values()}
    return set()


def _release(pair: Pair, model: str, number: int, have: set[str]) -> list[File]:
    release, found = _read(pair, model, number)
    for path, entry in release.files.items():
        if entry.sha256 not in have:
            place = formats.hashed_path(formats.payload_path(model, path), entry.sha256)
            found.append(_target(pair, place))
    return found


def _read(pair: Pair, model: str, number: int) -> tuple[formats.Release, list[File]]:
    known = releases_of(pair.releases, model)
    if number not in known:
        raise RolloutError(f"{model}: release {number} is chosen and not signed any more; choose another")
    path = formats.release_path(model, number)
    file = _target(pair, formats.hashed_path(path, known[number][1].hashes["sha256"]))
    return formats.parse_release(file[1], model, number), [file]


def _target(pair: Pair, place: str) -> File:
    path = pair.folder / formats.RELEASES_TARGETS / place
    if not path.is_file():
        raise RolloutError(f"{path} is missing; publish the release again")
    return f"{formats.RELEASES_TARGETS}/{place}", path.read_bytes()
