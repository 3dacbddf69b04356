"""One signed repository in a folder that any static host can serve: edit, sign, check, publish; python-tuf.

Edits are kept apart (`pending`) until enough keys have signed them. `publish` writes them under a lock, in
the order in which a client may meet them, timestamp last: a cut at any byte leaves the old repository whole,
and publishing again finishes. Old roots stay, because a device that was away walks through each of them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer
from tuf.repository import Repository

from edgekd.errors import ArtifactError, RolloutError, VerifyError
from edgekd.fleet.formats import SIGNED_AT
from edgekd.store import disk_error, sync_directory, write_atomically

TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
NEW: dict[str, Any] = {"root": Root, "timestamp": Timestamp, "snapshot": Snapshot}
COMPACT = JSONSerializer(compact=True, validate=True)

Signable = Metadata[Any]


@dataclass(frozen=True)
class Lack:
    """A pending role that too few keys have signed: how many of its keys have, how many must."""

    role: str
    have: int
    need: int


class StaticRepository(Repository):
    """One repository. `folder` holds its metadata; `now` is the time of signing; `days`: of life,
    by role. A role that `days` lacks (a delegated one) lives as long as `targets`.
    """

    def __init__(self, folder: Path, *, now: datetime, days: Mapping[str, int]) -> None:
        self.folder, self.now, self.days = folder, now.replace(microsecond=0), days
        self.pending: dict[str, Signable] = {}

    # -- what tuf.repository.Repository asks for

    def open(self, role: str) -> Signable:
        """The role's metadata as it will be: pending, else published, else new."""
        if role in self.pending:
            return deepcopy(self.pending[role])
        version = self.version(role)
        return self.read(role, version) if version else Metadata(NEW.get(role, Targets)())

    def close(self, role: str, md: Signable) -> None:
        """Keep an edit as pending: next version, fresh expiry, signatures gone."""
        md.signed.version = self.version(role) + 1
        md.signed.expires = self.now + timedelta(days=self.days.get(role, self.days["targets"]))
        md.signed.unrecognized_fields[SIGNED_AT] = int(self.now.timestamp())
        md.signatures.clear()
        self.pending[role] = md

    @property
    def targets_infos(self) -> dict[str, MetaFile]:
        """Versions of every targets role, for the snapshot."""
        roles = ["targets", *self.delegated()]
        return {f"{role}.json": MetaFile(self.open(role).signed.version) for role in roles}

    @property
    def snapshot_info(self) -> MetaFile:
        """The snapshot's version, for the timestamp."""
        return MetaFile(self.open("snapshot").signed.version)

    # -- reading

    def version(self, role: str) -> int:
        """The newest published version of a role; 0 where there is none."""
        if role == "timestamp":
            return int(self.read(role, 1).signed.version) if (self.folder / "timestamp.json").is_file() else 0
        if role in ("snapshot", "targets") or role not in TOP_LEVEL:
            return self._named_version(role)
        versions = [int(path.name.split(".")[0]) for path in self.folder.glob(f"[0-9]*.{role}.json")]
        return max(versions, default=0)

    def _named_version(self, role: str) -> int:
        """What timestamp and snapshot say: a file that a cut publish left behind does not count."""
        if not self.version("timestamp"):
            return 0
        snapshot = cast(Timestamp, self.read("timestamp", 1).signed).snapshot_meta.version
        if role == "snapshot":
            return int(snapshot)
        meta = cast(Snapshot, self.read("snapshot", snapshot).signed).meta.get(f"{role}.json")
        return int(meta.version) if meta else 0

    def read(self, role: str, version: int) -> Signable:
        """Published metadata. Raises ArtifactError where the file is missing or damaged."""
        path = self.folder / file_name(role, version)
        try:
            return Metadata.from_bytes(path.read_bytes())
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be read ({error.strerror}); bring the folder back from the host or a backup"
            ) from None
        except DeserializationError:
            raise ArtifactError(f"{path}: damaged; bring the folder back from the host or a backup") from None

    def delegated(self) -> list[str]:
        """Names of the roles that `targets` delegates to."""
        delegations = self.targets().delegations
        return list(delegations.roles or {}) if delegations else []

    # -- signing

    def touch(self, role: str) -> None:
        """A new version of a role as it is: for a fresh expiry, or other signatures."""
        self.close(role, self.open(role))

    def refresh(self) -> None:
        """Make snapshot and timestamp follow the pending roles."""
        self.do_snapshot(force="snapshot" in self.pending)
        self.do_timestamp(force=True)

    def sign(self, signers: Iterable[Signer]) -> list[tuple[str, str]]:
        """Add to each pending role the signatures that its keys may give; (role, keyid) of those added."""
        added = []
        for signer in signers:
            keyid = signer.public_key.keyid
            for role in self.pending:
                if self.may_sign(role, keyid):
                    _sign(self.pending[role], signer)
                    added.append((role, keyid))
        return added

    def may_sign(self, role: str, keyid: str) -> bool:
        """Whether a key is one of the pending role's and has not signed it."""
        return keyid in self._keyids(role) and keyid not in self.pending[role].signatures

    def lacking(self) -> list[Lack]:
        """The pending roles that too few keys have signed, root by its old and its new keys."""
        found = []
        for role, md in self.pending.items():
            for delegator in self._delegators(role):
                result = delegator.get_verification_result(role, md.signed_bytes, md.signatures)
                if not result:
                    found.append(Lack(role, len(result.signed), result.threshold))
        return found

    def _delegators(self, role: str) -> list[Any]:
        if role not in TOP_LEVEL:
            return [self.targets()]
        published = self.version("root")
        if role == "root" and published:
            return [self.read("root", published).signed, self.root()]
        return [self.root()]

    def _keyids(self, role: str) -> set[str]:
        found: set[str] = set()
        for delegator in self._delegators(role):
            found |= set(delegator.get_delegated_role(role).keyids)
        return found

    # -- between two signers

    def save(self, folder: Path) -> None:
        """Keep what is pending in a folder, for the next signer; an empty one where nothing is."""
        folder.mkdir(parents=True, exist_ok=True)
        for role, md in self.pending.items():
            write_atomically(folder / f"{role}.json", md.to_bytes(COMPACT))
        for path in folder.glob("*.json"):
            if path.stem not in self.pending:
                path.unlink()

    def load(self, folder: Path) -> None:
        """Take up what `save` kept. Raises ArtifactError for a damaged file."""
        for path in sorted(folder.glob("*.json")):
            try:
                self.pending[path.stem] = Metadata.from_bytes(path.read_bytes())
            except DeserializationError:
                raise ArtifactError(f"{path}: damaged; remove its folder and propose anew") from None

    # -- publishing

    def publish(self) -> list[str]:
        """Write the pending roles, whole or not at all for a client; the names of the files written.

        Raises VerifyError where signatures lack, RolloutError where another operator has published since the
        edit began or is publishing now, BudgetError for a full disk.
        """
        lacking = self.lacking()
        if lacking:
            each = ", ".join(f"{lack.role} has {lack.have} of {lack.need}" for lack in lacking)
            raise VerifyError(f"too few signatures: {each}; sign with further keys, then publish again")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder):
                self._refuse_others()
                return self.write()
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def _refuse_others(self) -> None:
        for role, md in self.pending.items():
            if md.signed.version != self.version(role) + 1 and not self._is_there(role, md):
                raise RolloutError(
                    f"{self.folder}: another operator has published {role} version {self.version(role)} "
                    f"meanwhile; bring the folder up to date and do this again"
                )

    def write(self) -> list[str]:
        """What `publish` does behind its checks: no device believes what lies there without signatures."""
        written = []
        for role in sorted(self.pending, key=_order):
            md = self.pending[role]
            name = file_name(role, md.signed.version)
            write_atomically(self.folder / name, md.to_bytes(COMPACT))
            sync_directory(self.folder)
            written.append(name)
        self.pending.clear()
        return written

    def _is_there(self, role: str, md: Signable) -> bool:
        """Whether a publish that was cut has written this very file already."""
        path = self.folder / file_name(role, md.signed.version)
        return path.is_file() and path.read_bytes() == md.to_bytes(COMPACT)


def file_name(role: str, version: int) -> str:
    """Where a role's metadata lies: `VERSION.ROLE.json`, the timestamp without its version."""
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def _sign(md: Signable, signer: Signer) -> None:
    try:
        md.sign(signer, append=True)
    except UnsignedMetadataError as error:
        cause = error.__cause__ or error
        reason = str(cause) or type(cause).__name__
        raise VerifyError(f"key {signer.public_key.keyid[:12]} did not sign: {reason}; mend that") from None


def verify_folder(repository: StaticRepository) -> None:
    """Walk a published repository as a client does; VerifyError names what does not verify."""
    try:
        root = repository.read("root", 1).signed
        for version in range(1, repository.version("root") + 1):
            md = repository.read("root", version)
            root.verify_delegate("root", md.signed_bytes, md.signatures)
            root = md.signed
            root.verify_delegate("root", md.signed_bytes, md.signatures)
        for role in ("timestamp", "snapshot", "targets", *repository.delegated()):
            md = repository.read(role, repository.version(role))
            delegator = root if role in TOP_LEVEL else repository.targets()
            delegator.verify_delegate(role, md.signed_bytes, md.signatures)
    except (UnsignedMetadataError, RepositoryError) as error:
        raise VerifyError(f"{repository.folder}: {error}; bring the folder back from a backup") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the repository's lock; RolloutError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)  # the folder itself: nothing is left for the host to serve
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RolloutError(f"{folder}: another operator publishes there now; wait and try again") from None
    finally:
        os.close(descriptor)


def _order(role: str) -> int:
    """A client may meet any file as soon as it is there, so what is named comes before what names it."""
    return {"root": 0, "targets": 2, "snapshot": 3, "timestamp": 4}.get(role, 1)
