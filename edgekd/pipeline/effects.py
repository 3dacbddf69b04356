"""What happens on real devices. An effect is done anew each time and leaves a record; nothing is cached."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgekd.device.bench import bench_device
from edgekd.device.deploy import deploy
from edgekd.device.transport import LocalTransport, Transport, parse_address
from edgekd.errors import ConfigError
from edgekd.evaluate.record import new_record
from edgekd.pipeline.graph import make
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import BUNDLE
from edgekd.store import Artifact
from edgekd.target import Connection


def deploy_to_device(request: Request, to: str) -> dict[str, Any]:
    """Make the bundle (unless the store has it) and the device's current release of it."""
    connection = _connection(request)
    _address(request, to)  # a bad address is refused before anything is made
    artifact = make(request, "export")
    with _transport(request, to) as transport:
        result = deploy(transport, artifact.path / BUNDLE, connection.root, request.progress)
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
    connection, runtime = _connection(request), request.need_target().runtime
    with _transport(request, to) as transport:
        pieces = bench_device(
            transport,
            connection.root,
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
    from edgekd.device.ssh import trust_host

    trusted = trust_host(_ssh_options(request, to))
    return {
        "fingerprint": trusted.fingerprint,
        "host": trusted.host,
        "key": trusted.key_type,
        "added": trusted.added,
        "file": str(request.store.root / "known_hosts"),
    }


def _float_accuracy(artifact: Artifact) -> float | None:
    value = artifact.metrics.get("accuracy_float")
    return None if value is None else float(value)


def _connection(request: Request) -> Connection:
    target = request.need_target("linux")
    if target.connection is None:
        raise ConfigError(f"target {target.name} has no table [connection]; add it")
    return target.connection


def _address(request: Request, to: str) -> tuple[str | None, str, int | None]:
    connection = _connection(request)
    if connection.transport == "local":
        if to:
            raise ConfigError(f"target {request.need_target().name} is this machine; leave --to out")
        return None, "", None
    if to:
        return parse_address(to)
    if not connection.host:
        name = request.need_target().name
        raise ConfigError(
            f"target {name} names no host; add --to user@host, or host to [connection] in {name}.toml"
        )
    return connection.user or None, connection.host, connection.port


def _transport(request: Request, to: str) -> Transport:
    connection = _connection(request)
    if connection.transport == "local":
        python = connection.python if connection.python != "python3" else _this_python()
        return LocalTransport(request.store.root.parent, python, connection.timeout_s)
    from edgekd.device.ssh import SshTransport

    return SshTransport(_ssh_options(request, to))


def _this_python() -> str:
    """The interpreter that runs edgekd: on this machine it is the one that has the runtime."""
    import sys

    return sys.executable


def _ssh_options(request: Request, to: str) -> Any:
    from edgekd.device.ssh import SshOptions

    connection = _connection(request)
    user, host, port = _address(request, to)
    if connection.transport == "local":
        raise ConfigError(
            f"target {request.need_target().name} is this machine; there is no host key to trust"
        )
    ssh = Path("~/.ssh").expanduser()
    return SshOptions(
        host=host,
        user=user,
        port=port,
        key_file=request.key_file,
        config_file=request.ssh_config or ssh / "config",
        known_hosts=(ssh / "known_hosts", request.store.root / "known_hosts"),
        target=request.need_target().name,
        python=connection.python,
        timeout_s=connection.timeout_s,
    )
