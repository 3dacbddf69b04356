"""A real systemd as the first process of a PID namespace: the units of `--service` run as on a device.

Needs root. It sees this machine's files; /run, /etc/systemd/system and the cgroups of systemd are its own,
and of the machine's units only bare targets, so it starts nothing and stops nothing here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.device.support import descendants, script

JOURNAL = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
TARGETS: tuple[str, ...] = (
    "sysinit",
    "basic",
    "shutdown",
    "sockets",
    "paths",
    "timers",
    "slices",
    "multi-user",
    "umount",
)
TARGETS += ("final", "exit", "local-fs", "local-fs-pre", "swap")
BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind {units} /lib/systemd/system
for folder in /etc/systemd/system /run; do
    mount -t tmpfs -o mode=755 tmpfs $folder
done
mkdir -p -m 700 /var/lib/private
mount -t tmpfs -o mode=700 tmpfs /var/lib/private
for folder in /etc/systemd/system-generators /usr/lib/systemd/system-generators; do
    if [ -d $folder ]; then mount -t tmpfs tmpfs $folder; fi
done
mkdir -p /run/lock /run/log/journal
if [ -d /var/log/journal ]; then mount -t tmpfs tmpfs /var/log/journal; fi
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/{name}
    echo $$ > /sys/fs/cgroup/{name}/cgroup.procs
else
    umount -R /sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for kind in memory pids; do
        mkdir -p /sys/fs/cgroup/$kind
        mount -t cgroup -o $kind cgroup /sys/fs/cgroup/$kind || rmdir /sys/fs/cgroup/$kind
    done
    mkdir -p /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
fi
export container=edgekd
exec {systemd} --system --unit=multi-user.target --log-target=console --show-status=false
"""


class Booted:
    """A systemd that runs. `python`: a program that runs this machine's Python beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        units = folder / "units"
        units.mkdir()
        for name in (*(f"{target}.target" for target in TARGETS), *JOURNAL):
            source = Path("/lib/systemd/system", name)
            if source.is_file():
                (units / name).write_bytes(source.read_bytes())
        systemd = next(p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).is_file())
        lines = BOOT.format(units=units, systemd=systemd, name=f"edgekd-{os.getpid()}")
        start = script(folder / "boot", lines)
        command = ["unshare", "-mpiu", "--fork", "--kill-child", str(start)]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._log = folder / "log"
        self.pid = self._first()
        self._folder = folder
        self.start_journal()

    def _first(self) -> int:
        """The process id of the systemd, once it is ready."""
        for _ in range(300):
            for pid in descendants(self._process.pid):
                if self._run(pid, "systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return pid
            if self._process.poll() is not None:
                pytest.skip(f"no systemd in a namespace here: {self._log.read_text()[-300:]}")
            time.sleep(0.1)
        raise RuntimeError(self._log.read_text())

    @staticmethod
    def _run(pid: int, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(pid), "-m", "-p", "-i", "-u", "--"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=60)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program beside the systemd."""
        return self._run(self.pid, *command)

    def start_journal(self) -> None:
        """Let systemd keep what services say."""
        self.run("systemctl", "start", *JOURNAL)

    def program(self, name: str, command: str) -> str:
        """A program on this machine that runs `command` with its arguments beside the systemd."""
        line = f'exec nsenter -t {self.pid} -m -p -i -u --wd="$PWD" -- {command} "$@"'
        return str(script(self._folder / name, line))

    def stop(self) -> None:
        """End it and all that it runs."""
        for pid in descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
