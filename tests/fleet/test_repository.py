"""The two repositories as a TUF client sees them: publish, choose, floors, two operators, a cut publish."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from edgekd.errors import ArtifactError, ConfigError, RolloutError, VerifyError
from edgekd.fleet import formats, pair, payload, repository
from edgekd.fleet.formats import FleetPolicy, ModelPolicy
from tests.fleet.made import CONTENTS, HARDWARE, MODEL, Fleet, make_release, now


class Folder(FetcherInterface):
    """Fetches from a folder as from a host: what is not there is a 404."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def _fetch(self, url: str) -> Any:
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        self.fetched.append(f"{path.parent.parent.name}/{path.name}")
        yield path.read_bytes()


def client(fleet: Fleet, place: Path, which: str = "releases") -> Updater:
    """TUF's own client of one of the two repositories, with its state under `place`."""
    root = fleet.roots[which == "rollout"]
    state = place / which
    (state / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(state),
        f"file://{fleet.host}/{which}/metadata",
        str(state / "targets"),
        f"file://{fleet.host}/releases/targets",
        fetcher=Folder(),
        bootstrap=root,
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "host")


def test_a_client_finds_the_release_that_rollout_chooses(fleet: Fleet, tmp_path: Path) -> None:
    made = fleet.release(1)
    fleet.choose(1)
    wave = client(fleet, tmp_path, "rollout").get_targetinfo(formats.wave_path(MODEL, HARDWARE))
    releases = client(fleet, tmp_path)
    signed = releases.get_targetinfo(formats.release_path(MODEL, 1))
    assert wave and signed and (wave.hashes, wave.length) == (signed.hashes, signed.length)
    chosen = formats.parse_wave(wave.custom, MODEL, HARDWARE)
    found = formats.parse_release(Path(releases.download_target(signed)).read_bytes(), MODEL, chosen.release)
    assert found == made and formats.parse_note(signed.custom, MODEL, 1) == found.note
    fleet_policy = releases.get_targetinfo(formats.FLEET_POLICY)
    model_policy = releases.get_targetinfo(formats.policy_path(MODEL))
    assert fleet_policy and formats.parse_fleet_policy(fleet_policy.custom).max_ahead_days == 14
    assert model_policy and formats.parse_model_policy(model_policy.custom, MODEL).min_release == 1


def test_every_file_of_a_release_is_fetched_by_its_hash(fleet: Fleet, tmp_path: Path) -> None:
    made = fleet.release(1)
    updater = client(fleet, tmp_path)
    updater.refresh()
    for path, entry in made.files.items():
        target = pair.TargetFile(
            entry.size_bytes, {"sha256": entry.sha256}, formats.payload_path(MODEL, path)
        )
        assert Path(updater.download_target(target)).read_bytes() == CONTENTS[path]


def test_a_poll_is_one_small_file(fleet: Fleet, tmp_path: Path) -> None:
    fleet.release(1)
    fleet.choose(1)
    client(fleet, tmp_path, "rollout").refresh()
    again = client(fleet, tmp_path, "rollout")
    again.refresh()
    assert again._fetcher.fetched == ["rollout/timestamp.json"]
    assert (fleet.host / "rollout/metadata/timestamp.json").stat().st_size <= 400


def test_a_fleet_is_begun_once(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match="a fleet is there already"):
        pair.begin(fleet.pair(), fleet.duties(), FleetPolicy(1, "again"))


def test_too_few_signatures_are_not_published(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "host")
    made = fleet.pair()
    with made.releases.edit_root():
        pass
    made.releases.sign([fleet.root[1], fleet.targets[0]])
    made.releases.refresh()
    made.releases.sign(fleet.targets[:1])
    with pytest.raises(VerifyError, match="root has 1 of 2"):
        made.releases.publish()
    assert made.releases.version("root") == 1


def test_the_same_key_twice_counts_once(fleet: Fleet) -> None:
    made = fleet.pair()
    with made.releases.edit_root():
        pass
    assert made.releases.sign([fleet.root[1], fleet.root[1]]) == [("root", fleet.root[1].public_key.keyid)]
    assert made.releases.lacking()[0] == repository.Lack("root", 1, 2)


def test_of_two_operators_the_second_is_told(fleet: Fleet) -> None:
    fleet.release(1)
    first, second = fleet.pair(), fleet.pair()
    for made, number in ((first, 2), (second, 3)):
        data = pair.add_release(made, make_release(number))
        payload.put_release(fleet.host, make_release(number), data, CONTENTS)
        made.releases.refresh()
    fleet.publish(first)
    with pytest.raises(RolloutError, match="another operator has published"):
        fleet.publish(second)
    assert sorted(pair.releases_of(fleet.pair().releases, MODEL)) == [1, 2]


def test_while_one_publishes_the_other_waits(fleet: Fleet) -> None:
    fleet.release(1)
    made = fleet.pair()
    with repository.locked(made.rollout.folder), pytest.raises(RolloutError, match="publishes there now"):
        fleet.choose(1)


@pytest.mark.parametrize("cut_after", range(4))
def test_a_publish_cut_anywhere_leaves_the_old_repository_and_can_be_done_again(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: int
) -> None:
    fleet.release(1)
    made = fleet.pair()
    data = pair.add_release(made, make_release(2))
    payload.put_release(fleet.host, make_release(2), data, CONTENTS)
    made.releases.refresh()
    made.releases.sign(fleet.targets[:1])
    written: list[Path] = []
    whole = repository.write_atomically

    def cut(path: Path, content: bytes) -> None:
        if len(written) == cut_after:
            path.with_name(f"{path.name}.{os.getpid()}.tmp").write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        whole(path, content)
        written.append(path)

    monkeypatch.setattr(repository, "write_atomically", cut)
    with pytest.raises((KeyboardInterrupt, IndexError)):
        made.releases.publish()
        raise IndexError  # fewer files than cuts
    monkeypatch.undo()
    seen = client(fleet, tmp_path)
    late = cut_after >= 3
    assert (seen.get_targetinfo(formats.release_path(MODEL, 2)) is not None) == late
    assert seen.get_targetinfo(formats.release_path(MODEL, 1)) is not None
    if not late:
        made.releases.publish()
    assert client(fleet, tmp_path).get_targetinfo(formats.release_path(MODEL, 2)) is not None
    repository.verify_folder(fleet.pair().releases)


REFUSED = {
    "not signed": ({"number": 9}, "release 9 is not signed; signed are 1, 2"),
    "other hardware": ({"number": 2, "hardware": "rpi4"}, "is signed for pi-sim, not for rpi4"),
    "below the floor": ({"number": 1}, "below the floor, release 2"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_choice_is_refused(fleet: Fleet, case: str) -> None:
    fleet.release(1)
    fleet.release(2)
    fleet.floor(2)
    values, message = REFUSED[case]
    with pytest.raises(RolloutError, match=message):
        fleet.choose(**values)


def test_a_release_is_refused_that_is_too_large_or_numbered_downwards(fleet: Fleet) -> None:
    fleet.release(2)
    with pytest.raises(RolloutError, match="release 2 is there already; take number 3"):
        fleet.release(2)
    made = fleet.pair()
    pair.set_model_policy(made, ModelPolicy(1, MODEL, min_release=2, slot_bytes=16))
    with pytest.raises(RolloutError, match="a slot has 16"):
        pair.add_release(made, make_release(3))
    with pytest.raises(RolloutError, match="the floor is release 2"):
        pair.set_model_policy(made, ModelPolicy(1, MODEL))


def test_a_withdrawn_release_is_gone(fleet: Fleet, tmp_path: Path) -> None:
    fleet.release(1)
    fleet.release(2)
    made = fleet.pair()
    pair.withdraw(made, MODEL, 1)
    made.releases.refresh()
    fleet.publish(made)
    assert client(fleet, tmp_path).get_targetinfo(formats.release_path(MODEL, 1)) is None
    with pytest.raises(RolloutError, match="no release 1 to withdraw"):
        pair.withdraw(fleet.pair(), MODEL, 1)


def test_a_release_is_only_published_with_its_own_bytes(fleet: Fleet) -> None:
    with pytest.raises(VerifyError, match=r"bundle/int8.onnx is not what the release names"):
        payload.put_release(fleet.host, make_release(1), b"", CONTENTS | {"bundle/int8.onnx": b"other"})


def test_missing_and_changed_files_of_the_host_are_found(fleet: Fleet) -> None:
    made = fleet.release(1)
    assert payload.missing(fleet.host, [made]) == []
    entry = made.files["bundle/int8.onnx"]
    payload.place(fleet.host, formats.payload_path(MODEL, "bundle/int8.onnx"), entry.sha256).write_bytes(b"")
    assert payload.missing(fleet.host, [made]) == ["digits 1: bundle/int8.onnx"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "change"])
def test_a_damaged_folder_is_named(fleet: Fleet, damage: str) -> None:
    fleet.release(1)
    file = fleet.host / "releases/metadata/2.targets.json"
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.write_bytes(file.read_bytes().replace(b'"version":2', b'"version":3'))
    with pytest.raises((ArtifactError, VerifyError), match="back from"):
        repository.verify_folder(fleet.pair().releases)


def test_expired_metadata_is_refused_by_a_client_and_signed_anew(fleet: Fleet, tmp_path: Path) -> None:
    long_ago = now() - timedelta(days=8)
    old = Fleet(tmp_path / "old")
    old.release(1)
    old.choose(1, at=long_ago)
    with pytest.raises(Exception, match="expired"):
        client(old, tmp_path / "device", "rollout").refresh()
    old.choose(1)
    client(old, tmp_path / "device", "rollout").refresh()
