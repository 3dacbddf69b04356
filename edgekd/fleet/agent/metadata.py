"""The verified metadata of one repository, by python-tuf; kept on the agent's disk, whole files only.

`Repository.refresh` runs python-tuf's workflow in a scratch folder that begins with what was verified before;
`keep` then takes over what it verified, durably. python-tuf persists nothing that it has not verified, so a
refresh that was refused halfway is kept as far as it came, as the specification wants. Refusals have the
reasons of refusals.py.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from edgekd.fleet.agent import durable
from edgekd.fleet.agent.disk import Disk
from edgekd.fleet.agent.fetchers import Fetcher
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.formats import SIGNED_AT

TOP_LEVEL = ("timestamp", "snapshot", "targets")
HISTORY = "root_history"


class Repository:
    """One of the two repositories. folder: where on `disk` its verified metadata lies; bootstrap: the root
    that the device was provisioned with; metadata_url: what TUF calls the base URL; now_s: the time to
    check with.
    """

    def __init__(
        self, disk: Disk, folder: str, bootstrap: bytes, metadata_url: str, fetcher: Fetcher, now_s: int
    ) -> None:
        self._disk, self._folder, self._url, self._fetcher = disk, folder, metadata_url, fetcher
        self._scratch = tempfile.TemporaryDirectory(prefix="edgekd-agent-")
        self.path = Path(self._scratch.name)
        self._load()
        with refusals(metadata_url):
            self._updater = Updater(str(self.path), metadata_url, fetcher=fetcher, bootstrap=bootstrap)
        _set_time(self._updater, now_s)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def is_unchanged(self) -> bool:
        """Whether the host's timestamp is, byte for byte, the one that was verified: one request."""
        known = self.kept("timestamp")
        with refusals(self._url):
            url = f"{self._url.rstrip('/')}/timestamp.json"
            return known is not None and self._fetcher.download_bytes(url, 16384) == known

    def refresh(self) -> None:
        """Bring the top-level metadata up to date. Raises Refused."""
        with refusals(self._url):
            self._updater.refresh()

    def target(self, path: str) -> TargetFile | None:
        """What is signed under a name; None for nothing. Delegated metadata is fetched as it is needed."""
        with refusals(self._url):
            return self._updater.get_targetinfo(path)

    def signed(self, role: str) -> dict[str, Any]:
        """The signed part of a role that was verified (or kept from before); empty without one."""
        data = self.kept(role)
        return {} if data is None else dict(json.loads(data)["signed"])

    def times(self) -> dict[str, tuple[int, int]]:
        """Top-level role but root -> when it expires and when it was signed, Unix seconds; 0: not said."""
        found = {}
        for role in TOP_LEVEL:
            if signed := self.signed(role):
                expires = datetime.strptime(signed["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
                found[role] = int(expires.timestamp()), signed_at(signed)
        return found

    def keep(self, *, roots_only: bool = False) -> None:
        """Take what was verified over to the disk: roots first, then in the order of TUF's workflow."""
        durable.make_directory(self._disk, self._folder)
        durable.make_directory(self._disk, f"{self._folder}/{HISTORY}")
        history = sorted((self.path / HISTORY).iterdir(), key=lambda path: int(path.name.split(".")[0]))
        named = [(f"{HISTORY}/{path.name}", path) for path in history] + [
            ("root.json", self.path / "root.json")
        ]
        if not roots_only:
            rest = sorted(self.path.glob("*.json"), key=lambda path: (_order(path.name), path.name))
            named += [(path.name, path) for path in rest if path.name != "root.json"]
        for name, path in named:
            self._keep_file(f"{self._folder}/{name}", path.read_bytes())

    def _keep_file(self, place: str, data: bytes) -> None:
        if self._disk.kind(place) != "file" or self._disk.read(place) != data:
            durable.write_whole(self._disk, place, data)

    def _load(self) -> None:
        """Copy what was kept into the scratch folder; what is no whole file there is as good as absent."""
        (self.path / HISTORY).mkdir()
        for folder in ("", f"/{HISTORY}"):
            inside = self._folder + folder
            for name in self._disk.names(inside) if self._disk.kind(inside) == "dir" else ():
                if name.endswith(".json") and self._disk.kind(f"{inside}/{name}") == "file":
                    (self.path / folder.lstrip("/") / name).write_bytes(self._disk.read(f"{inside}/{name}"))

    def kept(self, role: str) -> bytes | None:
        """The bytes of a role that was verified; None without one."""
        path = self.path / f"{urllib.parse.quote(role, '')}.json"
        return path.read_bytes() if path.is_file() else None


def signed_at(signed: dict[str, Any]) -> int:
    """When a signed part says it was signed, Unix seconds; 0 where it does not say, or says nonsense."""
    at = signed.get(SIGNED_AT, 0)
    return at if type(at) is int and at > 0 else 0


def _order(name: str) -> int:
    known = [f"{role}.json" for role in TOP_LEVEL]
    return known.index(name) if name in known else len(known)


def _set_time(updater: Updater, now_s: int) -> None:
    """Let python-tuf check expiry with our time; it has no public way to be told."""
    trusted = updater._trusted_set
    if not isinstance(trusted.reference_time, datetime):
        raise Refused("not-set-up", "this python-tuf keeps its time elsewhere; install tuf 7.x on the device")
    trusted.reference_time = datetime.fromtimestamp(now_s, UTC)


# What python-tuf says -> our reason, the first that fits. It has no finer types than these words.
REASON_OF: tuple[tuple[type[Exception], str, str], ...] = (
    (tuf_errors.UnsignedMetadataError, "", "bad-signature"),
    (tuf_errors.ExpiredMetadataError, "", "expired"),
    (tuf_errors.BadVersionNumberError, "New ", "rolled-back"),
    (tuf_errors.BadVersionNumberError, ".json version", "rolled-back"),
    (tuf_errors.BadVersionNumberError, "", "mix-and-match"),
    (tuf_errors.LengthOrHashMismatchError, "", "mix-and-match"),
    (tuf_errors.RepositoryError, "missing info", "rolled-back"),
    (tuf_errors.RepositoryError, "", "malformed"),
    (tuf_errors.DownloadLengthMismatchError, "", "too-long"),
    (tuf_errors.SlowRetrievalError, "", "too-slow"),
    (tuf_errors.DownloadHTTPError, "", "not-found"),
    (tuf_errors.DownloadError, "", "unreachable"),
    (OSError, "", "disk-error"),
    (ValueError, "", "malformed"),
)


def reason_of(error: Exception) -> str:
    """Our reason for what python-tuf or the disk raised."""
    for kind, words, reason in REASON_OF:
        if isinstance(error, kind) and words in str(error):
            if isinstance(error, tuf_errors.DownloadHTTPError) and error.status_code >= 500:
                return "unreachable"
            if isinstance(error, OSError) and error.errno in durable.FULL:
                return "disk-full"
            return reason
    raise error


@contextlib.contextmanager
def refusals(where: str) -> Iterator[None]:
    """Turn what python-tuf, the link and the disk raise into Refused."""
    try:
        yield
    except Refused:
        raise
    except (tuf_errors.RepositoryError, tuf_errors.DownloadError, OSError, ValueError, KeyError) as error:
        found = ValueError(f"{error!r}") if isinstance(error, KeyError) else error
        text = (str(found).splitlines() or [type(found).__name__])[0][:200]
        raise Refused(reason_of(found), f"{where}: {text}") from error
