"""The life of keys on real files: begin, lose, replace, recover from paper; each mistake in one sentence."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from edgekd.errors import ArtifactError, ConfigError, EdgekdError, RolloutError, VerifyError
from edgekd.fleet import keyfiles, keys, keystatus, sheets
from edgekd.fleet.home import Home, open_home, sign_with
from edgekd.fleet.keyring import key_of_pem
from edgekd.fleet.repository import verify_folder

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PASSPHRASE = "a long passphrase"


def ask(name: str) -> str:
    return f"{PASSPHRASE} of {name}"


def never(name: str) -> str:
    raise AssertionError(f"key {name} is not needed here")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet") / "fleet"
    made = keys.init(folder, "plant", NOW, ask, rounds=1)
    (folder.parent / "sheets.json").write_text(json.dumps(dict(made.sheets)))
    return folder


@pytest.fixture
def home(begun: Path, tmp_path: Path) -> Home:
    """A copy of a fleet that has just been begun."""
    shutil.copytree(begun, tmp_path / "fleet")
    return open_home(tmp_path / "fleet", NOW)


def check(home: Home) -> None:
    """Both published repositories verify as a client would do it, and nothing waits."""
    pair = home.open()
    assert not pair.releases.pending and not pair.rollout.pending
    for repository in (pair.releases, pair.rollout):
        verify_folder(repository)


def test_a_fleet_begins_with_six_keys_that_only_their_owner_reads(home: Home) -> None:
    assert list(home.ring.entries) == ["root-1", "root-2", "root-3", "targets-1", "targets-2", "online-1"]
    for name in home.ring.entries:
        file = home.ring.file(name)
        assert file is not None and file.stat().st_mode & 0o777 == 0o600
        assert b"OPENSSH PRIVATE KEY" in file.read_bytes()
    assert (home.folder / "keys").stat().st_mode & 0o777 == 0o700
    check(home)


def test_no_secret_is_in_what_is_published_or_said(home: Home, begun: Path) -> None:
    sheets_of = json.loads((begun.parent / "sheets.json").read_text())
    secret = re.findall(r"1:  ([A-Z2-7 ]+)", sheets_of["root-1"])[0].replace(" ", "")
    for path in [*home.host.rglob("*.json"), home.folder / "keys.json"]:
        assert secret not in path.read_text().upper()
    assert "secret" not in json.dumps(keystatus.status(home))


@pytest.mark.parametrize("duty", ["root", "targets", "online"])
def test_a_key_is_replaced_and_the_fleet_still_verifies(home: Home, duty: str) -> None:
    done = keys.rotate(home, f"{duty}-1", ask, rounds=1)
    assert done["lacking"] == [] and done["new"] == f"{duty}-{keys.COUNTS[duty] + 1}"
    check(home)
    force = keys.in_force(home, home.open())
    assert done["new"] in force and f"{duty}-1" not in force
    with pytest.raises(ConfigError, match=f"{duty}-1 is not in force any more"):
        keys.rotate(home, f"{duty}-1", ask, rounds=1)


def test_a_lost_root_key_is_replaced_by_the_other_two(home: Home) -> None:
    (home.folder / "keys/root-2.key").unlink()
    done = keys.rotate(home, "root-2", ask, rounds=1)
    assert done["signed_by"] == ["root-1", "root-3"] and not done["lacking"]
    check(home)
    for name in ("online-1", "targets-1", "root-1"):  # and life goes on
        assert not keys.rotate(home, name, ask, rounds=1)["lacking"]
    check(home)


def test_with_two_root_keys_lost_nothing_can_be_replaced(home: Home) -> None:
    for name in ("root-1", "root-2"):
        (home.folder / f"keys/{name}.key").unlink()
    done = keys.rotate(home, "root-1", ask, rounds=1)
    assert done["published"] == [] and done["lacking"] == [
        "releases: root has 1 of 2 signatures",
        "rollout: root has 1 of 2 signatures",
    ]
    with pytest.raises(VerifyError, match="root has 1 of 2 signatures"):
        home.publish(home.open())
    with pytest.raises(RolloutError, match="an earlier change waits"):
        keys.rotate(home, "online-1", ask, rounds=1)


def test_two_holders_sign_one_after_the_other(home: Home, tmp_path: Path) -> None:
    """The folder is carried from one to the other, each with only his own root key in it."""
    second = tmp_path / "of-the-second"
    (home.folder / "keys/root-3.key").unlink()
    shutil.move(home.folder / "keys/root-2.key", tmp_path / "root-2.key")
    assert keys.rotate(home, "online-1", ask, rounds=1)["lacking"] == ["rollout: root has 1 of 2 signatures"]
    shutil.copytree(home.folder, second)
    shutil.rmtree(second / "keys")
    (second / "keys").mkdir(mode=0o700)
    shutil.move(tmp_path / "root-2.key", second / "keys/root-2.key")
    other = open_home(second, NOW)
    done = other.finish(other.open(), ask)
    assert done["signed_by"] == ["root-2"] and done["lacking"] == []
    check(other)


def test_only_keys_that_are_needed_are_asked_for(home: Home) -> None:
    asked: list[str] = []

    def asking(name: str) -> str:
        asked.append(name)
        return ask(name)

    keys.refresh(home, asking)
    assert asked == ["online-1"]


def test_daily_signing_changes_the_timestamp_alone(home: Home) -> None:
    for day, files in ((1, 1), (2, 1), (4, 3)):
        later = open_home(home.folder, NOW + timedelta(days=day))
        assert len(keys.refresh(later, ask)["published"]) == files
        check(later)


def test_warnings_come_at_30_percent_of_a_life(home: Home) -> None:
    def warned(days: float) -> list[str]:
        found = keystatus.status(open_home(home.folder, NOW + timedelta(days=days)))["warnings"]
        return [line for line in found if "expire" in line]

    assert warned(4.8) == []
    assert len(warned(5.0)) == 3 and "rollout: timestamp expires in 2.0 days; run keys.refresh" in warned(5.0)
    assert any("releases: targets expires in 54.0 days; run keys.refresh --offline" in w for w in warned(126))
    assert any("rollout: timestamp has expired, and devices install nothing" in w for w in warned(8))


def test_the_offline_part_is_signed_anew(home: Home) -> None:
    later = open_home(home.folder, NOW + timedelta(days=170))
    assert not keys.refresh(later, ask, offline=True)["lacking"]
    check(later)
    assert [w for w in keystatus.status(later)["warnings"] if "expire" in w] == []


def test_an_expired_offline_part_is_refused_before_anything_is_chosen(home: Home) -> None:
    late = open_home(home.folder, NOW + timedelta(days=181))
    with pytest.raises(RolloutError, match=r"targets has expired.*keys\.refresh --offline"):
        keys.refuse_expired(late, late.open())


# ---- paper ----------------------------------------------------------------------------------------------


@pytest.fixture
def sheet(begun: Path) -> str:
    text: str = json.loads((begun.parent / "sheets.json").read_text())["root-3"]
    return text


def test_a_key_comes_back_from_paper(home: Home, sheet: str) -> None:
    file = home.folder / "keys/root-3.key"
    file.unlink()
    typed = sheet.lower().replace(" ", "  ").replace("\n", "\n\n")  # as people type
    assert keys.recover(home, "root-3", typed, "sheet.txt", ask, rounds=1) == file
    (home.folder / "keys/root-1.key").unlink()
    assert not keys.rotate(home, "root-1", ask, rounds=1)["lacking"]
    check(home)


@pytest.mark.parametrize("line", [1, 2, 3, 4])
@pytest.mark.parametrize("mistake", ["letter", "missing", "short"])
def test_a_mistyped_line_is_named(home: Home, sheet: str, line: int, mistake: str) -> None:
    (home.folder / "keys/root-3.key").unlink()
    rows = sheet.splitlines()
    at = next(i for i, row in enumerate(rows) if row.strip().startswith(f"{line}:"))
    letter = "A" if rows[at][7] != "A" else "B"
    rows[at] = {
        "letter": rows[at][:7] + letter + rows[at][8:],
        "missing": "",
        "short": rows[at][:-1],
    }[mistake]
    with pytest.raises(ArtifactError, match=f"sheet.txt: line {line} is mistyped"):
        keys.recover(home, "root-3", "\n".join(rows), "sheet.txt", ask, rounds=1)
    assert not (home.folder / "keys/root-3.key").exists()


def test_swapped_lines_and_another_keys_sheet_are_refused(home: Home, sheet: str) -> None:
    (home.folder / "keys/root-2.key").unlink()
    with pytest.raises(ArtifactError, match="another key's sheet"):
        keys.recover(home, "root-2", sheet, "sheet.txt", ask, rounds=1)
    swapped = sheet.replace("1: ", "x: ").replace("2: ", "1: ").replace("x: ", "2: ")
    with pytest.raises(ArtifactError, match="line 1 is mistyped"):
        keys.recover(home, "root-3", swapped, "sheet.txt", ask, rounds=1)


def test_a_key_that_is_there_is_not_written_over(home: Home, sheet: str) -> None:
    with pytest.raises(ConfigError, match="a key is there already"):
        keys.recover(home, "root-3", sheet, "sheet.txt", ask, rounds=1)


def test_the_file_of_sheets_is_private_and_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / sheets.FILE
    sheets.write(file, ["one", "two"])
    assert file.stat().st_mode & 0o777 == 0o600 and file.read_text() == "one\ftwo"
    with pytest.raises(ConfigError, match="sheets lie there already"):
        sheets.write(file, ["three"])


def test_a_file_of_sheets_that_was_left_is_warned_of(home: Home) -> None:
    sheets.write(home.folder / sheets.FILE, ["one"])
    assert any("holds secrets unencrypted" in line for line in keystatus.status(home)["warnings"])


# ---- bad input ------------------------------------------------------------------------------------------


BAD_FILES = [
    ("missing", "the key cannot be read .No such file", ConfigError),
    ("world-readable", r"others may read it \(mode 644\); chmod 600", ConfigError),
    ("group-readable", r"others may read it \(mode 640\); chmod 600", ConfigError),
    ("truncated", "wrong passphrase, or damaged", ConfigError),
    ("no key", "wrong passphrase, or damaged", ConfigError),
    ("unencrypted", "wrong passphrase, or damaged", ConfigError),
    ("another key", "another key's secret; bring that of key", VerifyError),
]


@pytest.mark.parametrize(("damage", "message", "kind"), BAD_FILES)
def test_a_bad_key_file_is_one_sentence(
    home: Home, damage: str, message: str, kind: type[EdgekdError]
) -> None:
    file = home.folder / "keys/online-1.key"
    if damage == "missing":
        file.unlink()
    elif damage.endswith("readable"):
        file.chmod(0o644 if damage == "world-readable" else 0o640)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:150])
    elif damage == "no key":
        file.write_bytes(b"\0" * 100)
    elif damage == "unencrypted":
        file.write_bytes(keyfiles.generate().private_bytes)
    else:
        file.unlink()
        keyfiles.write_key(file, keyfiles.generate(), ask("online-1"), rounds=1)
    with pytest.raises(kind, match=message) as caught:
        home.ring.signer("online-1", ask)
    assert "\n" not in str(caught.value)
    assert home.open().rollout.version("timestamp") == 1


def test_a_wrong_passphrase_changes_nothing_and_the_next_try_works(home: Home) -> None:
    with pytest.raises(ConfigError, match="wrong passphrase"):
        keys.refresh(home, lambda name: "not this passphrase")
    assert keys.refresh(home, ask)["published"] == ["rollout/timestamp.json"]


def test_a_short_passphrase_makes_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 5 characters; it needs 12"):
        keys.init(tmp_path / "fleet", "plant", NOW, lambda name: "short", rounds=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, 31])
def test_an_expiry_too_far_ahead_is_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(ConfigError, match=f"--online-days is {days}; it must be from 1 to 30"):
        keys.init(tmp_path / "fleet", "plant", NOW, ask, online_days=days, rounds=1)


def test_thirty_days_are_told_to_the_devices(tmp_path: Path) -> None:
    made = keys.init(tmp_path / "fleet", "plant", NOW, ask, online_days=30, rounds=1)
    pair = made.home.open()
    assert pair.releases.targets().targets["fleet.json"].custom["max_ahead_days"] == 30
    assert (pair.rollout.timestamp().expires - NOW.replace(tzinfo=UTC)).days == 30


def test_a_fleet_is_not_begun_over_another(home: Home) -> None:
    with pytest.raises(ConfigError, match="a fleet is there already"):
        keys.init(home.folder, "plant", NOW, ask, rounds=1)


def test_a_folder_without_a_fleet_and_a_damaged_one(tmp_path: Path, home: Home) -> None:
    with pytest.raises(ConfigError, match=r"no fleet is here; begin one with keys\.init"):
        open_home(tmp_path, NOW)
    (home.folder / "keys.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        open_home(home.folder, NOW)


def test_an_unknown_key_and_one_with_nothing_to_sign(home: Home) -> None:
    with pytest.raises(ConfigError, match="no key is named 'rot-1'; did you mean root-1"):
        keys.rotate(home, "rot-1", ask, rounds=1)
    with pytest.raises(ConfigError, match="key root-1 has nothing to sign here"):
        sign_with(home.ring, home.open(), never, ["root-1"])


def test_a_damaged_proposal_is_named(home: Home) -> None:
    (home.proposed / "rollout").mkdir(parents=True)
    (home.proposed / "rollout/targets.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"targets.json: damaged; remove its folder"):
        home.open()


# ---- keys elsewhere -------------------------------------------------------------------------------------


def test_a_key_behind_a_signers_uri_signs(home: Home, tmp_path: Path) -> None:
    """securesystemslib's own file signer stands for an HSM or a KMS: the same two calls, an ECDSA key."""
    secret = generate_private_key(SECP256R1())
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "kms.pem").write_bytes(pem)
    public = secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "kms.pub").write_bytes(public)
    elsewhere = keys.Elsewhere(f"file2:{tmp_path / 'kms.pem'}", key_of_pem(tmp_path / "kms.pub"))
    done = keys.rotate(home, "online-1", ask, elsewhere=elsewhere)
    assert done["signed_by"][0] == "online-2" and done["sheet"] is None
    check(home)
    assert keys.refresh(home, never)["published"] == ["rollout/timestamp.json"]
    with pytest.raises(ConfigError, match=r"behind a signer \(file2\) and has no paper"):
        keys.recover(home, "online-2", "", "sheet.txt", ask)


@pytest.mark.parametrize("uri", ["kms9:x", "hsm:", "file2:/nowhere/at/all"])
def test_a_signer_that_is_not_there_is_one_sentence(home: Home, tmp_path: Path, uri: str) -> None:
    public = home.ring.entry("online-1").public
    elsewhere = keys.Elsewhere(uri, public)
    other = keys.Keyring(home.folder, "plant", 7, {"online-2": keys.Entry("online-2", "online", uri, public)})
    assert elsewhere.uri == uri
    with pytest.raises(
        ConfigError, match=rf"key online-2 \({uri.partition(':')[0]}\): .+; mend that"
    ) as caught:
        other.signer("online-2", ask)
    assert "\n" not in str(caught.value)


def test_pkcs8_files_made_elsewhere_are_read(home: Home) -> None:
    file = home.folder / "keys/online-1.key"
    signer = home.ring.signer("online-1", ask)
    assert isinstance(signer, keyfiles.CryptoSigner)
    encryption = BestAvailableEncryption(ask("online-1").encode())
    secret = keyfiles._secret(signer)
    file.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    assert keys.refresh(home, ask)["signed_by"] == ["online-1"]


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pub").write_bytes(content)
    with pytest.raises(ConfigError, match="no public key in PEM"):
        key_of_pem(tmp_path / "x.pub")
