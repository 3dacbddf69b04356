"""Which host keys are trusted: the user's ~/.ssh/known_hosts and the project's own file.

Nothing is trusted by itself: an unknown key is refused with its fingerprint and the command that trusts
it, a changed key loudly. `remember` is the only writer, of the project's file alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.hostkeys import InvalidHostKey

from edgekd.errors import ConfigError, VerifyError


@dataclass(frozen=True)
class TrustedHost:
    """A host key that is pinned. `added` is False when it was trusted already."""

    host: str
    key_type: str
    fingerprint: str
    added: bool


def load_known_hosts(paths: Sequence[Path]) -> paramiko.HostKeys:
    """The keys of those of `paths` that exist; ConfigError names a file that cannot be read."""
    known = paramiko.HostKeys()
    for path in paths:
        if not path.is_file():
            continue
        try:
            known.load(str(path))
        except InvalidHostKey as error:
            raise ConfigError(f"{path}: {error.line[:40]!r} holds no key; mend or remove that line") from None
        except (paramiko.SSHException, OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a known_hosts file: {error}; mend or remove that line") from None
    return known


def entry_name(host: str, port: int) -> str:
    """How known_hosts calls a host: the bare name on port 22, else [host]:port."""
    return host if port == 22 else f"[{host}]:{port}"


def unknown_key_error(host: str, port: int, key: paramiko.PKey, trust_command: str) -> VerifyError:
    """The refusal of a key that nobody vouched for."""
    return VerifyError(
        f"{entry_name(host, port)} is not a known host: it shows the {key.get_name()} key {key.fingerprint}; "
        f"compare that with `ssh-keygen -lf` of its key on the device, then trust it: {trust_command}"
    )


def changed_key_error(host: str, port: int, key: paramiko.PKey, known: str) -> VerifyError:
    """The refusal of a key that is not the pinned one."""
    name = entry_name(host, port)
    return VerifyError(
        f"THE HOST KEY OF {name} HAS CHANGED: {known} is pinned and it now shows {key.get_name()} "
        f"{key.fingerprint}; someone may sit in between: only when you know why it changed, remove the old "
        f"key with: ssh-keygen -R '{name}' (-f FILE for the project's own known_hosts) and trust the new one"
    )


def remember(
    host: str, port: int, key: paramiko.PKey, path: Path, known_paths: Sequence[Path]
) -> TrustedHost:
    """Pin `key` in the file `path`, unless it is pinned already in one of `known_paths`.

    Raises VerifyError when another key is pinned for the host: replacing one is the user's own act.
    """
    name = entry_name(host, port)
    pinned = load_known_hosts([*known_paths, path]).lookup(name)
    if pinned is not None and key.get_name() in pinned:
        old = pinned[key.get_name()]
        if old != key:
            raise changed_key_error(host, port, key, f"{old.get_name()} {old.fingerprint}")
        return TrustedHost(name, key.get_name(), key.fingerprint, added=False)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(f"{before}{name} {key.get_name()} {key.get_base64()}\n", encoding="utf-8")
    os.replace(temporary, path)
    return TrustedHost(name, key.get_name(), key.fingerprint, added=True)
