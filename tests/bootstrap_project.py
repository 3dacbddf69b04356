"""A small project with the real bootstrap and a package index of its own, for tests of the set-up.

The packages are tiny but real wheels, installed by the real pip into a real .venv; nothing reaches
the network. `invoke` prints what it was called with, as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

INVOKE = """import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix}))
sys.exit(3 if "fail" in sys.argv else 0)
"""
PYPROJECT = """[project]
name = "edgekd"
dependencies = ["invoke"]
[project.optional-dependencies]
learn = ["torch==2.13.0"]
mcu = ["ziglang"]
fleet = []
test = []
"""


class Index:
    """A package index in a folder, served as file:// addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def add(
        self, name: str, version: str, requires: Sequence[str] = (), files: Mapping[str, str] | None = None
    ) -> Path:
        """Put a wheel into the index; `files` are its contents, one empty module by default."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        module = name.replace("-", "_")
        wheel = folder / f"{module}-{version}-py3-none-any.whl"
        info = f"{module}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        contents = {
            **(files or {f"{module}/__init__.py": ""}),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in contents.items())
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
                archive.writestr(path, text)
        links = "".join(f'<a href="{file.name}">{file.name}</a>\n' for file in sorted(folder.glob("*.whl")))
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>", "utf-8")
        return wheel


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Project:
    """A checkout of nothing but the set-up: bootstrap, its steps, a pyproject, a lock, two targets."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.root.mkdir(parents=True)
        self.index = Index(folder / "index")
        self.cpu_index = Index(folder / "cpu")
        self.index.add("invoke", "3.0", files={"invoke/__init__.py": "", "invoke/__main__.py": INVOKE})
        self.index.add("ziglang", "0.17")
        self._copy()
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PIP_", "VIRTUAL_ENV"))
            },
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.index.url,
            "PIP_RETRIES": "1",
            "PIP_CACHE_DIR": str(folder / "cache"),
        }

    def _copy(self) -> None:
        shutil.copy(ROOT / "bootstrap", self.root)
        shutil.copytree(
            ROOT / "bootstrap_steps",
            self.root / "bootstrap_steps",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        text = (ROOT / "bootstrap.py").read_text("utf-8")
        address = next(line for line in text.splitlines() if line.startswith("CPU_INDEX = "))
        (self.root / "bootstrap.py").write_text(text.replace(address, f'CPU_INDEX = "{self.cpu_index.url}"'))
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "requirements").mkdir()
        (self.root / "requirements" / "lock.txt").write_text("invoke==3.0\ntorch==2.13.0\nziglang==0.17\n")
        (self.root / "targets").mkdir()
        (self.root / "targets" / "mcu-sim.toml").write_text('kind = "mcu"\n')
        (self.root / "targets" / "rpi4.toml").write_text('kind = "linux"\n')

    def prepare(self) -> None:
        """Put an empty .venv there with the pip of this interpreter: quicker than ensurepip's unpacking."""
        environment = self.root / ".venv"
        base = getattr(sys, "_base_executable", None) or sys.executable
        subprocess.run([base, "-I", "-m", "venv", "--without-pip", environment], check=True)
        target = next(environment.glob("lib/python*/site-packages"))
        info = metadata.distribution("pip")
        for top in {file.parts[0] for file in info.files or () if file.parts[0] != ".."}:
            shutil.copytree(str(info.locate_file(top)), target / top)
        record = next(target.glob("pip-*.dist-info")) / "RECORD"
        lines = [line for line in record.read_text().splitlines() if not line.startswith("..")]
        record.write_text("".join(f"{line}\n" for line in lines))

    def run(
        self, *words: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`./bootstrap WORDS`, from the checkout unless `cwd` says otherwise."""
        return subprocess.run(
            [str(self.root / "bootstrap"), *words],
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def packages(self) -> set[str]:
        """The names and versions that .venv holds, as `name-version`."""
        found = self.root.glob(".venv/lib/python*/site-packages/*.dist-info")
        return {path.name.removesuffix(".dist-info") for path in found}
