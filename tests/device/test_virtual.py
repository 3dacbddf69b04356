"""The virtual Pi for real: its power switch, cable and counts; and what needs no machine to be tested."""

from __future__ import annotations

import lzma
import re
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from edgekd.device.agent import instructions
from edgekd.device.provisioning.examine import examine_device
from edgekd.device.virtual import contents, control, image
from edgekd.device.virtual.builder import configure
from edgekd.device.virtual.image import Image
from edgekd.device.virtual.initrd import newc, plain_module
from edgekd.device.virtual.machine import VirtualPi
from edgekd.errors import ConfigError, DeviceError, MissingDependencyError
from edgekd.target import load_target

TARGETS = Path(__file__).resolve().parent.parent.parent / "targets"
needs_pi = pytest.mark.needs("pi-sim")


@needs_pi
def test_it_is_a_device_with_systemd_sudo_and_its_own_kernel(virtual_pi: VirtualPi) -> None:
    said = virtual_pi.shell("uname -m; id -un; sudo -n id -u; systemctl is-system-running; nproc").split()
    assert said == ["aarch64", "pi", "0", "running", "1"]
    assert virtual_pi.state() == "running"


@needs_pi
def test_instructions_are_counted_exactly(virtual_pi: VirtualPi) -> None:
    source = Path(instructions.__file__).read_text()
    work = "print(open_counter().count(lambda: sum(range(n))), end=' ')"
    program = f"{source}\nfor n in (1000, 1000, 1000, 101000): {work}"
    found = virtual_pi.shell(f"cat > /tmp/count.py <<'END'\n{program}\nEND\npython3 /tmp/count.py")
    *small, large = map(int, found.split())
    assert min(small) > 0 and max(small) - min(small) < 0.05 * min(small)
    assert large > 80 * min(small)


@needs_pi
def test_a_pulled_cable_and_a_frozen_machine_come_back(virtual_pi: VirtualPi) -> None:
    virtual_pi.freeze()
    assert virtual_pi.state() == "paused"
    virtual_pi.thaw()
    virtual_pi.set_link(False)
    with pytest.raises(DeviceError):
        virtual_pi.wait_until_up(3)
    virtual_pi.set_link(True)
    virtual_pi.wait_until_up()


@needs_pi
def test_the_doctor_finds_it_well_and_its_clock_late(virtual_pi: VirtualPi) -> None:
    rows = {row["check"]: row for row in examine_device(virtual_pi.connect, "edgekd")}
    assert rows["reachable"]["state"] == rows["root"]["state"] == rows["space"]["state"] == "ok"
    assert "glibc 2.36" in rows["system"]["found"] and rows["clock"]["state"] == "ok"
    virtual_pi.shell(f"date -u -s @{time.time() - 86400:.0f}", user="root")
    late = {row["check"]: row for row in examine_device(virtual_pi.connect, "edgekd")}["clock"]
    virtual_pi.shell(f"date -u -s @{time.time():.0f}", user="root")
    seconds = re.search(r"off by ([\d,]+) s", late["found"])
    assert seconds is not None and abs(int(seconds[1].replace(",", "")) - 86400) < 60, late
    assert late["state"] == "bad" and "sudo date" in late["mend"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("rpi4", "is no virtual device: nothing is to be switched"), ("mcu-sim", "no virtual")],
)
def test_only_virtual_devices_are_switched(name: str, words: str, tmp_path: Path) -> None:
    target = load_target(name, [TARGETS])
    for act in (control.switch_on, control.switch_off, control.status):
        with pytest.raises(ConfigError, match=words):
            act(target, tmp_path)


def test_a_machine_that_never_ran_is_off(tmp_path: Path) -> None:
    target = load_target("pi-sim", [TARGETS])
    assert control.status(target, tmp_path)["state"] == "off"
    assert control.switch_off(target, tmp_path) is False
    assert VirtualPi.attach(tmp_path) is None


def test_without_its_programs_the_line_that_installs_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "find_program", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match="a virtual Pi needs qemu-system-aarch64; install it: apt"
    ):
        image.ensure_image("bookworm")


def test_a_builder_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "need_programs", lambda: None)
    monkeypatch.setattr(image, "run_tool", lambda command: None)
    monkeypatch.setattr(image, "apt_sources", lambda release: "deb file:/nowhere bookworm main\n")
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    with pytest.raises(DeviceError, match="the image of bookworm could not be built: "):
        image.ensure_image("bookworm", tmp_path)
    assert not list(tmp_path.glob("bookworm-*")) and not list(tmp_path.glob(".building-*"))


def test_only_debians_own_sources_are_taken_and_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = """
        http://one/debian/|bookworm|main|Debian
        http://one/debian/|bookworm-updates|main|Debian
        http://one/debian/|bookworm|contrib|Debian
        http://two/debian-security/|bookworm-security|main|$(ORIGIN)
        http://else/apt/|bookworm|main|Elsewhere
        http://else/apt/|nodistro|main|Elsewhere
    """
    program = tmp_path / "apt-get"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{textwrap.dedent(rows).strip()}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert image.apt_sources("trixie").splitlines() == [
        "deb http://one/debian/ trixie main",
        "deb http://one/debian/ trixie-updates main",
        "deb http://two/debian-security/ trixie-security main",
    ]


def test_the_image_is_named_by_what_makes_it(tmp_path: Path) -> None:
    names = {image._recipe_hash(release) for release in contents.PYTHONS}
    assert len(names) == len(contents.PYTHONS)
    assert Image(tmp_path / "trixie-0123").release == "trixie"


@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_modules_are_plain_in_the_initial_ram_disk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"virtio.ko{suffix}"
    path.write_bytes(lzma.compress(b"code") if suffix else b"code")
    assert plain_module(path) == ("virtio.ko", b"code")


def test_the_archive_of_the_initial_ram_disk_is_what_cpio_reads(tmp_path: Path) -> None:
    data = newc([("bin", 0o040755, b""), ("bin/tool", 0o100755, b"content")])
    assert len(data) % 4 == 0 and data.startswith(b"070701") and b"TRAILER!!!" in data
    name = data.index(b"bin/tool\0")
    header = data[name - 110 : name]
    assert header[:6] == b"070701" and int(header[54:62], 16) == len(b"content")


def test_nothing_of_this_machine_stays_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rootfs, folder = tmp_path / "rootfs", tmp_path / "image"
    master = rootfs / "usr/share/base-passwd"
    master.mkdir(parents=True)
    folder.mkdir()
    for name in ("passwd", "group"):
        (master / f"{name}.master").write_text("root:x:0:0::/root:/bin/bash\n")
    for name in ("login_key.pub", "host_key", "host_key.pub"):
        (folder / name).write_text(f"{name}\n")
    sources = rootfs / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text("deb http://user:password@mirror/debian bookworm main\n")
    monkeypatch.setattr("edgekd.device.virtual.builder.slim_kernel", lambda rootfs: "6.1")
    monkeypatch.setattr("edgekd.device.virtual.builder.os.chown", lambda *arguments: None)
    assert configure(rootfs, folder) == "6.1"
    assert not (rootfs / "etc/apt").exists()
    found = subprocess.run(["grep", "-rl", "password@", str(rootfs)], capture_output=True, check=False)
    assert found.returncode == 1 and not found.stdout
    assert (rootfs / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert not list(rootfs.rglob("login_key"))
