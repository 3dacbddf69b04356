"""inventory.toml, and what `--to` means by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.device.inventory import find_hosts, load_inventory
from edgekd.errors import ConfigError

TEXT = """
[hosts]
kitchen = { address = "pi@10.0.0.7", groups = ["canary", "ground"] }
hall = { address = "pi@10.0.0.8:2222", groups = ["ground"] }
attic = { address = "attic.local" }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "inventory.toml").write_text(TEXT)
    return tmp_path / "inventory.toml"


@pytest.mark.parametrize(
    ("to", "names"),
    [
        ("kitchen", ["kitchen"]),
        ("@ground", ["kitchen", "hall"]),
        ("@all", ["kitchen", "hall", "attic"]),
        ("attic, @canary,@ground", ["attic", "kitchen", "hall"]),  # each once, in this order
        ("pi@10.0.0.7,kitchen", ["pi@10.0.0.7"]),  # the same address is the same device
        ("pi@elsewhere:22", ["pi@elsewhere:22"]),
    ],
)
def test_what_to_means(path: Path, to: str, names: list[str]) -> None:
    assert [host.name for host in find_hosts(to, load_inventory(path))] == names


def test_without_an_inventory_addresses_are_enough(path: Path) -> None:
    assert [host.address for host in find_hosts("pi@a,pi@b:2222", None)] == ["pi@a", "pi@b:2222"]
    assert load_inventory(path).hosts["hall"].address == "pi@10.0.0.8:2222"
    with pytest.raises(ConfigError, match=r"no inventory\.toml; write one"):
        find_hosts("@ground", None)


@pytest.mark.parametrize("to", ["@grund", "a,,b", "a b", "kitchen,pi@"])
def test_what_leads_nowhere(path: Path, to: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_hosts(to, load_inventory(path))
    assert "\n" not in str(error.value)
    assert to != "@grund" or "did you mean ground?" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[hosts", "not valid TOML"),
        ("[host]\na = 1\n", "unknown key host; did you mean hosts?"),
        ("hosts = 3\n", "hosts must be a table"),
        ('[hosts]\nkitchen = "pi@10.0.0.7"\n', "hosts.kitchen must be a table"),
        ("[hosts]\nkitchen = { groups = [] }\n", "hosts.kitchen.address is missing"),
        ('[hosts]\nkitchen = { adress = "a" }\n', "unknown key hosts.kitchen.adress; did you mean address?"),
        ('[hosts]\nkitchen = { address = "a:b:c d" }\n', "hosts.kitchen: 'a:b:c d' is no address"),
        ('[hosts]\n"a,b" = { address = "a" }\n', "host name 'a,b'"),
        ("\xff\xfe", "not valid TOML"),
    ],
)
def test_a_wrong_inventory_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "inventory.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        load_inventory(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        load_inventory(tmp_path / "gone.toml")
