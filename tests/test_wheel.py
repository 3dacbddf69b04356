"""The wheel: it carries targets, recipes and C sources as package data, and finds them when installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekd import resources
from edgekd.errors import ArtifactError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network by the backend that the lock brings."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("edgekd-*.whl"))


def test_the_wheel_carries_the_data_and_nothing_of_the_workshop(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in resources.NAMES:
        ours = {
            f"edgekd/_data/{folder}/{path.relative_to(ROOT / folder).as_posix()}" for path in files(folder)
        }
        assert ours and ours <= names
    assert "edgekd/cli/__init__.py" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bootstrap", "docs/"))]


def files(folder: str) -> list[Path]:
    """What git would carry of a folder: caches and hidden files left out."""
    found = (ROOT / folder).rglob("*")
    return [
        path for path in found if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    ]


def test_the_console_script_and_the_light_base(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    assert "edgekd = edgekd.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    base = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert not [line for line in base if line.split()[1].startswith(("torch", "onnx", "ziglang", "unicorn"))]
    for extra in ("learn", "mcu", "fleet"):
        assert f"Provides-Extra: {extra}" in metadata


def test_an_installed_wheel_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from edgekd.resources import NAMES, resource_dir\nfor name in NAMES: print(resource_dir(name))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [str(tmp_path / "site" / "edgekd" / "_data" / name) for name in resources.NAMES]
    assert answer.stdout.splitlines() == expected


@pytest.mark.parametrize("name", resources.NAMES)
def test_a_checkout_finds_them_at_its_root(name: str) -> None:
    assert resources.resource_dir(name) == ROOT / name


def test_a_missing_directory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "edgekd")
    with pytest.raises(ArtifactError, match="lacks its directory targets/"):
        resources.resource_dir("targets")
    with pytest.raises(ValueError, match="no resource directory is named 'nothing'"):
        resources.resource_dir("nothing")
