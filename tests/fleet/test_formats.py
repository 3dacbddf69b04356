"""docs/formats/fleet.md is held to the code, and every value that is signed to its range."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgekd.fleet import formats
from edgekd.fleet.fields import FormatError, parse
from tests.fleet.made import HARDWARE, MODEL, SALT, make_release

TEXT = (Path(__file__).resolve().parents[2] / "docs/formats/fleet.md").read_text("utf-8")
DESCRIBED = (
    formats.FleetPolicy,
    formats.ModelPolicy,
    formats.ReleaseNote,
    formats.Release,
    formats.Health,
    formats.Watch,
    formats.Wave,
    formats.Base,
)
WAVE = {
    "schema": 1,
    "rollout": "digits-2",
    "model": MODEL,
    "hardware": HARDWARE,
    "release": 2,
    "salt": SALT,
    "ppm": 100_000,
    "state": "running",
    "deadline_s": 3600,
    "releases_version": 1,
}


@pytest.mark.parametrize("cls", DESCRIBED, ids=lambda cls: cls.__name__)
def test_the_page_has_every_key(cls: Any) -> None:
    section = TEXT.split(f"### {cls.__name__}\n")[1].split("\n### ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    if cls is formats.Wave:  # the test vectors
        described = {name for name in described if not re.fullmatch("[0-9a-f]{32}", name)}
    assert described == {field.name for field in dataclasses.fields(cls)}


def test_the_pages_test_vectors() -> None:
    rows = re.findall(r"\| `([0-9a-f]{32})` \| `([\w-]+)` \| `([0-9a-f]{16})` \| ([\d,]+) \|", TEXT)
    assert len(rows) == 4
    for salt, device, mark, ppm in rows:
        first = int(ppm.replace(",", ""))
        assert formats.wave_mark(salt, device) == mark
        wave = formats.parse_wave(WAVE | {"salt": salt, "ppm": first}, MODEL, HARDWARE)
        assert formats.in_wave(wave, device)
        assert not formats.in_wave(dataclasses.replace(wave, ppm=first - 1), device)
        assert formats.in_wave(dataclasses.replace(wave, ppm=0, canaries=(mark,)), device)


def test_everybody_and_nobody() -> None:
    wave = formats.parse_wave(WAVE, MODEL, HARDWARE)
    devices = [f"pi-{number}" for number in range(2000)]
    counts = {
        ppm: sum(formats.in_wave(dataclasses.replace(wave, ppm=ppm), device) for device in devices)
        for ppm in (0, 100_000, formats.PPM)
    }
    assert counts[0] == 0 and counts[formats.PPM] == 2000 and 150 < counts[100_000] < 250


@pytest.mark.parametrize("cls", DESCRIBED, ids=lambda cls: cls.__name__)
def test_what_is_dumped_is_read_again(cls: Any) -> None:
    made = {
        formats.Release: make_release(3),
        formats.ReleaseNote: make_release(3).note,
        formats.Wave: formats.parse_wave(WAVE, MODEL, HARDWARE),
        formats.Base: formats.Base(1, MODEL, HARDWARE, 1, 1),
        formats.FleetPolicy: formats.FleetPolicy(1, "fleet"),
        formats.ModelPolicy: formats.ModelPolicy(1, MODEL),
    }.get(cls) or cls()
    again = json.loads(formats.dump_bytes(made))
    assert parse(cls, again | {"of_a_later_edgekd": [1]}, "here") == made


def release(**changes: Any) -> bytes:
    return json.dumps(formats.dump(make_release(3)) | changes).encode()


BAD_RELEASES = {
    "another release": ({"release": 4}, "release is 4, but its place says 3"),
    "another model": ({"model": "kws"}, "model is 'kws'"),
    "a schema of tomorrow": ({"schema": 2}, "schema: is 2"),
    "a bool for a number": ({"schema": True}, "must be int, not bool"),
    "no hardware": ({"hardware": []}, "hardware names nothing"),
    "a path upwards": ({"files": {"../x": {"sha256": "0" * 64, "size_bytes": 1}}}, "is no name"),
    "an absolute path": ({"files": {"/etc/x": {"sha256": "0" * 64, "size_bytes": 1}}}, "is no name"),
    "a hidden upwards": ({"files": {"a/../../x": {"sha256": "0" * 64, "size_bytes": 1}}}, "is no name"),
    "a hash that is none": ({"files": {"x": {"sha256": "00", "size_bytes": 1}}}, "not what may stand there"),
    "a bench record elsewhere": ({"bench": "other.json"}, "other.json is not among its files"),
    "no golden vectors": ({"golden": []}, "golden names no vectors"),
    "no bundle": ({"bundle": "firmware"}, "no file lies in its bundle"),
    "a limit that is none": ({"health": {"latency_ratio_p10": float("nan")}}, "latency_ratio_p10: is nan"),
    "a failure rate of a half": ({"tolerated_failure_rate": 0.9}, "must be from"),
    "a list for a table": ({"files": []}, "must be a dict"),
    "hardware twice": ({"hardware": ["rpi4", "rpi4"]}, "names something twice"),
}


@pytest.mark.parametrize("case", BAD_RELEASES, ids=str)
def test_a_bad_release_is_refused_in_one_sentence(case: str) -> None:
    changes, message = BAD_RELEASES[case]
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        formats.parse_release(release(**changes), MODEL, 3)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_a_folder_is_refused() -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    files = formats.dump(make_release(3))["files"] | {"bundle": entry}
    with pytest.raises(FormatError, match="a file and a folder at once"):
        formats.parse_release(release(files=files), MODEL, 3)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=lambda data: repr(data[:4]))
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        formats.parse_release(data, MODEL, 3)


BAD_WAVES = {
    "another hardware": ({"hardware": "rpi4"}, "its place says 'pi-sim'"),
    "too many": ({"ppm": 1_000_001}, "ppm: is 1000001"),
    "less than nobody": ({"ppm": -1}, "ppm: is -1"),
    "a short salt": ({"salt": "00"}, "not what may stand there"),
    "a state of tomorrow": ({"state": "stopped"}, "one of running, paused"),
    "a canary by its id": ({"canaries": ["pi-1"]}, "not what may stand there"),
    "a crowd of canaries": ({"canaries": [f"{n:016x}" for n in range(5000)]}, "at most 4096"),
}


@pytest.mark.parametrize("case", BAD_WAVES, ids=str)
def test_a_bad_wave_is_refused_in_one_sentence(case: str) -> None:
    changes, message = BAD_WAVES[case]
    with pytest.raises(FormatError, match=re.escape(message)):
        formats.parse_wave(WAVE | changes, MODEL, HARDWARE)


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "a" * 65, ".a"])
def test_no_name_leads_out_of_its_place(name: str) -> None:
    for path in (formats.policy_path, formats.model_role):
        with pytest.raises(FormatError, match="is no name"):
            path(name)
