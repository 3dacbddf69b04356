"""Where passphrases come from: the environment, else the terminal; never an option, which others see."""

from __future__ import annotations

import getpass
import os
import sys

from edgekd.errors import ConfigError

VARIABLE = "EDGEKD_PASSPHRASE"  # of every key; with _ONLINE_1 behind it, of that key


def ask(name: str) -> str:
    """The passphrase of a key that there is. ConfigError where nobody can be asked."""
    return _from_environment(name) or _typed(f"passphrase of key {name}: ", name)


def ask_new(name: str) -> str:
    """A new key's passphrase, typed twice."""
    given = _from_environment(name)
    if given:
        return given
    first = _typed(f"new passphrase of key {name}: ", name)
    if _typed("the same again: ", name) != first:
        raise ConfigError(f"the two passphrases of key {name} differ; begin again")
    return first


def _from_environment(name: str) -> str:
    own = f"{VARIABLE}_{name.upper().replace('-', '_')}"
    return os.environ.get(own) or os.environ.get(VARIABLE) or ""


def _typed(prompt: str, name: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            f"no passphrase for key {name}: set {VARIABLE}_{name.upper().replace('-', '_')} or {VARIABLE}, "
            f"or run this in a terminal"
        )
    return getpass.getpass(prompt)
