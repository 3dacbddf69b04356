"""The initial RAM disk of a virtual Pi: busybox, the drivers of its disk, and a script; a "newc" archive."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Iterable
from pathlib import Path

from edgekd.device.virtual.contents import BOOT_MODULES, INITRD_INIT
from edgekd.doctor import find_program
from edgekd.errors import ArtifactError

_DIRECTORY, _FILE = 0o040755, 0o100755


def module_files(rootfs: Path, kernel: str, names: Iterable[str], *, may_lack: bool = False) -> list[Path]:
    """The files of kernel modules and of all they need, in the order in which they are to be loaded.

    Names that the kernel has built in are skipped. Raises ArtifactError for a module that it has not, unless
    it `may_lack` some.
    """
    found: list[Path] = []
    for name in names:
        command = [str(find_program("modprobe")), "-d", str(rootfs), "-S", kernel, "--show-depends", name]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode and may_lack:
            continue
        if answer.returncode:
            raise ArtifactError(f"the kernel {kernel} has no module {name}: {answer.stderr.strip()}")
        lines = [line.split()[1] for line in answer.stdout.splitlines() if line.startswith("insmod ")]
        found += [path for path in map(Path, lines) if path not in found]
    return found


def plain_module(path: Path) -> tuple[str, bytes]:
    """A module's name and content, unpacked where the kernel's package has it compressed (trixie's has)."""
    data = path.read_bytes()
    return (path.stem, lzma.decompress(data)) if path.suffix == ".xz" else (path.name, data)


def newc(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive in the kernel's "newc" form of (path, mode, content); owner root, times 0."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        head = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % value for value in head) + name.encode() + b"\0"
        out += bytes(-len(out) % 4)
        out += data + bytes(-len(data) % 4)
    return bytes(out)


def make_initrd(rootfs: Path, kernel: str) -> bytes:
    """The compressed initial RAM disk for `rootfs`, whose module dependencies are listed already."""
    modules = module_files(rootfs, kernel, BOOT_MODULES)
    entries = [(name, _DIRECTORY, b"") for name in ("bin", "lib", "lib/modules", "proc", "sys", "dev", "mnt")]
    entries.append(("bin/busybox", _FILE, (rootfs / "bin/busybox").read_bytes()))
    plain = dict(map(plain_module, modules))
    entries += [(f"lib/modules/{name}", _FILE, data) for name, data in plain.items()]
    script = INITRD_INIT.replace("{modules}", " ".join(plain))
    entries.append(("init", _FILE, script.encode()))
    return gzip.compress(newc(entries), 1, mtime=0)
