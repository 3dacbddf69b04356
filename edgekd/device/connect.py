"""From a target profile and `--to` to a transport. The only place that knows of ~/.ssh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.device.transport import LocalTransport, Transport, parse_address
from edgekd.errors import ConfigError, MissingDependencyError
from edgekd.progress import Progress, silent
from edgekd.target import Connection, Target

if TYPE_CHECKING:
    from edgekd.device.hostkeys import TrustedHost
    from edgekd.device.ssh import SshOptions


def open_transport(
    target: Target,
    to: str | None = None,
    *,
    directory: Path,
    known_hosts: Path,
    ssh_config: Path | None = None,
    user_known_hosts: Path | None = None,
    key_file: Path | None = None,
    progress: Progress = silent,
) -> Transport:
    """Connect to the device of `target`.

    Args:
        to: `[user@]host[:port]`, over the profile's own connection; for a local target it must be None.
        directory: where a local target's relative root begins (the project's root).
        known_hosts: the project's own file of pinned host keys.
        ssh_config, user_known_hosts: the user's files; ~/.ssh/config and ~/.ssh/known_hosts when None.
        key_file: the one key to log in with; else those of the config file, or the agent and usual files.
        progress: is told when a virtual device has to be built or started.

    A virtual target without `to` is this project's own machine, switched on where it is off.

    Raises ConfigError for a target without an address, DeviceError and VerifyError as SshTransport does.
    """
    connection = _connection(target)
    if connection.transport == "local":
        find_address(target, to)
        python = sys.executable if connection.python == "python3" else connection.python
        return LocalTransport(directory, python, connection.timeout_s)
    if target.virtual is not None and to is None:
        from edgekd.device.virtual.control import reach

        reached = reach(target, known_hosts.parent, progress)
        target, key_file = reached.target, key_file or reached.key_file
        known_hosts = user_known_hosts = reached.known_hosts
    options = _ssh_options(target, to, known_hosts, ssh_config, user_known_hosts, key_file)
    from edgekd.device.ssh import SshTransport

    return SshTransport(options)


def trust(
    target: Target,
    to: str | None = None,
    *,
    known_hosts: Path,
    ssh_config: Path | None = None,
    user_known_hosts: Path | None = None,
    key_file: Path | None = None,
) -> TrustedHost:
    """Pin the host key that the device of `target` shows now; arguments as for `open_transport`.

    The caller prints the result's fingerprint. Raises VerifyError when another key is pinned already.
    """
    if _connection(target).transport == "local":
        raise ConfigError(
            f"target {target.name} is this machine and has no host key; there is nothing to trust"
        )
    options = _ssh_options(target, to, known_hosts, ssh_config, user_known_hosts, key_file)
    from edgekd.device.ssh import trust_host

    return trust_host(options)


def find_address(target: Target, to: str | None) -> tuple[str | None, str, int | None]:
    """User, host and port to connect to; ConfigError for a bad or missing address. Connects to nothing.

    A port that nobody named is None, so that ~/.ssh/config may say one; a local target has the host "".
    """
    connection = _connection(target)
    if connection.transport == "local":
        if to is not None:
            raise ConfigError(f"target {target.name} is this machine; leave --to out, or take an ssh target")
        return None, "", None
    user, host, port = parse_address(to) if to is not None else (None, connection.host, None)
    if not host:
        raise ConfigError(
            f"target {target.name} has no address; add --to user@host[:port], or set its connection.host"
        )
    named_port = None if connection.port == 22 else connection.port
    return user or connection.user or None, host, port or named_port


def _connection(target: Target) -> Connection:
    if target.connection is None:
        raise ConfigError(
            f"target {target.name} is of kind {target.kind!r} and has no connection; name a linux one"
        )
    return target.connection


def _ssh_options(
    target: Target,
    to: str | None,
    known_hosts: Path,
    ssh_config: Path | None,
    user_known_hosts: Path | None,
    key_file: Path | None,
) -> SshOptions:
    user, host, port = find_address(target, to)
    try:
        from edgekd.device.ssh import SshOptions
    except ImportError:
        raise MissingDependencyError("SSH needs paramiko; install it with: pip install paramiko") from None
    connection, folder = _connection(target), Path.home() / ".ssh"
    return SshOptions(
        host=host,
        user=user,
        port=port,
        key_file=key_file,
        config_file=ssh_config or folder / "config",
        known_hosts=(user_known_hosts or folder / "known_hosts", known_hosts),
        target=target.name,
        python=connection.python,
        timeout_s=connection.timeout_s,
    )
