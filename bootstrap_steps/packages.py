"""What pip would install, how much of it is a download, which torch; then installing exactly that.

Part of bootstrap.py. pip decides by its own configuration; the lock is given to it as constraints,
so that one file serves every platform and every set of extras.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import ssl
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bootstrap_steps.running import StepError, run


@dataclass(frozen=True)
class Package:
    """One package that pip would install. `size_bytes` is None where its host does not say."""

    name: str
    version: str
    url: str
    size_bytes: int | None = None
    cpu_index: str = ""  # the extra index that this package alone comes from

    @property
    def is_download(self) -> bool:
        return not self.url.startswith("file:")


class Pip:
    """The environment's pip, called the same way each time: the user's configuration, no questions."""

    def __init__(self, python: Path, lock: Path) -> None:
        self.command = [str(python), "-I", "-m", "pip", "--no-input", "--disable-pip-version-check"]
        self.lock = lock

    def major(self) -> int:
        code = "import pip; print(pip.__version__.split('.')[0])"
        return int(run([self.command[0], "-I", "-c", code], "pip does not start", quiet=True))

    def renew(self, oldest: int) -> None:
        """Bring pip to at least `oldest`: its dry run then costs no download. Older works, only slower."""
        if self.major() < oldest:
            try:
                self._run(["install", "--quiet", "--upgrade", f"pip>={oldest}"], "pip could not renew itself")
            except StepError as error:
                note(f"{error}; going on with the pip there is")

    def uninstall(self, name: str) -> None:
        self._run(["uninstall", "--quiet", "--yes", name], f"pip could not remove {name}")

    def _run(self, arguments: Sequence[str], what: str) -> str:
        return run([*self.command, *arguments], what, quiet=True)

    def dry_run(self, requirements: Sequence[str], more: Sequence[str] = ()) -> list[Package]:
        """What an install of `requirements` under the lock would add to the environment."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            options = ["--dry-run", "--report", str(report), "--constraint", str(self.lock)]
            self._run(["install", *options, *more, *requirements], "pip finds no way to install")
            return read_report(json.loads(report.read_text("utf-8")))

    def install(self, packages: Sequence[Package], more: Sequence[str] = ()) -> None:
        """Install exactly these versions; what they depend on is among them."""
        if packages:
            options = ["--no-deps", "--no-warn-script-location", *more, *quietness()]
            pins = [f"{package.name}=={package.version}" for package in packages]
            run([*self.command, "install", *options, *pins], "pip could not install packages")


def note(line: str) -> None:
    print(f"bootstrap: {line}", file=sys.stderr, flush=True)


def quietness() -> list[str]:
    """Progress bars for a person; silence for a log."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def read_report(report: dict[str, object]) -> list[Package]:
    """The packages of pip's installation report."""
    items = report["install"]
    if not isinstance(items, list):
        raise StepError("pip's report is not what it should be: renew pip (pip install --upgrade pip)")
    return [
        Package(item["metadata"]["name"], item["metadata"]["version"], item["download_info"]["url"])
        for item in items
    ]


def brings_cuda(packages: Sequence[Package]) -> bool:
    """Whether a CUDA build of torch is among them: it depends on NVIDIA's libraries by these names."""
    return any(re.match(r"(nvidia|cuda)[-_]|triton$", package.name.lower()) for package in packages)


def plan(pip: Pip, requirements: Sequence[str], cpu_index: str, gpu: bool) -> list[Package]:
    """Ask pip what it would install; take torch from `cpu_index` only where CUDA would come unasked."""
    found = pip.dry_run(requirements)
    if gpu:
        if any(package.name == "torch" for package in found) and not brings_cuda(found):
            note("the torch that pip offers here needs no CUDA packages: --gpu changes nothing")
    elif brings_cuda(found):
        found = _from_cpu_index(pip, requirements, cpu_index)
    return with_sizes(found)


def _from_cpu_index(pip: Pip, requirements: Sequence[str], cpu_index: str) -> list[Package]:
    """The same plan with PyTorch's CPU build: its version ends in +cpu, which pip takes before the plain."""
    where = ["--extra-index-url", cpu_index]
    found = pip.dry_run(requirements, where)
    if brings_cuda(found):
        raise StepError(
            "pip offers only a CUDA build of torch (gigabytes), and PyTorch's CPU index has none for this"
            " machine: put --gpu first to take it, or use another Python"
        )
    return [replace(each, cpu_index=cpu_index) if each.name == "torch" else each for each in found]


def with_sizes(packages: Sequence[Package]) -> list[Package]:
    """Each package with its size: a file's own, or what its host answers to HEAD, all asked at once."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        sizes = list(pool.map(lambda package: size_of(package.url), packages))
    return [replace(each, size_bytes=size) for each, size in zip(packages, sizes, strict=True)]


def size_of(url: str) -> int | None:
    """The bytes behind `url`; None when its host does not say (a login, a proxy): the sum says so then."""
    parts = urllib.parse.urlsplit(url)
    try:
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path)).stat().st_size
        context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
        request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(fragment="")), method="HEAD")
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            length = answer.headers.get("Content-Length")
    except (OSError, ValueError):
        return None
    return int(length) if length and length.isdigit() else None


def describe(packages: Sequence[Package]) -> str:
    """One line: how many packages, how much of them is a download, what lies on this machine already."""
    if not packages:
        return "nothing to download: every package is there"
    downloads = [package for package in packages if package.is_download]
    local = [package for package in packages if not package.is_download]
    line = f"{len(packages)} packages, {_megabytes(downloads)} to download"
    if local:
        line += f" ({_megabytes(local)} more in {len(local)} files on this machine)"
    torch = [package.version for package in packages if package.name == "torch"]
    return line + (f"; torch is {torch[0]}" if torch else "")


def _megabytes(packages: Sequence[Package]) -> str:
    known = sum(package.size_bytes or 0 for package in packages)
    unknown = sum(package.size_bytes is None for package in packages)
    return f"{known / 1e6:.0f} MB" + (f" and {unknown} of unknown size" if unknown else "")


def install(pip: Pip, packages: Sequence[Package]) -> None:
    """Install the plan: first what comes from its own index, looked up there alone, then the rest."""
    for package in packages:
        if package.cpu_index:
            pip.install([package], ["--extra-index-url", package.cpu_index])
    pip.install([package for package in packages if not package.cpu_index])
