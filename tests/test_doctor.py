"""doctor: what is there is found, what is missing comes with what it is for and the line that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd import doctor

BARE = doctor.Tool("thing", "nothing at all", "apt-get install thing", programs=("no-such-program-anywhere",))


def test_every_row_is_either_there_or_says_how_to_get_it() -> None:
    rows = doctor.examine()
    assert [row.name for row in rows] == [tool.name for tool in doctor.TOOLS]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.purpose
        assert row.found == bool(row.version) and row.found != bool(row.install), row


def test_a_missing_program_names_the_line() -> None:
    assert doctor.probe(BARE) == doctor.Row("thing", False, "", "nothing at all", "apt-get install thing")


def test_a_missing_package_names_the_line() -> None:
    row = doctor.probe(
        doctor.Tool("thing", "x", "pip install thing", distribution="no-such-package-anywhere")
    )
    assert not row.found and row.install == "pip install thing"


def test_what_does_not_exist_for_this_machine_says_so() -> None:
    tool = doctor.Tool(
        "thing", "x", "pip install thing", distribution="no-such-package", only_on=lambda: False
    )
    assert "no build of it exists" in doctor.probe(tool).install


@pytest.mark.parametrize(
    ("body", "version"),
    [
        ("echo 'thing 1.2'; echo more", "thing 1.2"),
        ("exit 1", "there"),  # sshd knows no --version
        ("echo unwanted; exit 1", "there"),
        ("true", "there"),
    ],
)
def test_a_program_says_its_version_or_is_just_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, version: str
) -> None:
    program = tmp_path / "no-such-program-anywhere"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor.probe(BARE).version == version
    assert doctor.probe(BARE, ask_version=False).version == "there"


def test_packages_are_found_without_being_imported() -> None:
    before = set(sys.modules)
    assert doctor.probe(doctor.by_name("numpy")).found
    doctor.examine()
    assert not {"torch", "onnx", "unicorn"} & (set(sys.modules) - before)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="gcc-arm"):
        doctor.by_name("gcc-amr")
