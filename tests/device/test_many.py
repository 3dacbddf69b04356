"""Many devices at once over real SSH servers: those that freeze, refuse or reboot hold up nobody."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.device.deploy import DeployResult, deploy, make_release
from edgekd.device.inventory import Host
from edgekd.device.many import Leash, Outcome, persist, run_on_all, worst_exit_code
from edgekd.device.transport import LinkCutError, Transport
from edgekd.errors import ConfigError, DeviceError, VerifyError
from edgekd.progress import Progress
from tests.device.support import Sshd, free_port, proxy_to
from tests.device.test_deploy import holds_whole, local

pytestmark = pytest.mark.needs("sshd")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Sshd]]:
    """Four devices; each has a directory of its own, where its logins start."""
    with contextlib.ExitStack() as running:
        found = []
        for number in range(4):
            home = tmp_path / f"home-{number}"
            home.mkdir()
            command = f'ForceCommand cd {home} && eval "$SSH_ORIGINAL_COMMAND"'
            found.append(Sshd(tmp_path / f"sshd-{number}", command))
            running.callback(found[-1].stop)
        yield found


def test_five_devices_one_frozen_and_one_refusing(servers: list[Sshd], tmp_path: Path, bundle: Path) -> None:
    release = make_release(bundle)
    size_bytes = sum(map(len, release.contents.values()))
    with proxy_to(servers[3].port) as proxy:
        servers[3].pin(proxy.port, "host_key")
        proxy.freeze_after = size_bytes // 2
        ports = [servers[0].port, servers[1].port, proxy.port, free_port(), servers[2].port]
        by_port = {server.port: server for server in servers} | {proxy.port: servers[3]}

        def work(host: Host, leash: Leash, progress: Progress) -> DeployResult:
            port = int(host.address.rpartition(":")[2])

            def connect() -> Transport:
                return by_port.get(port, servers[0]).connect(port)

            def once(link: Transport, attempt: int) -> DeployResult:
                return deploy(link, release, "root", progress)

            return persist(connect, once, leash, progress)

        hosts = [Host(f"device-{n}", f"127.0.0.1:{port}") for n, port in enumerate(ports)]
        begin = time.monotonic()
        told: list[tuple[str, str]] = []
        outcomes = run_on_all(hosts, work, lambda h, what, *n: told.append((h.name, what)), deadline_s=5.0)
        assert time.monotonic() - begin < 12
    failed = {o.host.name: o.error for o in outcomes if o.error}
    assert set(failed) == {"device-2", "device-3"}
    assert "not done within its 5 s" in str(failed["device-2"]) and "device-2" in str(failed["device-2"])
    assert "refuses connections" in str(failed["device-3"])
    for number in (0, 1, 2):
        holds_whole(tmp_path / f"home-{number}" / "root", release.name)
    assert not (tmp_path / "home-3" / "root" / "current").exists()
    assert worst_exit_code(outcomes) == 6
    assert {name for name, what in told if what == "done"} == {"device-0", "device-1", "device-4"}


def test_a_device_that_reboots_in_the_middle_is_waited_for(
    servers: list[Sshd], tmp_path: Path, bundle: Path, next_bundle: Path
) -> None:
    server, root = servers[0], tmp_path / "home-0" / "root"
    before = deploy(local(root.parent), bundle, "root")
    release, reboots = make_release(next_bundle), []

    def progress(label: str, done: int, total: int) -> None:
        if label == "upload" and done > total / 2 and not reboots:
            server.cut_power()
            holds_whole(root, before.release)
            reboots.append(threading.Timer(1.0, server.start))
            reboots[0].start()

    def once(link: Transport, attempt: int) -> DeployResult:
        return deploy(link, release, "root", progress)

    leash = Leash("pi", 60)
    result = persist(server.connect, once, leash, progress)
    assert leash.attempts == 2 and result.resumed_bytes > 0 and not result.unchanged
    holds_whole(root, release.name)


def test_a_device_that_stays_away_is_given_up(servers: list[Sshd], bundle: Path) -> None:
    def work(link: Transport, attempt: int) -> DeployResult:
        servers[1].cut_power()
        return deploy(link, bundle, "root")

    with pytest.raises(DeviceError, match="refuses connections"):
        persist(servers[1].connect, work, Leash("pi", 60), lambda *told: None, return_s=3)


def test_a_deadline_closes_the_link_and_is_said_with_the_name() -> None:
    class Link:
        closed = False

        def close(self) -> None:
            self.closed = True

    leash, link = Leash("pi", 7), Link()
    leash.hold(link)  # type: ignore[arg-type]
    assert not link.closed
    leash.cut()
    assert link.closed
    late = Link()
    with pytest.raises(LinkCutError, match="pi was not done within its 7 s"):
        leash.hold(late)  # type: ignore[arg-type]
    assert late.closed  # a link that came about too late is not used


def test_only_so_many_at_once_and_a_mistake_of_ours_is_raised() -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def work(host: Host, leash: Leash, progress: Progress) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return host.name

    hosts = [Host(str(n), str(n)) for n in range(20)]
    outcomes = run_on_all(hosts, work, lambda *told: None, at_once=4)
    assert [o.result for o in outcomes] == [h.name for h in hosts] and most[0] == 4

    def broken(host: Host, leash: Leash, progress: Progress) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_on_all(hosts, broken, lambda *told: None)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((), 0),
        ((None,), 0),
        ((VerifyError("k"), None, VerifyError("l")), 7),
        ((VerifyError("k"), DeviceError("d")), 6),
        ((ConfigError("c"),), 2),
    ],
)
def test_the_exit_code_says_what_failed(errors: tuple[DeviceError | None, ...], code: int) -> None:
    outcomes = [Outcome(Host("h", "h"), None, error, 0.0, 1) for error in errors]
    assert worst_exit_code(outcomes) == code
