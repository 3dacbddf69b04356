"""Which devices a fleet has: inventory and enrolment together, filters, clones, two operators at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgekd.device.inventory import Inventory, load_inventory
from edgekd.errors import ArtifactError, ConfigError, EdgekdError, VerifyError
from edgekd.fleet import devices
from edgekd.fleet.devices import Enrolled, add, all_devices, enrolled, remove, where

TEXT = """
[hosts]
kitchen = { address = "pi@10.0.0.7", groups = ["canary"], target = "rpi4", models = ["digits"] }
hall = { address = "10.0.0.8:2222", groups = ["canary", "ground"], labels = { site = "north", floor = "2" } }
cellar = { address = "10.0.0.9", target = "rpi3", labels = { site = "south" } }
"""


def key(letter: str) -> str:
    return f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    (tmp_path / "inventory.toml").write_text(TEXT)
    return load_inventory(tmp_path / "inventory.toml")


def test_both_files_make_one_list(inventory: Inventory, tmp_path: Path) -> None:
    add(tmp_path, "hall", Enrolled(key("A"), "rpi5", ("digits", "kws"), 1))
    add(tmp_path, "far-away", Enrolled(key("B"), "rpi4", ("digits",), 2))
    found = {each.device: each for each in all_devices(inventory, enrolled(tmp_path))}
    assert list(found) == ["kitchen", "hall", "cellar", "far-away"]
    assert (found["kitchen"].hardware, found["kitchen"].enrolled) == ("rpi4", False)
    assert (found["hall"].hardware, found["hall"].models) == ("rpi5", ("digits", "kws"))
    assert found["hall"].labels == {"site": "north", "floor": "2"}
    assert (found["far-away"].address, found["far-away"].enrolled) == ("", True)
    remove(tmp_path, "far-away")
    assert list(enrolled(tmp_path)) == ["hall"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "kitchen hall cellar"),
        ("group=canary", "kitchen hall"),
        ("group!=canary", "cellar"),
        ("site=*th", "hall cellar"),
        ("site=north, floor=2", "hall"),
        ("hardware=rpi?", "kitchen cellar"),
        ("model=digits", "kitchen"),
        ("enrolled=yes", "hall"),
        ("device=k*,group=ground", ""),
    ],
)
def test_devices_are_found_by_what_is_known_of_them(
    inventory: Inventory, tmp_path: Path, text: str, names: str
) -> None:
    add(tmp_path, "hall", Enrolled(key("A"), "zero", (), 1))
    found = where(all_devices(inventory, enrolled(tmp_path)), text)
    assert " ".join(each.device for each in found) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canary", "'canary' is no KEY=PATTERN"),
        ("grup=canary", "nothing is known of 'grup'; did you mean group"),
        ("=x", "is no KEY=PATTERN"),
    ],
)
def test_a_bad_filter_is_one_sentence(inventory: Inventory, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        where(all_devices(inventory, {}), text)


BAD: dict[str, tuple[str, Enrolled, type[EdgekdError], str]] = {
    "a clone": (
        "cellar",
        Enrolled(key("A"), "rpi4", (), 1),
        VerifyError,
        "has the key of hall: one is a copy",
    ),
    "another key": ("hall", Enrolled(key("C"), "rpi4", (), 1), VerifyError, "enrol it with --again"),
    "no key": ("cellar", Enrolled("ssh-rsa AAAA", "rpi4", (), 1), ConfigError, "no Ed25519 key"),
    "two lines": ("cellar", Enrolled(key("D") + "\nx", "rpi4", (), 1), ConfigError, "no Ed25519 key"),
    "no name": ("my pi", Enrolled(key("D"), "rpi4", (), 1), ConfigError, "'my pi' is no name"),
    "no hardware": ("cellar", Enrolled(key("D"), "", (), 1), ConfigError, "'' is no name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_enrolment_is_refused_and_changes_nothing(tmp_path: Path, case: str) -> None:
    add(tmp_path, "hall", Enrolled(key("A"), "rpi4", (), 1))
    device, found, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        add(tmp_path, device, found)
    assert list(enrolled(tmp_path)) == ["hall"]


def test_a_device_that_was_provisioned_anew(tmp_path: Path) -> None:
    add(tmp_path, "hall", Enrolled(key("A"), "rpi4", (), 1))
    add(tmp_path, "hall", Enrolled(key("A"), "rpi4", ("digits",), 2))  # the same key: nothing to ask
    add(tmp_path, "hall", Enrolled(key("B"), "rpi4", (), 3), again=True)
    assert enrolled(tmp_path)["hall"].public_key == key("B")


def test_two_operators_who_enrol_at_once_lose_nothing(tmp_path: Path) -> None:
    def work(first: int) -> None:
        for number in range(first, 40, 2):
            letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"[number]
            add(tmp_path, f"pi-{number}", Enrolled(key(letter), "rpi4", (), 1))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(enrolled(tmp_path)) == 40


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "devices": {"x": {}}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / devices.FILE).write_text(text)
    with pytest.raises(ArtifactError, match=r"devices\.json: damaged"):
        enrolled(tmp_path)


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no device 'hal' is enrolled; known: none"):
        remove(tmp_path, "hal")
    with pytest.raises(ConfigError, match="no fleet is here"):
        add(tmp_path / "nowhere", "hall", Enrolled(key("A"), "rpi4", (), 1))
    (tmp_path / devices.FILE).write_text('{"schema": 2, "devices": {}}')
    with pytest.raises(ArtifactError, match="of schema 2"):
        enrolled(tmp_path)


def test_labels_are_texts(tmp_path: Path) -> None:
    (tmp_path / "inventory.toml").write_text('[hosts]\nhall = { address = "h", labels = { floor = 2 } }\n')
    with pytest.raises(ConfigError, match=r"hosts\.hall\.labels\.floor must be a text; write floor = \"2\""):
        load_inventory(tmp_path / "inventory.toml")
