"""A small fleet for real: an operator's folder, nginx, and devices with an SSH server, an address, processes
and mounts of their own, which pull with the shipped agent.

As root each device is a network, process and mount namespace on a bridge; else a login of this machine. A
virtual Pi joins by `add_pi`: it reaches the host through a tunnel, as a device behind a firewall does.
Reports come back by HTTP PUT into the folder that the watcher reads.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgekd import api_rollouts
from edgekd.device.inventory import Host
from edgekd.device.ssh import SshTransport
from edgekd.device.transport import Transport
from edgekd.device.virtual.machine import VirtualPi
from edgekd.doctor import find_program
from edgekd.errors import EdgekdError
from edgekd.evaluate.record import new_record
from edgekd.fleet import driving, formats, keys, pair, releasing
from edgekd.fleet.formats import FleetPolicy
from edgekd.fleet.home import Home, open_home
from edgekd.fleet.releasing import Parts, Wish
from edgekd.fleet.remote import RemoteAgent
from tests.device.support import SSHD, Sshd, free_port
from tests.fleet.made import MODEL
from tests.fleet.test_releasing import DIGEST, FACTS, ask

HERE, PI = "linux-local", "pi-sim"
NETWORK = "10.77.9"
POLL = """
cd {home}
nohup setsid sh -c 'while :; do {python} {root}/edgekd-agent.pyz poll --root {root}; sleep {every}; done' \
    >poll.log 2>&1 </dev/null &
"""


class Device(Sshd):
    """An SSH server with a home of its own; as root in namespaces of its own, at `address`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.isolated = number, os.geteuid() == 0
        self.address = f"{NETWORK}.{10 + number}" if self.isolated else "127.0.0.1"
        self.home, self.space = folder / "home", f"edgekd-{os.getpid()}-{number}"
        self.home.mkdir(parents=True)
        if self.isolated:
            _plug(self.space, self.address, f"ek{os.getpid() % 100_000}-{number}")
        lines = [f'ForceCommand cd {self.home} && eval "$SSH_ORIGINAL_COMMAND"']
        super().__init__(folder, *lines, *([f"ListenAddress {self.address}"] if self.isolated else []))

    def run(self) -> None:
        command = [SSHD, "-D", "-f", str(self.config), "-E", str(self.folder / "sshd.log")]
        if self.isolated:
            inside = ["unshare", "-mpu", "--fork", "--kill-child", "--mount-proc"]
            command = ["ip", "netns", "exec", self.space, *inside, *command]
        self.process = subprocess.Popen(command)
        wait_for(self.address, self.port)

    def connect(self, port: int | None = None, **changes: Any) -> SshTransport:
        pinned = self.folder / "known"
        kind, blob = (self.folder / "host_key.pub").read_text().split()[:2]
        pinned.write_text(f"[{self.address}]:{self.port} {kind} {blob}\n")
        return super().connect(port, **{"host": self.address, "known_hosts": (pinned,)} | changes)

    def close(self) -> None:
        """Switch it off and take it off the bridge."""
        self.cut_power()
        if self.isolated:
            subprocess.run(["ip", "netns", "del", self.space], check=False)


def wait_for(address: str, port: int) -> None:
    """Until something listens there."""
    import socket

    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens at {address}:{port}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _plug(space: str, address: str, name: str) -> None:
    """A network namespace with one address, its other end on the bridge."""
    _ip("netns", "add", space)
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", name, "master", bridge_name(), "up")
    for rest in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
        _ip("-n", space, *rest)
    _ip("-n", space, "link", "set", "lo", "up")


def bridge_name() -> str:
    return f"ekbr{os.getpid() % 1_000_000}"


@contextlib.contextmanager
def bridged() -> Iterator[str]:
    """The address on which the devices reach this machine."""
    if os.geteuid() != 0:
        yield "127.0.0.1"
        return
    _ip("link", "add", bridge_name(), "type", "bridge")
    try:
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge_name())
        _ip("link", "set", bridge_name(), "up")
        yield f"{NETWORK}.1"
    finally:
        _ip("link", "del", bridge_name())


NGINX = """
daemon off;
pid {folder}/nginx.pid;
{user}
worker_processes 1;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    server {{
        listen {address}:{port};
        location / {{ root {host}; }}
        location /reports/ {{ alias {reports}/; dav_methods PUT; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, address: str, host: Path, reports: Path) -> Iterator[str]:
    """nginx with the fleet's folder, and a place for reports that takes PUT; its URL."""
    folder.mkdir()
    port = free_port()
    given = {"folder": folder, "address": address, "port": port, "host": host, "reports": reports}
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(**given, user=user))
    program = find_program("nginx")
    assert program is not None
    files = ["-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    server = subprocess.Popen([program, "-p", str(folder), *files])
    try:
        wait_for(address, port)
        yield f"http://{address}:{port}"
    finally:
        server.terminate()
        server.wait()


@dataclass(frozen=True)
class FieldWay(driving.Way):
    """How driving.py reaches the devices of a field."""

    links: Mapping[str, Any] = field(default_factory=dict)

    def connect(self, host: Host) -> Transport:
        found: Transport = self.links[host.name]()
        return found


class Field:
    """Operator, host and devices. links: name -> how to connect; hardware: name -> what it is."""

    def __init__(self, folder: Path, url: str, files: Mapping[str, Mapping[str, bytes]]) -> None:
        self.folder, self.url, self.files = folder, url, files
        self.fleet, self.reports = folder / "fleet", folder / "fleet" / "reports"
        self.links: dict[str, Any] = {}
        self.hardware: dict[str, str] = {}
        self.moods: dict[int, str] = {}
        self.where = api_rollouts.place(self.fleet)

    def home(self) -> Home:
        return open_home(self.fleet, datetime.now(UTC))

    def add(self, device: Device) -> None:
        name = f"device-{device.number}"
        self.links[name], self.hardware[name] = device.connect, HERE

    def add_pi(self, pi: VirtualPi) -> None:
        self.links["pi"], self.hardware["pi"] = pi.connect, PI

    def hosts(self) -> list[Host]:
        return [Host(name, "", target=self.hardware[name], models=(MODEL,)) for name in self.links]

    def way(self) -> FieldWay:
        return FieldWay({}, self.folder, deadline_s=300.0, links=self.links)

    def enrol(self, pi_url: str = "") -> None:
        """Put the agent on every device, with where it asks and where its reports go."""
        for host in self.hosts():
            url = pi_url if self.hardware[host.name] == PI else self.url
            terms = driving.Terms(url=url, clock="system", report_url=f"{url}/reports")
            done = driving.enrol([host], self.way(), terms, self.fleet, datetime.now(UTC), lambda *told: None)
            assert done["counts"] == {"enrolled": 1}, done

    def start_polling(self, every_s: float) -> None:
        """What a timer does on a device."""
        for name, connect in self.links.items():
            with connect() as link:
                python = link.python
                home = "$HOME" if self.hardware[name] == PI else "."
                line = POLL.format(home=home, python=python, root="edgekd-agent", every=every_s)
                link.start(["sh", "-c", line]).close()

    def sign(self, mood: str) -> int:
        """Sign and publish the next release, of the bundle of that mood; its number."""
        number = len(self.moods) + 1
        files = {path: data for path, data in self.files[mood].items() if path.startswith("bundle/")}
        files["bundle/note.txt"] = f"release {number}: {mood}\n".encode()
        parts = Parts(
            model=MODEL,
            kind="linux",
            contents=files,
            golden=("bundle/golden_native.npy",),
            record=new_record(target=HERE, artifact={"digest": DIGEST}),
            bom=releasing_bom(),
            steps=0,
            made_from=formats.MadeFrom("export", "0123", DIGEST),
        )
        home = self.home()
        releasing.propose(home, parts, Wish((HERE, PI), number, mood))
        releasing.sign(home, ask)
        releasing.publish(self.home())
        self.moods[number] = mood
        return number

    def roll_out(self, number: int, canaries: int, longest_s: float, every_s: float = 0.5) -> dict[str, Any]:
        """Start a rollout and watch it until it ends or pauses: its status and how long it took."""
        began_s = time.monotonic()
        made = api_rollouts.draft(self.where, MODEL, number, canaries=canaries, deadline_s=600)
        api_rollouts.start(self.where, made, ask)
        found: dict[str, Any] = {"status": "running"}
        while found["status"] == "running" and time.monotonic() - began_s < longest_s:
            time.sleep(every_s)
            found = api_rollouts.watch(self.where, made.plan.rollout, ask, once=True)
        taken_s = time.monotonic() - began_s
        return found | {"seconds": round(taken_s, 1), "canaries": made.plan.devices[:canaries]}

    def reported(self) -> dict[str, dict[str, Any]]:
        """What each device says of itself, over SSH."""
        found = {}
        for name, connect in self.links.items():
            for _ in range(20):  # "busy" while its timer's visit is at work
                with connect() as link, contextlib.suppress(EdgekdError):
                    report = RemoteAgent(link).report()
                    if not report["refused"] or report["refused"]["reason"] != "busy":
                        found[name] = report["models"][MODEL]
                        break
                time.sleep(1.0)
        return found


def releasing_bom() -> bytes:
    from edgekd.fleet.bom import write_bom

    return write_bom(replace(FACTS, name=MODEL))


def begin(fleet: Path) -> None:
    """A fleet whose devices may install as often as they like, for a field has no ten minutes."""
    keys.init(fleet, "field", datetime.now(UTC), ask, rounds=1)
    home = open_home(fleet, datetime.now(UTC))
    made = home.open()
    pair.set_fleet_policy(made, FleetPolicy(formats.SCHEMA, "field", min_interval_s=0))
    made.releases.refresh()
    done = home.finish(made, ask)
    assert done["lacking"] == []


@contextlib.contextmanager
def running(
    folder: Path,
    count: int,
    files: Mapping[str, Mapping[str, bytes]],
    pi: VirtualPi | None = None,
    every_s: float = 1.0,
) -> Iterator[Field]:
    """A field with `count` devices, and a virtual Pi where one is given; all enrolled and polling."""
    begin(folder / "fleet")
    (folder / "fleet" / "reports").mkdir()
    with contextlib.ExitStack() as open_ones:
        address = open_ones.enter_context(bridged())
        host = folder / "fleet" / "host"
        url = open_ones.enter_context(nginx(folder / "nginx", address, host, folder / "fleet" / "reports"))
        found = Field(folder, url, files)
        for number in range(count):
            device = Device(folder / f"device-{number}", number)
            open_ones.callback(device.close)
            found.add(device)
        if pi is not None:
            found.add_pi(pi)
            open_ones.enter_context(tunnel(pi, url))
        found.enrol("http://127.0.0.1:8077")
        found.start_polling(every_s)
        yield found


@contextlib.contextmanager
def tunnel(pi: VirtualPi, url: str) -> Iterator[None]:
    """Let the Pi reach nginx at its own port 8077."""
    pinned = pi.folder / "tunnel_hosts"
    pinned.write_text(pi.known_hosts_line)
    options = ["-o", f"UserKnownHostsFile={pinned}", "-o", "ExitOnForwardFailure=yes", "-i", str(pi.key)]
    forward = f"8077:{url.removeprefix('http://')}"
    command = ["ssh", "-N", "-R", forward, *options, "-p", str(pi.port), f"{pi.user}@{pi.host}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
