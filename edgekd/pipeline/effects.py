"""What happens on real devices. An effect is done anew each time and leaves a record; nothing is cached."""

from __future__ import annotations

import time
from typing import Any

from edgekd.device.bench import bench_device
from edgekd.device.connect import find_address, open_transport, trust
from edgekd.device.deploy import deploy
from edgekd.device.transport import Transport
from edgekd.errors import ConfigError
from edgekd.evaluate.record import new_record
from edgekd.pipeline.graph import make
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import BUNDLE
from edgekd.store import Artifact

KNOWN_HOSTS = "known_hosts"  # in the store: keys pinned by `invoke trust`


def deploy_to_device(request: Request, to: str) -> dict[str, Any]:
    """Make the bundle (unless the store has it) and the device's current release of it."""
    root = _root(request)
    find_address(request.need_target(), to or None)  # a bad address is refused before anything is made
    artifact = make(request, "export")
    with _transport(request, to) as transport:
        result = deploy(transport, artifact.path / BUNDLE, root, request.progress)
    outcome = "nothing to do, the release is there" if result.unchanged else "deployed"
    record = {
        "target": request.need_target().name,
        "to": to or None,
        "artifact": {"stage": artifact.stage, "key": artifact.key, "digest": artifact.digest},
        "release": result.release,
        "outcome": outcome,
        "uploaded_bytes": result.uploaded_bytes,
        "resumed_bytes": result.resumed_bytes,
        "upload_s": round(result.upload_s, 3),
        "root": result.root,
        "releases": list(result.releases),
        "removed": list(result.removed),
        "free_bytes": result.free_bytes,
        "when": int(time.time()),
    }
    request.store.append_record("deploy", record)
    return record


def bench_on_device(request: Request, to: str) -> dict[str, Any]:
    """Deploy what is not there yet, run the agent's bench, return the bench record."""
    deployed = deploy_to_device(request, to)
    artifact = make(request, "export")
    runtime = request.need_target().runtime
    with _transport(request, to) as transport:
        pieces = bench_device(
            transport,
            _root(request),
            threads=runtime.threads if runtime else 1,
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
        accuracy_float=_float_accuracy(artifact),
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


def _float_accuracy(artifact: Artifact) -> float | None:
    value = artifact.metrics.get("accuracy_float")
    return None if value is None else float(value)


def _root(request: Request) -> str:
    """Where releases lie on the device; refuses a target that is not a Linux device."""
    target = request.need_target("linux")
    if target.connection is None:
        raise ConfigError(f"target {target.name} has no table [connection]; add it")
    return target.connection.root


def _transport(request: Request, to: str) -> Transport:
    return open_transport(
        request.need_target("linux"),
        to or None,
        directory=request.store.root.parent,
        known_hosts=request.store.root / KNOWN_HOSTS,
        ssh_config=request.ssh_config,
        key_file=request.key_file,
    )
