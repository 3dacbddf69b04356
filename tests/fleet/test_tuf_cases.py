"""The cases of the TUF project's conformance suite, as tests of ours: the agent's command against a host.

`CASES` in test_tuf_roles.py maps each case of that suite to the test that holds the same; the suite itself
(theupdateframework/tuf-conformance, commit eec841c) is run from outside this repository.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile

from edgekd.fleet.agent import tuf_cli
from edgekd.fleet.agent.clock import Now
from tests.fleet.tuf_repository import TOP, Client, Repository, new_key

FRESH = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
EVERY = ["2.root", "timestamp", "1.snapshot", "1.targets"]


def at(days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the device's clock."""

    class Clock:
        def __init__(self, **_: Any) -> None:
            """As SystemClock's."""

        def now(self) -> Now:
            return Now(int((datetime.now(UTC) + timedelta(days=days)).timestamp()))

    monkeypatch.setattr(tuf_cli, "SystemClock", Clock)


def later(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


# ---- the workflow ---------------------------------------------------------------------------------------


def test_a_refresh_asks_in_the_order_of_the_workflow(client: Client) -> None:
    assert client.versions() == {"root": 1} and client.asked() == []
    assert client.refresh() and client.asked() == EVERY


def test_what_was_verified_is_kept(client: Client) -> None:
    assert client.refresh() and client.versions() == FRESH


def test_a_download_refreshes_first(client: Client) -> None:
    assert not client.download("nothing") and client.versions() == FRESH


def test_a_root_that_is_none_is_never_trusted(client: Client, repo: Repository) -> None:
    client.init(b'{"signed": {"_type": "root"}}')
    assert not client.refresh() and client.asked() == []


def test_a_first_root_with_a_bad_signature_is_never_trusted(client: Client, repo: Repository) -> None:
    value = json.loads(repo.first_root)
    value["signatures"][0]["sig"] = "00" * 64
    client.init(json.dumps(value).encode())
    assert not client.refresh() and client.asked() == []


UNSIGNED = [
    ("root", {"root": 1}),
    ("timestamp", {"root": 2}),
    ("snapshot", {"root": 2, "timestamp": 2}),
    ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
]


@pytest.mark.parametrize(("role", "trusted"), UNSIGNED)
def test_an_unsigned_role_stops_where_it_stands(
    client: Client, repo: Repository, role: str, trusted: dict[str, int]
) -> None:
    repo.signers[role] = []
    repo.write("root", "targets", "snapshot", "timestamp")
    assert not client.refresh() and client.versions() == trusted


@pytest.mark.parametrize(("role", "trusted"), [row for row in UNSIGNED if row[0] != "timestamp"])
def test_another_version_than_the_name_says_is_refused(
    client: Client, repo: Repository, role: str, trusted: dict[str, int]
) -> None:
    for each in ("root", "targets", "snapshot", "timestamp"):
        repo.write(each, **({"version": 3, "name_as": 2} if each == role else {}))
        if each == role and each != "root":
            above = repo.timestamp if each == "snapshot" else repo.snapshot
            named = MetaFile(2)
            if each == "snapshot":
                above.snapshot_meta = named
            else:
                above.meta["targets.json"] = named
    assert not client.refresh() and client.versions() == trusted


def test_a_timestamp_that_changes_without_a_new_version_is_not_taken(
    client: Client, repo: Repository
) -> None:
    assert client.refresh()
    before = client.kept("timestamp")
    repo.timestamp.expires = later(40)
    repo.write("timestamp", version=1)
    assert client.refresh() and client.kept("timestamp") == before


def test_hashes_of_metadata_are_checked_and_right_ones_pass(client: Client, repo: Repository) -> None:
    repo.hashes = True
    repo.refresh("targets")
    assert client.refresh() and client.versions()["targets"] == 2


@pytest.mark.parametrize(("role", "trusted"), [("targets", 2), ("snapshot", None)])
def test_a_role_with_another_hash_than_named_is_refused(
    client: Client, repo: Repository, role: str, trusted: int | None
) -> None:
    repo.hashes = True
    repo.refresh("targets")
    other = repo.md[role]
    other.signed.unrecognized_fields["extra"] = "changes the hash"
    repo.sign(role)
    repo.put(role, other.signed.version, other.to_bytes())
    assert not client.refresh() and client.versions().get("snapshot") == trusted
    assert "targets" not in client.versions()


def test_the_bytes_that_came_are_the_bytes_that_are_kept(client: Client, repo: Repository) -> None:
    value = json.loads(repo.path("timestamp").read_bytes())
    repo.path("timestamp").write_bytes(json.dumps(value, indent=7).encode())
    assert client.refresh() and client.kept("timestamp") == repo.path("timestamp").read_bytes()


def test_fields_that_nobody_knows_are_kept_and_signed(client: Client, repo: Repository) -> None:
    for role in TOP:
        repo.md[role].signed.unrecognized_fields["of-tomorrow"] = {"a": [1, None]}
    repo.add_target("file", b"1").unrecognized_fields["custom"] = {"b": 2}
    repo.write("root", "targets", "snapshot", "timestamp")
    assert client.download("file") and client.got() == [b"1"]
    assert all(b"of-tomorrow" in client.kept(role) for role in TOP)


def test_a_field_of_old_that_misleads_is_passed_over(client: Client, repo: Repository) -> None:
    for key in repo.root.keys.values():
        key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repo.write("root")
    assert client.refresh() and client.versions()["root"] == 2


@pytest.mark.parametrize(
    ("role", "trusted"), [(role, set(trusted)) for role, trusted in UNSIGNED if role != "root"]
)
def test_what_is_missing_ends_the_refresh_there(
    client: Client, repo: Repository, role: str, trusted: set[str]
) -> None:
    repo.path(role).unlink()
    assert not client.refresh() and set(client.versions()) == trusted


def test_a_snapshot_in_a_timestamps_place_is_refused(client: Client, repo: Repository) -> None:
    """Signed by the timestamp's own key, with a timestamp's content: its type is another."""
    repo.signers["snapshot"] += repo.signers["timestamp"]
    repo.root.add_key(repo.signers["timestamp"][0].public_key, "snapshot")
    repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    repo.write("root", "snapshot")
    repo.path("timestamp").write_bytes(repo.path("snapshot").read_bytes())
    assert not client.refresh() and client.versions() == {"root": 2}


# ---- expiry ---------------------------------------------------------------------------------------------


def test_the_clock_of_the_device_decides(
    client: Client, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.root.expires = later(7)
    repo.write("root")
    assert client.refresh()
    at(8, monkeypatch)
    assert not client.refresh()


def test_of_an_expired_root_only_the_root_is_taken(client: Client, repo: Repository) -> None:
    repo.root.expires = later(-1)
    repo.write("root", "targets", "snapshot", "timestamp")
    assert not client.refresh() and client.versions() == {"root": 2}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_expired_role_takes_no_place(client: Client, repo: Repository, role: str) -> None:
    assert client.refresh()
    repo.md[role].signed.expires = later(-1)
    repo.write("targets", "snapshot", "timestamp")
    assert not client.refresh() and client.versions()[role] == 1


def test_an_expired_root_here_is_replaced_by_a_newer_one(
    client: Client, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.root.expires = later(7)
    repo.write("root")
    assert client.refresh()
    repo.root.expires = later(100)
    for role in ("targets", "snapshot", "timestamp"):
        repo.md[role].signed.expires = later(100)
    repo.write("root", "targets", "snapshot", "timestamp")
    at(18, monkeypatch)
    assert client.refresh() and client.versions()["root"] == 3


def test_an_expired_timestamp_here_is_replaced_and_still_counts(
    client: Client, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.timestamp.expires = later(7)
    repo.write("timestamp", "timestamp")
    assert client.refresh() and client.versions()["timestamp"] == 3
    at(18, monkeypatch)
    repo.timestamp.expires = later(29)
    repo.write("timestamp", version=1)
    assert not client.refresh()  # older than the expired one
    repo.write("timestamp", version=4)
    assert client.refresh() and client.versions()["timestamp"] == 4


# ---- targets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["file.txt", "folder/file.txt"])
def test_a_target_comes_as_it_was_signed(client: Client, repo: Repository, path: str) -> None:
    repo.add_target(path, b"contents")
    repo.refresh("targets")
    assert client.download(path) and client.got() == [b"contents"]


def test_a_substituted_target_of_the_same_length_is_refused(client: Client, repo: Repository) -> None:
    one, two = repo.add_target("one", b"first"), repo.add_target("two", b"other")
    repo.refresh("targets")
    assert client.download("one")
    for target in (one, two):
        repo.lay_out(target, b"wrong")
    assert client.download("one") or client.got() == [b"first"]  # from what is here
    assert not client.download("two") and client.got() == [b"first"]


def test_a_target_that_changes_often_is_never_a_false_one(client: Client, repo: Repository) -> None:
    for number in range(11):
        target = repo.add_target("file", b"version %d" % number)
        repo.refresh("targets")
        if number % 5 == 0:
            assert client.download("file") and client.got() == [b"version %d" % number]
            repo.lay_out(target, b"VERSION %d" % number)
            client.download("file")
            assert client.got() == [b"version %d" % number]


@pytest.mark.parametrize("algorithms", [("sha256",), ("sha512",), ("sha256", "sha512")])
def test_hash_algorithms(client: Client, repo: Repository, algorithms: tuple[str, ...]) -> None:
    repo.add_target("file", b"contents", algorithms=algorithms)
    repo.refresh("targets")
    assert client.download("file") and client.got() == [b"contents"]


def test_a_hash_algorithm_that_nobody_knows_vouches_for_nothing(client: Client, repo: Repository) -> None:
    target = repo.add_target("file", b"contents")
    target.hashes = {"of-tomorrow": target.hashes["sha256"]}
    repo.refresh("targets")
    assert not client.download("file") and client.got() == []


def test_a_target_that_is_here_is_not_fetched_again(client: Client, repo: Repository) -> None:
    repo.add_target("file", b"contents")
    repo.refresh("targets")
    assert client.download("file")
    client.host.requests.clear()
    assert client.download("file") and not any(p.startswith("targets/") for p in client.host.requests)


# ---- keys -----------------------------------------------------------------------------------------------


def test_a_snapshot_below_its_threshold_is_refused(client: Client, repo: Repository) -> None:
    assert client.refresh()
    repo.trust("snapshot", *(new_key() for _ in range(3)), threshold=3)
    repo.signers["snapshot"].pop()
    repo.write("root", "snapshot", "timestamp")
    assert not client.refresh() and client.versions()["snapshot"] == 1


def test_a_threshold_above_the_number_of_keys_is_never_met(client: Client, repo: Repository) -> None:
    repo.trust("snapshot", new_key(), threshold=1)
    repo.root.roles["snapshot"].threshold = 2
    repo.write("root", "snapshot", "timestamp")
    assert not client.refresh() and "snapshot" not in client.versions()


def test_the_same_key_twice_is_one_key(client: Client, repo: Repository) -> None:
    key = new_key()
    repo.trust("snapshot", key, threshold=2)
    repo.write("root", "snapshot", "timestamp")
    root = json.loads(repo.path("root").read_bytes())
    keyid = key.public_key.keyid
    assert root["signed"]["roles"]["snapshot"]["keyids"] == [keyid]
    repo.change("snapshot", lambda v: v["signatures"].append({**v["signatures"][0]}))
    assert not client.refresh() and "snapshot" not in client.versions()


def test_a_signature_that_is_listed_twice_is_refused(client: Client, repo: Repository) -> None:
    repo.change("snapshot", lambda v: v["signatures"].append(v["signatures"][0]))
    assert not client.refresh() and "snapshot" not in client.versions()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_kinds_of_keys(client: Client, repo: Repository, kind: str) -> None:
    key = new_key(kind)
    repo.trust("root", *repo.signers["root"], key, threshold=2)
    repo.write("root")
    assert client.refresh() and client.versions()["root"] == 2
    repo.write("root")
    md = Metadata.from_bytes(repo.path("root").read_bytes())
    signature = md.signatures[key.public_key.keyid]
    signature.signature = signature.signature[:-6] + f"{int(signature.signature[-6:], 16) ^ 1:06x}"
    repo.path("root").write_bytes(md.to_bytes())
    assert not client.refresh() and client.versions()["root"] == 2


@pytest.mark.parametrize("bad", ["00" * 64, ""])
def test_a_bad_signature_beside_enough_good_ones_does_no_harm(
    client: Client, repo: Repository, bad: str
) -> None:
    old = repo.signers["timestamp"][0]
    repo.trust("timestamp", old, new_key())
    repo.write("root", "timestamp")

    def spoil(value: dict[str, Any]) -> None:
        entry = next(e for e in value["signatures"] if e["keyid"] == old.public_key.keyid)
        entry["sig"] = bad

    repo.change("timestamp", spoil)
    assert client.refresh() and client.versions()["timestamp"] == 2


@pytest.mark.parametrize("role", ["?", "#", "/upwards", "../upwards"])
def test_a_role_with_an_unusual_name_leads_nowhere_else(client: Client, repo: Repository, role: str) -> None:
    repo.delegate("targets", role)
    repo.write(role)
    repo.refresh("targets")
    assert not client.download("nothing") and client.versions()[role] == 1
    assert [p.name for p in client.folder.iterdir() if "upwards" in p.name] == []


# ---- the past -------------------------------------------------------------------------------------------


def test_an_older_timestamp_is_refused(client: Client, repo: Repository) -> None:
    repo.write("timestamp")
    assert client.refresh()
    repo.write("timestamp", version=1)
    assert not client.refresh() and client.versions()["timestamp"] == 2


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize(
    ("role", "behind"), [("snapshot", ("timestamp",)), ("targets", ("snapshot", "timestamp"))]
)
def test_older_metadata_is_refused(
    client: Client, repo: Repository, role: str, behind: tuple[str, ...], hashes: bool
) -> None:
    repo.hashes = hashes
    repo.refresh("targets")
    assert client.refresh()
    repo.write(role, version=1)
    repo.write(*behind)
    assert not client.refresh() and client.versions()[role] == 2


def test_a_role_may_not_leave_the_snapshot(client: Client, repo: Repository) -> None:
    assert client.refresh()
    del repo.snapshot.meta["targets.json"]
    repo.write("snapshot", "timestamp")
    assert not client.refresh() and client.versions()["snapshot"] == 1


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_new_keys_undo_a_version_far_ahead(client: Client, repo: Repository, role: str) -> None:
    """For targets the snapshot's key is replaced, for the others their own and the timestamp's."""
    above = {"targets": [], "snapshot": ["snapshot", "timestamp"], "timestamp": ["timestamp"]}[role]
    repo.write(role, version=99)
    repo.write(*(each for each in ("snapshot", "timestamp") if each != role))
    assert client.refresh() and client.versions()[role] == 99
    for each in above or ["snapshot"]:
        repo.trust(each, new_key())
    repo.write("root")
    repo.write(role, version=1)
    repo.write(*(each for each in ("snapshot", "timestamp") if each != role))
    assert client.refresh() and client.versions()[role] == 1
