"""Power cut and reset button of a virtual Pi: what was synced is there after it, what was not may be gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from edgekd.errors import DeviceError

pytestmark = pytest.mark.needs("pi-sim")

# Durable: written, flushed to the disk and renamed, its folder flushed too. Careless: written, no more.
WRITE = """
import os
for name, careful in (("durable", True), ("careless", False)):
    handle = os.open(name + ".new", os.O_WRONLY | os.O_CREAT)
    os.write(handle, b"content" * 1000)
    if careful:
        os.fsync(handle)
    os.close(handle)
    os.rename(name + ".new", name)
    if careful:
        folder = os.open(".", os.O_RDONLY)
        os.fsync(folder)
"""
READ = "cat /proc/sys/kernel/random/boot_id; wc -c < durable; cat careless 2>/dev/null | wc -c"


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualPi]:
    """One of its own: its disk is not the others'."""
    image = ensure_image("bookworm")
    ensure_booted(image, "cortex-a72")
    with VirtualPi.start(image, tmp_path_factory.mktemp("power")) as running:
        yield running


def write(pi: VirtualPi) -> str:
    """Write both files; returns the boot's id."""
    pi.shell(f"rm -f durable careless; sync; python3 - <<'END'\n{WRITE}\nEND")
    boot, durable, careless = pi.shell(READ).split()
    assert (durable, careless) == ("7000", "7000")
    return boot


def test_a_power_cut_keeps_what_was_synced_and_loses_the_rest(pi: VirtualPi) -> None:
    before = write(pi)
    pi.cut_power()
    assert not pi.is_running() and VirtualPi.attach(pi.folder) is None
    with pytest.raises(DeviceError, match=r"ended|no SSH server"):
        pi.wait_until_up(1)
    pi.power_on()
    boot, durable, careless = pi.shell(READ).split()
    assert boot != before and durable == "7000" and careless == "0"
    with pytest.raises(DeviceError, match="is on; cut its power first"):
        pi.power_on()


def test_the_reset_button_starts_the_kernel_again_on_the_same_disk(pi: VirtualPi) -> None:
    before, pid = write(pi), pi.pid
    pi.reset()
    pi.wait_until_up()
    boot, durable, _ = pi.shell(READ).split()
    assert boot != before and durable == "7000" and pi.pid == pid
    attached = VirtualPi.attach(pi.folder)
    assert attached is not None and attached.port == pi.port and attached.state() == "running"
