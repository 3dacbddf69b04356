"""The disk image of a virtual Pi, built once and kept outside the project by the hash of what made it.

A folder `<cache>/<release>-<hash>` holds base.qcow2, vmlinuz, initrd.gz, the key that may log in and the
host key's public half. It is made under another name and renamed when whole; a lock lets one process
build while others wait. Reads PATH, the apt configuration of this machine, XDG_CACHE_HOME and the home.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgekd
from edgekd.device.virtual import contents
from edgekd.device.virtual.builder import STEPS
from edgekd.doctor import by_name, find_program
from edgekd.errors import DeviceError, MissingDependencyError
from edgekd.progress import Progress, silent

QEMU = "qemu-system-aarch64"
PROGRAMS = (QEMU, "qemu-img", "mmdebstrap", "mke2fs", "modprobe", "depmod", "ssh-keygen")
NEED_BYTES = 2 << 30  # while it is built
SOURCES = ("builder.py", "contents.py", "initrd.py")  # of this package: what decides on the image's bytes


@dataclass(frozen=True)
class Image:
    """A built image's files."""

    folder: Path

    @property
    def release(self) -> str:
        """The Debian release."""
        return self.folder.name.partition("-")[0]

    @property
    def disk(self) -> Path:
        """The disk, never written to: machines keep their changes in files of their own."""
        return self.folder / "base.qcow2"

    @property
    def kernel(self) -> Path:
        """The kernel that QEMU starts."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk."""
        return self.folder / "initrd.gz"

    @property
    def login_key(self) -> Path:
        """The private key that may log in as pi and as root."""
        return self.folder / "login_key"

    @property
    def host_key(self) -> tuple[str, str]:
        """Type and base64 of the host key."""
        kind, blob = (self.folder / "host_key.pub").read_text("utf-8").split()[:2]
        return kind, blob

    def snapshot(self, name: str, cpu: str) -> Path:
        """The file of a snapshot; it need not be there. One QEMU cannot continue another's snapshot."""
        return self.folder / "snapshots" / f"{name}-{cpu}-{_hash(qemu_version())}.qcow2"


def default_cache() -> Path:
    """Where images are kept: edgekd/virtual in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgekd" / "virtual"


def ensure_image(release: str, cache: Path | None = None, progress: Progress = silent) -> Image:
    """The image of a Debian release (a key of contents.PYTHONS), built now unless it is there.

    Raises MissingDependencyError naming the program that is absent, DeviceError when a step fails.
    """
    need_programs()
    root = cache or default_cache()
    image = Image(root / f"{release}-{_recipe_hash(release)}")
    if not image.disk.is_file():
        with locked(root / f"{release}.lock"):
            if not image.disk.is_file():
                _build(image, release, progress)
    return image


def need_programs() -> None:
    """Refuse where a program is absent, with the line that installs it."""
    for name in PROGRAMS:
        if find_program(name) is None:
            install = by_name("pi-sim").install
            raise MissingDependencyError(f"a virtual Pi needs {name}; install it: {install}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; it is freed when its process ends, however that happens."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def qemu_program() -> Path:
    """QEMU's path; MissingDependencyError where it is absent."""
    path = find_program(QEMU)
    if path is None:
        raise MissingDependencyError(f"a virtual Pi needs {QEMU}; install it: {by_name('pi-sim').install}")
    return Path(path)


def qemu_version() -> str:
    """The first line of what QEMU says of itself."""
    answer = subprocess.run([qemu_program(), "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0]


def run_tool(command: Sequence[str]) -> None:
    """Run a program that must succeed; DeviceError with its last words."""
    path = find_program(command[0])
    answer = subprocess.run([path or command[0], *command[1:]], capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeviceError(f"{command[0]} failed: {last}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _recipe_hash(release: str) -> str:
    """What decides on the image: its release, and the code that makes it."""
    here = Path(__file__).parent
    return _hash("\n".join([release, *((here / name).read_text("utf-8") for name in SOURCES)]))


def _build(image: Image, release: str, progress: Progress) -> None:
    root = image.folder.parent
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < NEED_BYTES:
        raise DeviceError(
            f"{root}: {free >> 20} MiB are free and the image needs {NEED_BYTES >> 20}; make room"
        )
    with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as name:
        folder = Path(name)
        for key, comment in (("login_key", "edgekd virtual pi"), ("host_key", contents.HOST_NAME)):
            run_tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(folder / key)])
        _run_builder(folder, release, progress)
        (folder / "host_key").unlink()  # it is in the image
        folder.chmod(0o700)
        os.rename(folder, image.folder)
        folder.mkdir()  # for TemporaryDirectory to remove


def _run_builder(folder: Path, release: str, progress: Progress) -> None:
    """Run the builder as a program, under fakeroot where we are not root."""
    wrapper = [] if os.geteuid() == 0 else ["fakeroot", "--"]
    if wrapper and find_program("fakeroot") is None:
        raise MissingDependencyError(
            "a virtual Pi built by a plain user needs fakeroot; install it, or be root"
        )
    module = "edgekd.device.virtual.builder"
    command = [*wrapper, sys.executable, "-m", module, str(folder), release, *apt_options()]
    environment = os.environ | {"PYTHONPATH": str(Path(edgekd.__file__).parent.parent)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        if process.stdin is None or process.stdout is None:
            raise DeviceError("the builder was started without pipes; run again")
        process.stdin.write(apt_sources(release))
        process.stdin.close()
        for line in process.stdout:
            step = line.strip()
            if step in STEPS:
                progress(f"virtual Pi: {step}", STEPS.index(step), len(STEPS))
        if process.wait():
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise DeviceError(f"the image of {release} could not be built: {last}")
    progress("virtual Pi: image", len(STEPS), len(STEPS))


def apt_sources(release: str) -> str:
    """This machine's own Debian sources, as lines for `release`; "" where it has none: mmdebstrap's default.

    Only Debian's own archives count, whatever else the machine uses.
    """
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
    command = ["apt-get", "indextargets", "--format", form, "Identifier: Packages"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    lines: list[str] = []
    for row in answer.stdout.splitlines():
        uri, suite, component, origin = row.split("|")
        name, dash, rest = suite.partition("-")
        if (
            name in (*contents.PYTHONS, "stable")
            and component == "main"
            and origin in ("Debian", "$(ORIGIN)")
        ):
            line = f"deb {uri} {release}{dash}{rest} main"
            if rest in ("", "updates", "security") and line not in lines:
                lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def apt_options() -> list[str]:
    """How this machine reaches its apt sources (proxy, certificates, old snapshots), for mmdebstrap."""
    try:
        answer = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    wanted = ("Acquire::http::Proxy ", "Acquire::https::", "Acquire::Check-", "Acquire::Retries ")
    return [line.rstrip(";") for line in answer.stdout.splitlines() if line.startswith(wanted)]
