"""A virtual Pi that runs: its QEMU process, its power switch, its cable, and how to log in.

    with VirtualPi.start(image, folder) as pi:      # an image of `image.ensure_image`
        ...                                         # SSH to 127.0.0.1, pi.port, pi.user, pi.key
        pi.set_link(False)                          # pulls the network cable; True puts it back
        pi.freeze(); pi.thaw()                      # all of it stands still, and goes on
        pi.cut_power(); pi.power_on()               # what was not synced is lost; a cold boot
        pi.reset()                                  # the reset button

`start` continues a snapshot where one is named, and boots where none is. The folder holds the disk's
changes, the console's text and machine.json, by which another process can `attach`. Exact counting needs
`-icount shift=0`: one instruction is one nanosecond of the guest's time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.device.virtual import contents
from edgekd.device.virtual.image import Image, qemu_program, run_tool
from edgekd.device.virtual.qmp import SNAPSHOT_TIMEOUT_S, Qmp
from edgekd.errors import DeviceError

if TYPE_CHECKING:
    from edgekd.device.ssh import SshTransport

CPUS = ("cortex-a72", "cortex-a76")
MEMORY_MIB = 1024
BOOT_TIMEOUT_S = 180.0
STATE_FILE = "machine.json"
DISK_FILE = "disk.qcow2"


@dataclass(frozen=True)
class State:
    """machine.json: what another process needs to reach the machine."""

    pid: int
    port: int
    cpu: str
    memory_mib: int
    image: str  # the image's folder


class VirtualPi:
    """One virtual machine. Use `start`, or `attach` to one that another process started."""

    host = "127.0.0.1"
    user = contents.USER

    def __init__(self, image: Image, folder: Path, state: State) -> None:
        self.image, self.folder, self._state = image, folder, state
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        image: Image,
        folder: Path,
        *,
        port: int = 0,
        cpu: str = CPUS[0],
        snapshot: str = "booted",
        memory_mib: int = MEMORY_MIB,
    ) -> VirtualPi:
        """Start a new machine in `folder` (made; what an earlier machine left there is replaced).

        Args:
            port: on this machine, for its SSH; a free one when 0.
            cpu: the core, one of CPUS.
            snapshot: continue this snapshot of the image (it must be there: `snapshots.ensure_snapshot`);
                "" boots from the disk.
            memory_mib: of the machine; a snapshot has the size that it was taken with.

        Returns when the machine answers on its SSH port. Raises DeviceError when it does not.
        """
        folder.mkdir(parents=True, exist_ok=True)
        disk = folder / DISK_FILE
        disk.unlink(missing_ok=True)
        if snapshot:
            _copy_overlay(image.snapshot(snapshot, cpu), disk)
        else:
            base = ["-F", "qcow2", "-b", str(image.disk)]
            run_tool(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(disk)])
        pi = cls(image, folder, State(0, port or free_port(), cpu, memory_mib, str(image.folder)))
        pi._launch(["-loadvm", snapshot] if snapshot else [])
        try:
            pi.wait_until_up()
            if snapshot:
                pi.shell(f"date -u -s @{time.time():.0f}", user="root")  # it woke up when it was saved
        except BaseException:
            pi.close()
            raise
        return pi

    @classmethod
    def attach(cls, folder: Path) -> VirtualPi | None:
        """The machine that runs in `folder`, started by any process; None where none does."""
        try:
            state = State(**json.loads((folder / STATE_FILE).read_text("utf-8")))
            pi = cls(Image(Path(state.image)), folder, state)
        except (OSError, ValueError, TypeError):
            return None
        return pi if pi.is_running() else None

    @property
    def port(self) -> int:
        """The port on this machine that leads to its SSH server."""
        return self._state.port

    @property
    def key(self) -> Path:
        """The private key that may log in."""
        return self.image.login_key

    @property
    def cpu(self) -> str:
        """The core."""
        return self._state.cpu

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._state.pid

    def state(self) -> str:
        """QEMU's word: running, paused, ..."""
        with Qmp(self.folder / "qmp") as control:
            return str(control.call("query-status")["status"])

    def memory_bytes(self) -> int | None:
        """What QEMU takes of this machine's memory; None where it does not run."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def known_hosts_line(self) -> str:
        """The line of a known_hosts file that pins its host key."""
        kind, blob = self.image.host_key
        return f"[{self.host}]:{self.port} {kind} {blob}\n"

    def __enter__(self) -> VirtualPi:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def is_running(self) -> bool:
        """Whether its QEMU lives (a frozen machine runs)."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            command = Path(f"/proc/{self._state.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return str(self.folder.resolve()).encode() in command

    def wait_until_up(self, timeout_s: float = BOOT_TIMEOUT_S) -> float:
        """Wait until its SSH server says its name; returns the seconds it took."""
        began, patience_s = time.monotonic(), 2.0
        while time.monotonic() - began < timeout_s:
            if not self.is_running():
                raise DeviceError(f"the virtual machine ended: {self._complaint()}")
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as link:
                link.settimeout(patience_s)
                patience_s = min(
                    2 * patience_s, 60.0
                )  # each call costs it a process: let it answer the first
                if link.recv(4) == b"SSH-":
                    return time.monotonic() - began
            time.sleep(0.05)
        raise DeviceError(f"the virtual machine in {self.folder} has no SSH server after {timeout_s:g} s")

    def connect(self, timeout_s: float = 60.0, user: str = user) -> SshTransport:
        """A connection for programs as `user`, with the host key that the image was made with; close it."""
        from edgekd.device.ssh import SshOptions, SshTransport

        pinned = self.folder / "known_hosts"
        pinned.write_text(self.known_hosts_line, "utf-8")
        options = SshOptions(self.host, user, self.port, self.key, known_hosts=(pinned,), timeout_s=timeout_s)
        return SshTransport(options)

    def shell(self, line: str, timeout_s: float = 120.0, user: str = user) -> str:
        """What a line of shell prints there as `user`; DeviceError with its complaint when it fails."""
        output = b""
        with self.connect(user=user) as transport:
            conversation = transport.start(["sh", "-c", line])
            while data := conversation.receive(timeout_s):
                output += data
            status, errors = conversation.finish(timeout_s)
        if status:
            raise DeviceError(f"the virtual machine: {line!r} failed with status {status}: {errors.strip()}")
        return output.decode("utf-8", "replace")

    def set_link(self, up: bool) -> None:
        """Put the network cable in or pull it out: then nothing arrives, and nobody is told."""
        self._ask("set_link", name="n0", up=up)

    def freeze(self) -> None:
        """Let it stand still, with its links open."""
        self._ask("stop")

    def thaw(self) -> None:
        """Let it go on from where `freeze` held it."""
        self._ask("cont")

    def reset(self) -> None:
        """Press the reset button: the kernel starts again, what was not synced is lost."""
        self._ask("system_reset")

    def cut_power(self) -> None:
        """Kill it: what its page cache had not written is lost. `power_on` boots the same disk."""
        self._kill()

    def power_on(self, timeout_s: float = BOOT_TIMEOUT_S) -> float:
        """Boot from the disk as it was left, on the same port; returns the seconds until SSH answers."""
        if self.is_running():
            raise DeviceError("the virtual machine is on; cut its power first")
        began = time.monotonic()
        self._launch([])
        self.wait_until_up(timeout_s)
        return time.monotonic() - began

    def close(self) -> None:
        """End it and remove its disk."""
        self._kill()
        for name in (DISK_FILE, STATE_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def console(self) -> str:
        """What kernel and services wrote on the serial console since the machine was switched on."""
        path = self.folder / "console"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def save(self, name: str, forget: str = "") -> None:
        """Keep its whole state in its disk as snapshot `name`, and drop the snapshot `forget` from it.

        It stands still meanwhile.
        """
        with Qmp(self.folder / "qmp", SNAPSHOT_TIMEOUT_S) as control:
            said = control.say(f"delvm {forget}").strip() if forget else ""
            said = said or control.say(f"savevm {name}").strip()
        if said:
            raise DeviceError(f"the virtual machine was not saved: {said}")

    def release_disk(self) -> Path:
        """End it and leave its disk, as the file that is returned."""
        self._kill()
        return self.folder / DISK_FILE

    def _ask(self, command: str, **arguments: Any) -> None:
        with Qmp(self.folder / "qmp") as control:
            control.call(command, **arguments)

    def _launch(self, options: list[str]) -> None:
        """Start QEMU in a session of its own, so that it outlives the caller."""
        command = [*self._command(), *options]
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._state = State(**(asdict(self._state) | {"pid": self._process.pid}))
        (self.folder / STATE_FILE).write_text(json.dumps(asdict(self._state)) + "\n", "utf-8")

    def _command(self) -> list[str]:
        disk = self.folder.resolve() / DISK_FILE
        forward = f"hostfwd=tcp:{self.host}:{self.port}-:22"
        return [
            str(qemu_program()), "-M", "virt", "-cpu", self._state.cpu, "-smp", "1",
            "-m", str(self._state.memory_mib), "-accel", "tcg,thread=single", "-icount", "shift=0",
            "-display", "none", "-nodefaults",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd),
            "-append", "console=ttyAMA0 root=/dev/vda rw quiet mitigations=off",
            "-drive", f"if=none,id=d0,file={disk},format=qcow2,cache=writeback",
            "-device", "virtio-blk-pci,drive=d0",
            "-netdev", f"user,id=n0,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=n0,romfile=",
            "-device", "virtio-rng-pci",
            "-serial", "file:console", "-qmp", "unix:qmp,server=on,wait=off",
        ]  # fmt: skip

    def _kill(self) -> None:
        """End QEMU without a word to the guest, and wait until its port is free."""
        if not self.is_running():
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._state.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            return
        for _ in range(200):
            if not self.is_running():
                return
            time.sleep(0.01)
        raise DeviceError(f"the virtual machine (process {self._state.pid}) does not end")

    def _complaint(self) -> str:
        lines = (self.folder / "qemu.log").read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def free_port() -> int:
    """A TCP port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _copy_overlay(source: Path, disk: Path) -> None:
    """A snapshot's file as a machine's own disk; holes stay holes where the file system can."""
    shutil.copyfile(source, disk)
