"""Makes a virtual Pi's files in a directory; run as a program of its own, under fakeroot for a plain user.

    python -m edgekd.device.virtual.builder FOLDER bookworm < SOURCES

reads apt sources on standard input and leaves base.qcow2, vmlinuz and initrd.gz in FOLDER, which holds
login_key.pub, host_key and host_key.pub. Each line on standard output names the step that begins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekd.device.virtual import contents
from edgekd.device.virtual.initrd import make_initrd, module_files
from edgekd.doctor import find_program
from edgekd.errors import ArtifactError, EdgekdError

STEPS = ("packages", "configure", "disk")
DISK_BYTES = 4 << 30  # sparse: what the system may grow to


def run(command: Sequence[str], source: str = "") -> None:
    """Run a program; ArtifactError with the last line it said when it fails."""
    path = find_program(command[0])
    if path is None:
        raise ArtifactError(f"{command[0]} is not installed; `invoke doctor` names the package")
    answer = subprocess.run([path, *command[1:]], input=source, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = [line for line in answer.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("E:")] or said[-1:] or ["no message"]
        raise ArtifactError(f"{command[0]} failed with status {answer.returncode}: {' '.join(errors[:2])}")


def extract(rootfs: Path, release: str, sources: str, options: Sequence[str]) -> None:
    """Unpack the packages of an arm64 `release` into `rootfs`; runs none of their scripts."""
    chosen = [f"--aptopt={option}" for option in options]
    chosen += ['--aptopt=Apt::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    chosen += ["--architectures=arm64", "--variant=extract", f"--include={','.join(contents.PACKAGES)}"]
    command = ["mmdebstrap", "--mode=root", "--quiet", *chosen, release, str(rootfs)]
    run([*command, "-"] if sources else command, sources)
    for path in (path for pattern in contents.REMOVED for path in rootfs.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def configure(rootfs: Path, folder: Path) -> str:
    """Write users, keys, units and links; returns the kernel's version."""
    master = rootfs / "usr/share/base-passwd"
    files = contents.FILES | {
        "/etc/passwd": contents.passwd((master / "passwd.master").read_text()),
        "/etc/group": contents.group((master / "group.master").read_text()),
        "/etc/ssh/ssh_host_ed25519_key": (folder / "host_key").read_text(),
        "/etc/ssh/ssh_host_ed25519_key.pub": (folder / "host_key.pub").read_text(),
    }
    for name in contents.DIRECTORIES:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (rootfs / name).chmod(0o1777)
    for name, text in files.items():
        path = rootfs / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(contents.MODES.get(name, 0o600 if name.endswith("host_ed25519_key") else 0o644))
    for name, target in contents.LINKS.items():
        link = rootfs / name.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    admit(rootfs, (folder / "login_key.pub").read_text())
    forget(rootfs)
    return slim_kernel(rootfs)


def admit(rootfs: Path, public_key: str) -> None:
    """Let `public_key` log in, as the user and as root."""
    for home, owner in (("root", 0), (f"home/{contents.USER}", contents.USER_ID)):
        folder = rootfs / home / ".ssh"
        folder.mkdir(parents=True)
        (folder / "authorized_keys").write_text(public_key)
        folder.chmod(0o700)
        for path in (rootfs / home, folder, folder / "authorized_keys"):
            os.chown(path, owner, owner)


def forget(rootfs: Path) -> None:
    """Remove what mmdebstrap took from this machine: its apt sources and options may hold passwords."""
    shutil.rmtree(rootfs / "etc/apt", ignore_errors=True)
    for name in ("var/lib/apt", "var/cache/apt"):
        shutil.rmtree(rootfs / name, ignore_errors=True)


def slim_kernel(rootfs: Path) -> str:
    """Keep only the modules that are listed, and what they need; list their dependencies."""
    folder = rootfs / "lib/modules"
    kernel = sorted(path.name for path in folder.iterdir())[-1]
    run(["depmod", "-b", str(rootfs), kernel])
    kept = set(module_files(rootfs, kernel, contents.BOOT_MODULES))
    kept |= set(module_files(rootfs, kernel, contents.OTHER_MODULES, may_lack=True))
    for path in (folder / kernel / "kernel").rglob("*.ko*"):
        if path not in kept:
            path.unlink()
    run(["depmod", "-b", str(rootfs), kernel])
    return kernel


def make_disk(rootfs: Path, folder: Path, kernel: str) -> None:
    """The file system as an image that grows when it is written to, and what QEMU boots it with."""
    shutil.copy(rootfs / f"boot/vmlinuz-{kernel}", folder / "vmlinuz")
    (folder / "initrd.gz").write_bytes(make_initrd(rootfs, kernel))
    shutil.rmtree(rootfs / "boot")
    raw = folder / "base.raw"
    with raw.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(rootfs), str(raw)])
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(folder / "base.qcow2")])
    raw.unlink()


def main(arguments: Sequence[str]) -> int:
    """Make the files; a failure is one sentence on standard error and exit status 1."""
    folder, release, *options = Path(arguments[0]), *arguments[1:]
    rootfs = folder / "rootfs"
    try:
        print(STEPS[0], flush=True)
        extract(rootfs, str(release), sys.stdin.read(), [str(option) for option in options])
        print(STEPS[1], flush=True)
        kernel = configure(rootfs, folder)
        print(STEPS[2], flush=True)
        make_disk(rootfs, folder, kernel)
    except (EdgekdError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
