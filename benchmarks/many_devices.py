"""Deploying to many devices side by side: time against one device's, memory of the deployer.

    python benchmarks/many_devices.py [--devices 50] [--out benchmarks/results/many_devices.json]

The devices are OpenSSH servers of this machine, each with its own port, keys and directory. All of them, and
the agents that they start, share its cores with the deployer, so the ratio says more about the machine than
about the deployer. In the round with faults one server is stopped (SIGSTOP) and one port refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgekd.device.deploy import DeployResult, Release, deploy, make_release
from edgekd.device.inventory import Host
from edgekd.device.many import Leash, persist, run_on_all
from edgekd.device.ssh import SshOptions, SshTransport
from edgekd.device.transport import Transport
from edgekd.progress import Progress
from tests.device.support import Sshd, free_port, make_bundle

CONNECT_S = 60.0  # a machine that starts fifty agents at once is slow to answer
DEADLINE_S = 120.0


def deploy_to(options: dict[str, SshOptions], release: Release, deadline_s: float) -> dict[str, Any]:
    """One round, in this process: seconds, outcomes, errors, bytes sent."""

    def work(host: Host, leash: Leash, progress: Progress) -> DeployResult:
        def once(link: Transport, attempt: int) -> DeployResult:
            return deploy(link, release, "root", progress, keep=1)

        return persist(lambda: SshTransport(options[host.name]), once, leash, progress)

    hosts = [Host(name, f"127.0.0.1:{each.port}") for name, each in options.items()]
    begin_s = time.monotonic()
    outcomes = run_on_all(hosts, work, lambda *told: None, deadline_s=deadline_s)
    failed = {o.host.name: str(o.error) for o in outcomes if o.error}
    return {
        "devices": len(hosts),
        "seconds": round(time.monotonic() - begin_s, 2),
        "deployed": sum(o.result is not None and not o.result.unchanged for o in outcomes),
        "unchanged": sum(o.result is not None and o.result.unchanged for o in outcomes),
        "failed": failed,
        "sent_bytes": sum(o.result.uploaded_bytes for o in outcomes if o.result),
        "attempts": sum(o.attempts for o in outcomes),
    }


def measured(
    options: dict[str, SshOptions], release: Release, deadline_s: float = DEADLINE_S
) -> dict[str, Any]:
    """One round in a process of its own: with its peak memory and processor time."""
    here, there = multiprocessing.get_context("fork").Pipe()

    def child() -> None:
        idle = resource.getrusage(resource.RUSAGE_SELF)
        told = deploy_to(options, release, deadline_s)
        used = resource.getrusage(resource.RUSAGE_SELF)
        told |= {
            "peak_rss_bytes": peak_bytes(),
            "cpu_s": round(used.ru_utime + used.ru_stime - idle.ru_utime, 2),
        }
        there.send(told)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    told: dict[str, Any] = here.recv()
    process.join()
    return told


def peak_bytes() -> int:
    """VmHWM of this process since it was forked."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[list[Sshd]]:
    """`count` devices, each with a directory where its logins start."""
    with contextlib.ExitStack() as running:
        found = []
        for number in range(count):
            home = folder / f"home-{number}"
            home.mkdir()
            command = f'ForceCommand cd {home} && eval "$SSH_ORIGINAL_COMMAND"'
            found.append(Sshd(folder / f"sshd-{number}", command))
            running.callback(found[-1].cut_power)
        yield found


def options_of(found: Sequence[Sshd]) -> dict[str, SshOptions]:
    return {f"device-{n:02}": each.options(timeout_s=CONNECT_S) for n, each in enumerate(found)}


def rounds(folder: Path, count: int) -> dict[str, Any]:
    """One device, all of them, all again, and all with one that is stopped and one that refuses."""
    bundles = [make_bundle(folder / "made", seed, samples=400) for seed in (1, 2)]
    releases = [make_release(bundle) for bundle in bundles]
    with servers(folder, count) as found:
        everyone = options_of(found)
        told = {"one": measured(options_of(found[:1]), releases[0])}
        told["all"] = measured(everyone, releases[0])
        told["all, nothing changed"] = measured(everyone, releases[0])
        os.kill(found[1].process.pid, signal.SIGSTOP)
        with_faults = everyone | {
            "device-01": found[1].options(timeout_s=5.0),
            "device-02": found[2].options(free_port(), timeout_s=5.0),
        }
        told["all, one stopped and one refusing"] = measured(with_faults, releases[1])
        os.kill(found[1].process.pid, signal.SIGCONT)
    told["all"]["times one"] = round(told["all"]["seconds"] / told["one"]["seconds"], 1)
    return {"release_bytes": sum(map(len, releases[0].contents.values())), "rounds": told}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="time and memory of deploying to many devices")
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = rounds(Path(folder), chosen.devices)
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    record = {
        "devices": chosen.devices,
        "kind": "OpenSSH servers of one machine",
        "machine": machine,
        **result,
    }
    text = json.dumps(record, indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    print(text)
    wrong = set(result["rounds"]["all, one stopped and one refusing"]["failed"]) != {"device-01", "device-02"}
    return int(
        wrong or any(result["rounds"][name]["failed"] for name in ("one", "all", "all, nothing changed"))
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
