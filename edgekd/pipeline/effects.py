"""What happens on real devices. An effect is done anew each time and leaves a record; nothing is cached."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.device.bench import AUTO, bench_device
from edgekd.device.connect import find_address, open_transport, trust
from edgekd.device.deploy import DeployResult, deploy, device_logs, make_release, rollback
from edgekd.device.inventory import FILE as INVENTORY
from edgekd.device.inventory import Host, find_hosts, load_inventory
from edgekd.device.many import DEADLINE_S, Leash, Outcome, Tell, persist, run_on_all, worst_exit_code
from edgekd.device.service import install_service, run_sample, sample_shape
from edgekd.device.transport import Transport
from edgekd.errors import ConfigError
from edgekd.evaluate.record import new_record
from edgekd.export.linux import bundle_name
from edgekd.pipeline.bundling import BUNDLE, accuracy_metrics
from edgekd.pipeline.graph import make
from edgekd.pipeline.request import Request
from edgekd.progress import Progress
from edgekd.recipe import DataParams
from edgekd.store import Artifact

WAIT_S, WAIT_AGAIN_S = 3.0, 90.0  # for another's lock; for one's own, that a cut link left a while
UNCHANGED = "nothing to do, the release is there"
KNOWN_HOSTS = "known_hosts"  # in the store: keys pinned by `invoke trust`


def hosts_of(request: Request, to: str, inventory: Path | None) -> list[Host]:
    """The devices that `to` names ("": the target's own address), every address checked.

    inventory: the file; None: the project's own, where it has one. Connects to nothing.
    """
    target = request.need_target("linux")
    if not to:
        find_address(target, None)
        return [Host(target.name, "")]
    own = request.store.root.parent / INVENTORY
    path = inventory or (own if own.is_file() else None)
    hosts = find_hosts(to, load_inventory(path) if path else None)
    for host in hosts:
        find_address(target, host.address)
    return hosts


def one_host(request: Request, to: str, inventory: str = "") -> Host:
    """The one device that `to` names; ConfigError where it names several."""
    found = hosts_of(request, to, Path(inventory) if inventory else None)
    if len(found) > 1:
        raise ConfigError(f"--to {to} names {len(found)} devices and this is done on one; name one of them")
    return found[0]


def deploy_to_hosts(
    request: Request,
    hosts: Sequence[Host],
    tell: Tell,
    *,
    deadline_s: float = DEADLINE_S,
    service: bool = False,
    port: int = 0,
) -> list[Outcome[dict[str, Any]]]:
    """Make the bundle (unless the store has it) and the current release of each device, side by side.

    A device's result is its deploy record. A link that is cut is made again, and the upload goes on.
    service: let systemd serve the release there, on `port` of loopback too where it is not 0.
    """
    root = device_root(request)
    artifact = make(request, "export")
    release = make_release(artifact.path / BUNDLE)

    def work(host: Host, leash: Leash, progress: Progress) -> dict[str, Any]:
        def once(transport: Transport, attempt: int) -> DeployResult:
            wait_s = WAIT_S if attempt == 1 else WAIT_AGAIN_S
            done = deploy(transport, release, root, progress, wait_s=wait_s)
            if not service:
                return done
            return replace(done, service=install_service(transport, root, port=port, progress=progress))

        result = persist(lambda: open_device(request, host.address), once, leash, progress)
        record = _deploy_record(request, host.address, artifact, result)
        request.store.append_record("deploy", record)
        return record

    return run_on_all(hosts, work, tell, deadline_s=deadline_s)


def deploy_to_device(request: Request, to: str) -> dict[str, Any]:
    """Deploy to one device; its record, or its error."""
    return only(deploy_to_hosts(request, [one_host(request, to)], _as_progress(request)))


def rollback_hosts(
    request: Request, hosts: Sequence[Host], tell: Tell, *, deadline_s: float = DEADLINE_S
) -> list[Outcome[dict[str, Any]]]:
    """Make the release before the current one current on each device. Done once, never again by itself."""
    root = device_root(request)

    def work(host: Host, leash: Leash, progress: Progress) -> dict[str, Any]:
        with open_device(request, host.address) as transport:
            leash.hold(transport)
            done = rollback(transport, root)
        record: dict[str, Any] = {"target": request.need_target().name, "to": host.address or None}
        record |= {"outcome": "rolled back", **done, "root": root, "when": int(time.time())}
        request.store.append_record("deploy", record)
        return record

    return run_on_all(hosts, work, tell, deadline_s=deadline_s)


def run_on_device(request: Request, host: Host, path: Path) -> dict[str, Any]:
    """One inference of a device's current release on the sample in the file `path`."""
    from edgekd.data.sample import read_sample

    root = device_root(request)
    with open_device(request, host.address) as transport:
        takes = sample_shape(transport, root)
        sample = read_sample(path, tuple(takes["input_shape"]), _data_params(request, takes["current"]))
        return run_sample(transport, root, sample, progress=request.progress)


def _data_params(request: Request, release: str) -> DataParams | None:
    """[data] of the recipe whose release it is; None for another's (a user's own model)."""
    recipe = request.recipe
    return recipe.data if recipe and release.rpartition("-")[0] == bundle_name(recipe.name) else None


def logs_of_device(request: Request, host: Host, lines: int) -> dict[str, Any]:
    """What was done on a device, and what its service said."""
    with open_device(request, host.address) as transport:
        return device_logs(transport, device_root(request), lines)


def only(outcomes: Sequence[Outcome[dict[str, Any]]]) -> dict[str, Any]:
    """The result of the one device there is; its error is raised."""
    outcome = outcomes[0]
    if outcome.error:
        raise outcome.error
    return outcome.result or {}


def summary(request: Request, outcomes: Sequence[Outcome[dict[str, Any]]]) -> dict[str, Any]:
    """What became of many devices: a row each, how many of each outcome, and the exit code."""
    rows = []
    for outcome in outcomes:
        row: dict[str, Any] = {"host": outcome.host.name, "seconds": round(outcome.seconds, 2)}
        row |= {"attempts": outcome.attempts, "error": str(outcome.error) if outcome.error else None}
        told = outcome.result or {"to": outcome.host.address, "outcome": "failed"}
        rows.append(row | {key: value for key, value in told.items() if key != "target"})
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    code = worst_exit_code(outcomes)
    return {"target": request.need_target().name, "hosts": rows, "counts": counts, "exit_code": code}


def _deploy_record(request: Request, to: str, artifact: Artifact, result: DeployResult) -> dict[str, Any]:
    told = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(result).items()}
    told |= {"upload_s": round(result.upload_s, 3)}
    return {
        "target": request.need_target().name,
        "to": to or None,
        "artifact": {"stage": artifact.stage, "key": artifact.key, "digest": artifact.digest},
        "outcome": UNCHANGED if told.pop("unchanged") else "deployed",
        **told,
        "when": int(time.time()),
    }


def _as_progress(request: Request) -> Tell:
    """One device's work as the request's progress."""
    quiet = ("connecting", "done")

    def tell(host: Host, label: str, done: int, total: int) -> None:
        if label not in quiet and not label.startswith("failed"):
            request.progress(label, done, total)

    return tell


def bench_on_device(request: Request, to: str) -> dict[str, Any]:
    """Deploy what is not there yet, run the agent's bench, return the bench record."""
    to = one_host(request, to).address
    deployed = deploy_to_device(request, to)
    artifact = make(request, "export")
    runtime = request.need_target().runtime
    with open_device(request, to) as transport:
        pieces = bench_device(
            transport,
            device_root(request),
            variant=request.variant or AUTO,
            threads=runtime.threads if runtime else 0,
            again=request.again,
            samples=request.samples,
            expected_release=deployed["release"],
            progress=request.progress,
        )
    record = new_record(
        **pieces,
        target=request.need_target().name,
        recipe=request.recipe.name if request.recipe else None,
        model=request.model.path.name if request.model else None,
        artifact={"stage": artifact.stage, "key": artifact.key, "digest": artifact.digest},
        accuracy_source="the device's own answers",
        **accuracy_metrics(artifact),
        when=int(time.time()),
    )
    request.store.append_record("bench", record)
    return record


def trust_device(request: Request, to: str) -> dict[str, Any]:
    """Pin the key that the device's SSH server shows now, in the store's own known_hosts."""
    known_hosts = request.store.root / KNOWN_HOSTS
    files: dict[str, Any] = {"ssh_config": request.ssh_config, "key_file": request.key_file}
    trusted = trust(request.need_target("linux"), to or None, known_hosts=known_hosts, **files)
    shown = {"host": trusted.host, "key": trusted.key_type, "fingerprint": trusted.fingerprint}
    return shown | {"added": trusted.added, "file": str(known_hosts)}


def device_root(request: Request) -> str:
    """Where releases lie on the device; refuses a target that is not a Linux device."""
    target = request.need_target("linux")
    if target.connection is None:
        raise ConfigError(f"target {target.name} has no table [connection]; add it")
    return target.connection.root


def open_device(request: Request, to: str) -> Transport:
    """A connection to the device; `to` "": the target's own address. A virtual device is switched on."""
    return open_transport(
        request.need_target("linux"),
        to or None,
        directory=request.store.root.parent,
        known_hosts=request.store.root / KNOWN_HOSTS,
        ssh_config=request.ssh_config,
        key_file=request.key_file,
        progress=request.progress,
    )
