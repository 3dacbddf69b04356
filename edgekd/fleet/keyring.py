"""Which keys a fleet has and where their secrets are: `keys.json`, which holds nothing secret.

A secret is a file of ours (`file:keys/root-1.key`) or whatever securesystemslib has a signer for, by its URI:
PKCS#11 (`hsm:`), a cloud's KMS, Vault, GnuPG. The keys in force are those that the published roots name;
`keys.json` only says what they are called and how to reach them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key, Signer

from edgekd.declaration import suggest
from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.fleet import keyfiles
from edgekd.store import write_atomically

SCHEMA = 1
FILE = "keys.json"
DUTIES = ("root", "targets", "online")
OURS = "file"  # the scheme of key files

Ask = Callable[
    [str], str
]  # the passphrase or PIN of the key of that name; raises ConfigError where it has none


@dataclass(frozen=True)
class Entry:
    """One key: what it is for, where its secret is, and its public half."""

    name: str
    duty: str
    uri: str
    public: Key


@dataclass(frozen=True)
class Keyring:
    """The keys of the fleet in `folder`."""

    folder: Path
    fleet: str
    online_days: int
    entries: Mapping[str, Entry]

    def entry(self, name: str) -> Entry:
        """The key of that name; ConfigError with the nearest one."""
        if name not in self.entries:
            raise ConfigError(f"{self.folder / FILE}: no key is named {name!r}{suggest(name, self.entries)}")
        return self.entries[name]

    def named(self, keyid: str) -> str:
        """What a key is called; the start of its id where nobody named it."""
        return next((e.name for e in self.entries.values() if e.public.keyid == keyid), keyid[:12])

    def next_name(self, duty: str) -> str:
        """A name that no key of this duty has had."""
        numbers = [int(name.rpartition("-")[2]) for name, e in self.entries.items() if e.duty == duty]
        return f"{duty}-{max(numbers, default=0) + 1}"

    def file(self, name: str) -> Path | None:
        """The file that holds the secret; None for a key behind another signer."""
        scheme, _, rest = self.entry(name).uri.partition(":")
        return self.folder / rest if scheme == OURS else None

    def is_here(self, name: str) -> bool:
        """Whether the secret can be reached as far as can be seen: its file is there, or it has no file."""
        file = self.file(name)
        return file is None or file.is_file()

    def signer(self, name: str, ask: Ask) -> Signer:
        """The signer of a key. Raises ConfigError or VerifyError, whatever its library says."""
        entry, file = self.entry(name), self.file(name)
        if file is not None:
            keyfiles.check_private(file)
            return keyfiles.read_key(file, ask(name), entry.public)
        try:
            return Signer.from_priv_key_uri(entry.uri, entry.public, lambda what: ask(name))
        except (ConfigError, VerifyError):
            raise
        except Exception as error:  # signers raise what their libraries do
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"key {name} ({entry.uri.partition(':')[0]}): {reason}; mend that") from None

    def with_entry(self, entry: Entry) -> Keyring:
        """The same with one more key."""
        return Keyring(self.folder, self.fleet, self.online_days, {**self.entries, entry.name: entry})

    def save(self) -> None:
        """Write `keys.json`."""
        keys = {
            entry.name: {"duty": entry.duty, "uri": entry.uri, "keyid": entry.public.keyid}
            | {"public": entry.public.to_dict()}
            for entry in self.entries.values()
        }
        table = {"schema": SCHEMA, "fleet": self.fleet, "online_days": self.online_days, "keys": keys}
        write_atomically(self.folder / FILE, (json.dumps(table, indent=1) + "\n").encode())


def load_keyring(folder: Path) -> Keyring:
    """The keyring of a fleet's folder. ConfigError where there is none, ArtifactError where it is damaged."""
    path = folder / FILE
    try:
        table = json.loads(path.read_bytes())
        known = table["schema"] == SCHEMA
        entries = {name: _entry(name, each) for name, each in table["keys"].items()}
        ring = Keyring(folder, str(table["fleet"]), int(table["online_days"]), entries)
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no fleet is here; begin one with keys.init, or name --fleet") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{path}: damaged; bring it back from a backup") from None
    if not known:
        raise ArtifactError(f"{path}: of schema {table['schema']!r}; this edgekd reads {SCHEMA}")
    return ring


def _entry(name: str, table: Mapping[str, Any]) -> Entry:
    if table["duty"] not in DUTIES:
        raise ValueError(name)
    return Entry(name, table["duty"], str(table["uri"]), Key.from_dict(table["keyid"], dict(table["public"])))


def key_of_pem(path: Path) -> Key:
    """The public key in a PEM file, for a secret behind a signer URI. Raises ConfigError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: no public key in PEM that TUF knows (Ed25519, ECDSA, RSA)") from None
