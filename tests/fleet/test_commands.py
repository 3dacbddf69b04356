"""The tasks of keys and releases as a person meets them: what they print, one sentence for each mistake."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekd.cli import ns, passphrases
from edgekd.cli.program import EdgekdProgram
from edgekd.errors import ConfigError
from edgekd.fleet import keys

PASSPHRASE = "a long passphrase"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet in a project that is the working directory."""
    (tmp_path / ".edgekd").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(passphrases.VARIABLE, PASSPHRASE)
    keys.init(tmp_path / "fleet", "plant", datetime.now(UTC), passphrases.ask_new, rounds=1)
    return tmp_path / "fleet"


def edgekd(*arguments: str) -> int:
    """Run a task in this process; its exit code."""
    program = EdgekdProgram(namespace=ns, name="edgekd", binary="edgekd")
    with pytest.raises(SystemExit) as caught:
        program.run(["edgekd", *arguments])
        raise SystemExit(0)
    return int(caught.value.code or 0)


def test_status_is_shown_and_given_as_json(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgekd("keys.status") == 0
    shown = capsys.readouterr()
    assert "timestamp" in shown.out and "online-1" in shown.out
    assert "root-1 and root-2 and root-3 lie in one folder" in shown.err
    assert edgekd("keys.status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["fleet"] == "plant"
    assert edgekd("keys.status", "--strict") == 8


def test_a_key_is_refreshed_and_rotated(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgekd("keys.refresh") == 0
    assert "published rollout/timestamp.json" in capsys.readouterr().out
    (fleet / "keys/root-2.key").unlink()
    (fleet / "keys/root-3.key").unlink()
    assert edgekd("keys.rotate", "online-1") == 0
    shown = capsys.readouterr()
    assert "waiting: rollout: root has 1 of 2 signatures" in shown.out
    assert "edgekd release.sign --keys NAME" in shown.err


BAD = [
    (("keys.status", "--fleet", "nowhere"), 2, "no fleet is here; begin one with keys.init"),
    (("keys.init",), 2, "a fleet is there already"),
    (("keys.init", "--fleet", "other", "--online-days", "31"), 2, "must be from 1 to 30"),
    (("keys.init", "--fleet", "other", "--online-days", "seven"), 2, "must be a whole number"),
    (("keys.rotate", "root-9"), 2, "no key is named 'root-9'"),
    (("keys.rotate", "online-1", "--signer", "hsm:2"), 2, "--public its public half; give both"),
    (("keys.rotate", "online-1", "--signer", "hsm:2", "--public", "no.pem"), 2, "no.pem: cannot be read"),
    (("keys.recover", "root-1"), 2, "no sheet is named"),
    (("keys.recover", "root-1", "--paper", "no.txt"), 3, "no.txt: cannot be read as text"),
    (("release.create",), 2, "no target is named; add --target NAME"),
    (("release.sign",), 8, "nothing waits for signatures"),
    (("release.publish",), 8, "nothing waits to be published"),
    (("release.floor", "digits", "one"), 2, "must be a whole number"),
    (("release.floor", "digits", "1"), 8, "there is no release 1 that the floor could be"),
    (("release.withdraw", "digits", "1"), 8, "there is no release 1 to withdraw"),
    (("fleet.devices", "--where", "x"), 2, "is no KEY=PATTERN"),
    (("fleet.devices", "--inventory", "no.toml"), 2, "no.toml: cannot be read"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"), BAD, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    fleet: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert edgekd(*arguments) == code
    said = capsys.readouterr().err.strip()
    assert message in said and said.startswith("edgekd: ") and "\n" not in said


def test_without_a_passphrase_or_a_terminal_the_way_is_said(
    fleet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(passphrases.VARIABLE)
    assert edgekd("keys.refresh") == 2
    assert "set EDGEKD_PASSPHRASE_ONLINE_1 or EDGEKD_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv("EDGEKD_PASSPHRASE_ONLINE_1", PASSPHRASE)
    assert edgekd("keys.refresh") == 0


def test_a_new_passphrase_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(passphrases.VARIABLE, raising=False)
    typed = iter(["one passphrase", "another one"])
    monkeypatch.setattr(passphrases, "_typed", lambda prompt, name: next(typed))
    with pytest.raises(ConfigError, match="the two passphrases of key root-1 differ"):
        passphrases.ask_new("root-1")


def test_devices_are_listed_without_a_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".edgekd").mkdir()
    (tmp_path / "inventory.toml").write_text('[hosts]\nhall = { address = "h", labels = { site = "n" } }\n')
    monkeypatch.chdir(tmp_path)
    assert edgekd("fleet.devices", "--where", "site=n", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["device"] == "hall"
