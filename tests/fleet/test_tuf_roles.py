"""Rotated keys and delegated roles, by `edgekd-agent tuf`; and the table of the conformance suite's cases."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from edgekd.fleet import formats
from tests.fleet.hosts import serving
from tests.fleet.made import MODEL, Fleet
from tests.fleet.tuf_repository import Client, Repository, new_key

KEYS = [new_key() for _ in range(10)]

# Each root: whose keys it names, how many must sign, who signed. The last may be refused.
Step = tuple[str, int, str]
ROOTS: dict[str, tuple[list[Step], bool]] = {
    "one key by another": ([("1", 1, "1"), ("2", 1, "21"), ("2", 1, "2")], True),
    "strangers sign, too": ([("1", 1, "314"), ("2", 1, "3214"), ("2", 1, "324")], True),
    "3 of 5, others each time": (
        [("01234", 3, "024"), ("01234", 3, "041"), ("01234", 3, "013"), ("01234", 3, "013")],
        True,
    ),
    "3 of 5, one replaced": ([("01234", 3, "024"), ("01345", 3, "041")], True),
    "3 of 5, one replaced over a step": (
        [("01234", 3, "024"), ("01345", 3, "0245"), ("01345", 3, "045")],
        True,
    ),
    "3 of 5, all replaced over a step": (
        [("01234", 3, "024"), ("56789", 3, "024567"), ("56789", 3, "567")],
        True,
    ),
    "threshold up, 1 to 2 of 3": ([("123", 1, "1"), ("123", 2, "12")], True),
    "threshold down, 2 to 1 of 3": ([("123", 2, "12"), ("123", 1, "12"), ("123", 1, "1")], True),
    "a second key, threshold up": ([("1", 1, "1"), ("12", 2, "12")], True),
    "not signed by the old key": ([("1", 1, "1"), ("2", 1, "234")], False),
    "not signed by the new key": ([("1", 1, "1"), ("2", 1, "134")], False),
    "3 of 5, two of the new ones": ([("01234", 3, "024"), ("01345", 3, "024")], False),
    "3 of 5, two of the old ones": ([("01234", 3, "024"), ("01345", 3, "045")], False),
    "the new threshold is not reached": ([("123", 1, "1"), ("123", 2, "2")], False),
    "the old threshold is not reached": ([("123", 2, "12"), ("123", 1, "1")], False),
}
OTHERS: dict[str, tuple[Step, bool]] = {
    "one key by another": (("2", 1, "2"), True),
    "strangers sign, too": (("1", 1, "314"), True),
    "not signed by the new key": (("2", 1, "134"), False),
    "two of the right three": (("01345", 3, "024"), False),
    "two of three": (("01345", 3, "04"), False),
    "3 of 5, first": (("01234", 3, "024"), True),
    "3 of 5, second": (("01234", 3, "041"), True),
    "3 of 5, third": (("01234", 3, "013"), True),
    "3 of 5, fourth": (("01234", 3, "123"), True),
    "3 of 5, fifth": (("01234", 3, "234"), True),
}


def picked(numbers: str) -> list[CryptoSigner]:
    return [KEYS[int(each)] for each in numbers]


@pytest.mark.parametrize("name", ROOTS)
def test_roots_are_walked_one_by_one(client: Client, repo: Repository, name: str) -> None:
    steps, is_right = ROOTS[name]
    for number, (keys, threshold, signers) in enumerate(steps, 1):
        repo.trust("root", *picked(keys), threshold=threshold)
        repo.signers["root"] = picked(signers)
        repo.write("root", version=number)
    assert client.init(repo.path("root", 1).read_bytes())
    assert client.refresh() == is_right
    last = len(steps) if is_right else len(steps) - 1
    assert client.kept("root") == repo.path("root", last).read_bytes()


@pytest.mark.parametrize("name", OTHERS)
def test_keys_of_other_roles_are_replaced(client: Client, repo: Repository, name: str) -> None:
    (keys, threshold, signers), is_right = OTHERS[name]
    for role in ("timestamp", "snapshot", "targets"):
        repo.trust(role, *picked(keys), threshold=threshold)
        repo.signers[role] = picked(signers)
        repo.write("root", "targets", "snapshot", "timestamp")
        assert client.refresh() == is_right
        if is_right:
            assert client.kept(role) == repo.path(role).read_bytes()


# ---- delegations ----------------------------------------------------------------------------------------

# above>role, "!" where it ends the search, [paths]; and the roles that a search for "missing" asks for.
GRAPHS: dict[str, tuple[list[tuple[str, str, str]], str]] = {
    "one": ([("targets", "A", "*")], "A"),
    "two": ([("targets", "A", "*"), ("targets", "B", "*")], "AB"),
    "two levels": ([("targets", "A", "*"), ("targets", "B", "*"), ("B", "C", "*")], "ABC"),
    "depth first": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("A", "C", "*"), ("A", "D", "*")],
        "ACDB",
    ),
    "depth first, three levels": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("A", "C", "*"), ("C", "D", "*")],
        "ACDB",
    ),
    "a terminating role": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("A", "!C", "*"), ("A", "D", "*")],
        "AC",
    ),
    "a terminating role and those below it": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("A", "!C", "*"), ("C", "D", "*")],
        "ACD",
    ),
    "paths that do not match": ([("targets", "A", "*.py"), ("targets", "B", "*"), ("A", "C", "*")], "B"),
    "paths that do not match, below": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("A", "C", "*.py"), ("C", "D", "*")],
        "AB",
    ),
    "a circle": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("B", "C", "*"), ("C", "D", "*"), ("D", "B", "*")],
        "ABCD",
    ),
    "a third that two delegate to": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("B", "C", "*"), ("A", "C", "*")],
        "ACB",
    ),
    "a third that two delegate other paths to": (
        [("targets", "A", "*"), ("targets", "B", "*"), ("B", "C", "*"), ("A", "C", "*.py")],
        "ABC",
    ),
}


def build(repo: Repository, delegations: list[tuple[str, str, str]]) -> None:
    signers: dict[str, CryptoSigner] = {}
    for above, name, paths in delegations:
        role = name.lstrip("!")
        known = signers.get(role)
        signers[role] = known or new_key()
        repo.delegate(above, role, paths.split(), signers[role], terminating=name.startswith("!"))
        repo.signers[role] = [signers[role]]
    repo.write(*signers)


@pytest.mark.parametrize("name", GRAPHS)
def test_delegations_are_searched_in_order_and_depth_first(
    client: Client, repo: Repository, name: str
) -> None:
    delegations, visited = GRAPHS[name]
    build(repo, delegations)
    repo.refresh("targets")
    assert not client.download("missing")
    assert client.asked()[4:] == [f"1.{role}" for role in visited]


TREE = [
    ("targets", "A", "*.doc *.md foo-?.tgz"),
    ("targets", "B", "releases/*/*"),
    ("B", "C", "releases/x/*"),
    ("B", "D", "releases/y/*.zip"),
]
FILES = {
    "file": "targets",
    "README.md": "A",
    "releases/README.md": "A",
    "foo-1.tgz": "A",
    "foo-alpha.tgz": "A",
    "releases/x/x_v1": "C",
    "releases/y/y_v1.zip": "D",
    "releases/z/z_v1.zip": "D",
}


@pytest.mark.parametrize(
    ("path", "is_found", "visited"),
    [
        ("file", True, ""),
        ("README.md", True, "A"),
        ("releases/x/x_v1", True, "BC"),
        ("releases/y/y_v1.zip", True, "BD"),
        ("releases/z/z_v1.zip", False, "B"),  # B may, D may not
        ("releases/README.md", False, ""),  # a star ends at a slash
        ("foo-1.tgz", True, "A"),
        ("foo-alpha.tgz", False, ""),
        ("README.MD", False, ""),
    ],
)
def test_a_target_is_found_where_every_role_above_lets_it(
    client: Client, repo: Repository, path: str, is_found: bool, visited: str
) -> None:
    build(repo, TREE)
    for name, role in FILES.items():
        repo.add_target(name, name.encode(), role)
    repo.write("A", "B", "C", "D")
    repo.refresh("targets")
    assert client.download(path) == is_found
    assert client.got() == ([path.encode()] if is_found else [])
    assert client.asked()[4:] == [f"2.{role}" for role in visited]


def test_a_role_that_was_verified_for_one_is_verified_again_for_the_other(
    client: Client, repo: Repository
) -> None:
    """Two roles delegate to one name by different keys; it is signed for the first alone."""
    first, second = new_key(), new_key()
    for name in ("a", "b"):
        repo.delegate("targets", f"parent-{name}", [f"{name}/*"])
    repo.delegate("parent-a", "release", ["a/*"], first)
    repo.delegate("parent-b", "release", ["b/*"], second)
    repo.signers["release"] = [first]
    for name in ("a", "b"):
        repo.add_target(f"{name}/file", name.encode(), "release")
    repo.write("release", "parent-a", "parent-b")
    repo.refresh("targets")
    assert not client.download("a/file", "b/file") and client.got() in ([b"a"], [])


def test_a_delegated_role_outside_the_snapshot_is_not_asked_for(client: Client, repo: Repository) -> None:
    repo.delegate("targets", "delegated", ["delegated/*"])
    repo.write("delegated", "targets")
    del repo.snapshot.meta["delegated.json"]
    repo.write("snapshot", "timestamp")
    assert client.refresh()
    client.asked()
    assert not client.download("delegated/file") and "delegated" not in client.versions()
    assert client.asked() == ["2.root", "timestamp"]


def test_a_repository_as_an_operator_publishes_it(fast_path: Path) -> None:
    """Ours, of three versions and a rotation of nothing: refresh, and a target behind a delegation."""
    fleet = Fleet(fast_path / "fleet")
    for number in (1, 2):
        fleet.release(number)
    with serving(fast_path / "fleet" / "releases") as host:
        made = Client(fast_path / "client", host)
        assert made.init(fleet.roots[0]) and made.refresh()
        assert made.download(formats.release_path(MODEL, 2)) and b'"release":2' in made.got()[0]


# ---- the suite's cases ----------------------------------------------------------------------------------

# File of the suite: its case -> the test here or in test_tuf_cases.py.
CASES = {
    "test_basic.py": {
        "test_basic_refresh_requests": "test_a_refresh_asks_in_the_order_of_the_workflow",
        "test_basic_refresh_trusted_data": "test_what_was_verified_is_kept",
        "test_implicit_refresh": "test_a_download_refreshes_first",
        "test_invalid_initial_root": "test_a_root_that_is_none_is_never_trusted",
        "test_unsigned_initial_root": "test_a_first_root_with_a_bad_signature_is_never_trusted",
        "test_unsigned_metadata": "test_an_unsigned_role_stops_where_it_stands",
        "test_url_and_metadata_version_mismatch": "test_another_version_than_the_name_says_is_refused",
        "test_timestamp_content_changes": "test_a_timestamp_that_changes_without_a_new_version_is_not_taken",
        "test_basic_metadata_hash_support": "test_hashes_of_metadata_are_checked_and_right_ones_pass",
        "test_targets_hash_mismatch": "test_a_role_with_another_hash_than_named_is_refused",
        "test_snapshot_hash_mismatch": "test_a_role_with_another_hash_than_named_is_refused",
        "test_metadata_bytes_match": "test_the_bytes_that_came_are_the_bytes_that_are_kept",
        "test_custom_fields": "test_fields_that_nobody_knows_are_kept_and_signed",
        "test_deprecated_keyid_hash_algorithms": "test_a_field_of_old_that_misleads_is_passed_over",
        "test_snapshot_404": "test_what_is_missing_ends_the_refresh_there",
        "test_targets_404": "test_what_is_missing_ends_the_refresh_there",
        "test_timestamp_404": "test_what_is_missing_ends_the_refresh_there",
        "test_incorrect_metadata_type": "test_a_snapshot_in_a_timestamps_place_is_refused",
        "test_faketime": "test_the_clock_of_the_device_decides",
    },
    "test_expiration.py": {
        "test_root_expired": "test_of_an_expired_root_only_the_root_is_taken",
        "test_timestamp_expired": "test_an_expired_role_takes_no_place",
        "test_snapshot_expired": "test_an_expired_role_takes_no_place",
        "test_targets_expired": "test_an_expired_role_takes_no_place",
        "test_expired_local_root": "test_an_expired_root_here_is_replaced_by_a_newer_one",
        "test_expired_local_timestamp": "test_an_expired_timestamp_here_is_replaced_and_still_counts",
    },
    "test_file_download.py": {
        "test_client_downloads_expected_file": "test_a_target_comes_as_it_was_signed",
        "test_client_downloads_expected_file_in_sub_dir": "test_a_target_comes_as_it_was_signed",
        "test_repository_substitutes_target_file": "test_a_substituted_target_of_the_same_length_is_refused",
        "test_multiple_changes_to_target": "test_a_target_that_changes_often_is_never_a_false_one",
        "test_download_with_hash_algorithms": "test_hash_algorithms",
        "test_download_with_unknown_hash_algorithm": (
            "test_a_hash_algorithm_that_nobody_knows_vouches_for_nothing"
        ),
        "test_artifact_cache": "test_a_target_that_is_here_is_not_fetched_again",
    },
    "test_keys.py": {
        "test_snapshot_does_not_meet_threshold": "test_a_snapshot_below_its_threshold_is_refused",
        "test_snapshot_has_too_few_keys": "test_a_threshold_above_the_number_of_keys_is_never_met",
        "test_duplicate_keys": "test_the_same_key_twice_is_one_key",
        "test_duplicate_sig_keyids": "test_a_signature_that_is_listed_twice_is_refused",
        "test_keytype_and_scheme": "test_kinds_of_keys",
        "test_invalid_sig_in_valid_metadata": "test_a_bad_signature_beside_enough_good_ones_does_no_harm",
    },
    "test_quoting_issues.py": {
        "test_unusual_role_name": "test_a_role_with_an_unusual_name_leads_nowhere_else",
    },
    "test_rollback.py": {
        "test_new_timestamp_version_rollback": "test_an_older_timestamp_is_refused",
        "test_snapshot_rollback": "test_older_metadata_is_refused",
        "test_targets_role_removal": "test_a_role_may_not_leave_the_snapshot",
        "test_targets_fast_forward_recovery": "test_new_keys_undo_a_version_far_ahead",
        "test_new_snapshot_fast_forward_recovery": "test_new_keys_undo_a_version_far_ahead",
        "test_new_timestamp_fast_forward_recovery": "test_new_keys_undo_a_version_far_ahead",
        "test_targets_rollback": "test_older_metadata_is_refused",
    },
    "test_static_repositories.py": {
        "test_static_repository": "test_a_repository_as_an_operator_publishes_it",
    },
    "test_updater_delegation_graphs.py": {
        "test_graph_traversal": "test_delegations_are_searched_in_order_and_depth_first",
        "test_targetfile_search": "test_a_target_is_found_where_every_role_above_lets_it",
        "test_cached_role_is_verified_against_current_delegator": (
            "test_a_role_that_was_verified_for_one_is_verified_again_for_the_other"
        ),
        "test_delegation_not_in_snapshot": "test_a_delegated_role_outside_the_snapshot_is_not_asked_for",
    },
    "test_updater_key_rotations.py": {
        "test_root_rotation": "test_roots_are_walked_one_by_one",
        "test_non_root_rotations": "test_keys_of_other_roles_are_replaced",
    },
}


def test_every_case_of_the_suite_has_a_test_here() -> None:
    here = Path(__file__)
    found = {
        node.name
        for path in (here, here.with_name("test_tuf_cases.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    ours = [name for cases in CASES.values() for name in cases.values()]
    assert len(ours) == 53 and set(ours) <= found
    assert found - set(ours) == {"test_every_case_of_the_suite_has_a_test_here"}
