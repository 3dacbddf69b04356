"""Secret keys in files, and on paper. Ed25519; the library `cryptography` makes, encrypts and reads them.

A key file has OpenSSH's format (AES-256, bcrypt): PKCS#8 as `cryptography` writes it spends 2,048 rounds on a
passphrase, bcrypt a second. PKCS#8 files made elsewhere are read, too. Nothing here prints or logs a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from edgekd.errors import ArtifactError, ConfigError, VerifyError
from edgekd.store import disk_error, sync_directory

SHORTEST_PASSPHRASE = 12
ROUNDS = 64  # of bcrypt: about a second
PAPER_LINES, LINE_BYTES, CHECK_BYTES = 4, 8, 2


def generate() -> CryptoSigner:
    """A new Ed25519 key."""
    return CryptoSigner.generate_ed25519()


def check_passphrase(passphrase: str, name: str) -> None:
    """Raise ConfigError for one that is too short to protect a key."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(
            f"the passphrase of key {name} has {len(passphrase)} characters; it needs {SHORTEST_PASSPHRASE}"
        )


def write_key(path: Path, signer: CryptoSigner, passphrase: str, rounds: int = ROUNDS) -> None:
    """Write the encrypted secret, mode 0600, into a folder of mode 0700; never over another file."""
    from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

    check_passphrase(passphrase, path.stem)
    encryption = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(rounds).build(passphrase.encode())
    text = _secret(signer).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path}: a key is there already, and none is ever written over") from None
    except OSError as error:
        path.unlink(missing_ok=True)
        raise disk_error(error, path.parent) from error


def read_key(path: Path, passphrase: str, public: Key) -> CryptoSigner:
    """The signer whose secret is in `path`, once it is held to its public key.

    Raises ConfigError for a file that is absent, open to others, no key, or of another passphrase,
    VerifyError for another key's.
    """
    check_private(path)
    try:
        secret = _load(path.read_bytes(), passphrase.encode())
    except (ValueError, TypeError, binascii.Error):
        raise ConfigError(f"{path}: wrong passphrase, or damaged; type it again") from None
    if not isinstance(public, SSlibKey):
        raise ConfigError(f"{path}: key {public.keyid[:12]} is none that a file holds; name its signer URI")
    try:
        return CryptoSigner(secret, public)
    except (KeyMismatchError, ValueError):
        raise VerifyError(f"{path}: another key's secret; bring that of key {public.keyid[:12]}") from None


def check_private(path: Path) -> None:
    """Raise ConfigError where a key file is absent, or others than its owner may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: the key cannot be read ({error.strerror}); bring its file, or recover it from paper"
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"{path}: others may read it (mode {mode:03o}); chmod 600 it, and rotate the key if they did"
        )


def _load(text: bytes, passphrase: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of key types that are none of ours
        if b"OPENSSH PRIVATE KEY" in text:
            return serialization.load_ssh_private_key(text, passphrase)
        return serialization.load_pem_private_key(text, passphrase)


def _secret(signer: CryptoSigner) -> Any:
    """The key object of `cryptography` in a signer that was made here."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(signer.private_bytes, None)


# ---- paper ----------------------------------------------------------------------------------------------


def paper(signer: CryptoSigner, name: str, fleet: str) -> str:
    """The secret as a sheet of text to be printed: four lines of 16 letters, each with its own check.

    A line holds 8 bytes of the Ed25519 seed and 2 of SHA-256(line number, key id, those bytes), in base 32.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    seed = _secret(signer).private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    keyid = signer.public_key.keyid
    lines = []
    for number in range(PAPER_LINES):
        part = seed[number * LINE_BYTES : (number + 1) * LINE_BYTES]
        letters = base64.b32encode(part + _check(number, keyid, part)).decode()
        lines.append(f"  {number + 1}:  {' '.join(letters[i : i + 4] for i in range(0, 16, 4))}")
    return (
        f"edgekd paper backup of key {name}, fleet {fleet}\n"
        f"  key id {keyid}\n\n" + "\n".join(lines) + "\n\n"
        "  Not encrypted: who reads this sheet has the key. Print it, seal it, keep it apart from the\n"
        f"  others, and delete the file. Back to a key file: edgekd keys.recover {name} --paper FILE\n"
    )


def from_paper(text: str, public: Key, where: str) -> CryptoSigner:
    """The signer that a sheet holds, typed or scanned; case, blanks and other lines do not matter.

    Raises ArtifactError naming the line that was mistyped, VerifyError for a sheet of another key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    found = dict(re.findall(r"^\s*([1-4]):\s*([A-Za-z0-9 ]+)\s*$", text, re.MULTILINE))
    seed = b"".join(_line(found, number, public.keyid, where) for number in range(PAPER_LINES))
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    if not isinstance(public, SSlibKey):
        raise VerifyError(f"{where}: key {public.keyid[:12]} is none that lies on paper")
    try:
        return CryptoSigner(secret, public)
    except (KeyMismatchError, ValueError):
        raise VerifyError(f"{where}: not the sheet of key {public.keyid[:12]}; take the right one") from None


def _line(found: dict[str, str], number: int, keyid: str, where: str) -> bytes:
    letters = found.get(str(number + 1), "").replace(" ", "").upper()
    try:
        data = base64.b32decode(letters, map01="I")
    except binascii.Error:
        data = b""
    part, check = data[:LINE_BYTES], data[LINE_BYTES:]
    if len(data) != LINE_BYTES + CHECK_BYTES or check != _check(number, keyid, part):
        raise ArtifactError(
            f"{where}: line {number + 1} is mistyped, missing, or of another key's sheet; compare it again"
        )
    return part


def _check(number: int, keyid: str, part: bytes) -> bytes:
    return hashlib.sha256(bytes([number]) + keyid.encode() + part).digest()[:CHECK_BYTES]
