"""Declarations and target profiles: each mistake is one sentence that names file, key and mend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekd.declaration import list_named, setting, suggest, told
from edgekd.errors import ConfigError
from edgekd.resources import resource_dir
from edgekd.target import load_target

GOOD = """
name = "board"
description = "a board"
kind = "mcu"
[core]
cpu = "cortex-m4"
clock_hz = 64000000
[memory]
flash_bytes = 65536
ram_bytes = 16384
[emulator]
engine = "unicorn"
"""


def write(tmp_path: Path, text: str, name: str = "board") -> list[Path]:
    (tmp_path / f"{name}.toml").write_text(text)
    return [tmp_path]


def test_a_good_profile_loads_with_its_defaults(tmp_path: Path) -> None:
    target = load_target("board", write(tmp_path, GOOD))
    assert target.core is not None and target.core.clock_hz == 64_000_000 and not target.core.fpu
    assert target.cost.branch_taken == 3


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        ('cpu = "cortex-m4"', 'cpu = "cortexm4"', r"core\.cpu is 'cortexm4'; did you mean cortex-m4"),
        ("clock_hz = 64000000", "clok_hz = 64000000", r"unknown key core\.clok_hz; did you mean clock_hz"),
        ("clock_hz = 64000000", 'clock_hz = "fast"', r"core\.clock_hz must be int, not str"),
        ("clock_hz = 64000000", "clock_hz = true", r"core\.clock_hz must be int, not bool"),
        ("clock_hz = 64000000", "clock_hz = 5", r"core\.clock_hz is 5 Hz; it must be from 1000000 to"),
        ("flash_bytes = 65536", "", r"memory\.flash_bytes is missing"),
        ("[core]", "core = 3\n[cost]", r"core must be a table|unknown key"),
        ('name = "board"', 'name = "bord"', r"name is 'bord'; it must be 'board'"),
        ('kind = "mcu"', 'kind = "linux"', r"kind 'linux' needs the table \[connection\]"),
        ('kind = "mcu"', "kind = ", r"not valid TOML.*mend that line"),
    ],
)
def test_a_mistake_names_file_key_and_mend(tmp_path: Path, change: str, to: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_target("board", write(tmp_path, GOOD.replace(change, to)))
    assert "board.toml" in str(raised.value) and "\n" not in str(raised.value)


def test_an_unknown_target_suggests_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'bord' does not exist; did you mean board\?"):
        load_target("bord", write(tmp_path, GOOD))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_target("board", [tmp_path])


@pytest.mark.parametrize("name", sorted(list_named([resource_dir("targets")])))
def test_every_shipped_profile_loads(name: str) -> None:
    assert load_target(name, [resource_dir("targets")]).description


def test_suggest_lists_all_where_nothing_is_near() -> None:
    assert suggest("zzz", ["a", "b"]) == "; known: a, b"
    assert suggest("zzz", []) == "; known: none"


@dataclass(frozen=True)
class Inner:
    old: int = setting(1)
    new: str = setting("", later=True)


@dataclass(frozen=True)
class Outer:
    inner: Inner = setting(Inner())
    many: tuple[Inner, ...] = setting(())
    new: float = setting(0.0, later=True)


def test_what_came_later_is_told_only_where_it_is_used() -> None:
    """So that keys of artifacts made before stay what they were."""
    assert told(Outer(many=(Inner(2),))) == {"inner": {"old": 1}, "many": ({"old": 2},)}
    used = Outer(Inner(new="x"), new=0.5)
    assert told(used) == {"inner": {"old": 1, "new": "x"}, "many": (), "new": 0.5}
