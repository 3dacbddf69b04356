"""Where signed files come from: a static HTTP host, or the same folder on a stick or sent over SSH.

Both are fetchers of python-tuf. HTTP is the standard library's, with what TUF leaves to the client: a
deadline for every file, a least rate, and no more bytes than were signed. TLS is used where the URL says
so; nothing here relies on it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

CHUNK_BYTES = 1 << 16
MOST_REDIRECTS = 3
USER_AGENT = "edgekd-agent/1"
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Patience:
    """How long to wait. gap_s: for the next byte; grace_s: before the rate counts; least_rate: bytes a second
    on the average, since the request; file_s: a whole file, whatever its rate."""

    gap_s: float = 15.0
    grace_s: float = 10.0
    least_rate: float = 1024.0
    file_s: float = 3600.0


class HttpFetcher(FetcherInterface):
    """Files below http:// and https:// URLs."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self.received_bytes = 0  # of bodies
        self.requests = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.begin(url, 0)[1]

    def begin(self, url: str, offset: int) -> tuple[bool, Iterator[bytes]]:
        """Whether the answer begins at `offset`, and its pieces. DownloadHTTPError for a status of 400 and
        more, SlowRetrievalError, DownloadError."""
        answer = _Answer(self._patience)
        try:
            status = answer.open(url, offset)
            self.requests += answer.requests
        except BaseException:
            answer.close()
            raise
        return status == 206, self._pieces(answer)

    def _pieces(self, answer: _Answer) -> Iterator[bytes]:
        try:
            while piece := answer.read():
                self.received_bytes += len(piece)
                yield piece
        finally:
            answer.close()


class _Answer:
    """One request and its answer. A timer cuts the connection at the deadline, whatever waits inside."""

    def __init__(self, patience: Patience) -> None:
        self._patience, self._began_s, self.requests = patience, time.monotonic(), 0
        self._connection: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._received_bytes, self._late = 0, False
        self._timer: threading.Timer | None = None
        self._watch(patience.grace_s + patience.gap_s)  # for the head of the answer

    def open(self, url: str, offset: int) -> int:
        """Send the request and read the head of the answer; its status."""
        for _ in range(MOST_REDIRECTS + 1):
            with self._failures(url):
                answer = self._ask(url, offset)
                status, place = answer.status, answer.getheader("Location")
            if status not in REDIRECTS or not place:
                break
            url = urllib.parse.urljoin(url, place)
        if status == 416 and offset:
            status = self.open(url, 0)
        elif status >= 300:
            raise DownloadHTTPError(f"{url}: status {status}", status)
        self._url = url
        self._watch(self._patience.file_s)
        return status

    def _ask(self, url: str, offset: int) -> http.client.HTTPResponse:
        self._disconnect()
        parts = urllib.parse.urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            raise DownloadError(f"{url} is no http or https address")
        more = {"context": ssl.create_default_context()} if parts.scheme == "https" else {}
        self._connection = kinds[parts.scheme](
            parts.hostname, parts.port, timeout=self._patience.gap_s, **more
        )
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection.request("GET", path, headers=headers)
        self.requests += 1
        self._answer = self._connection.getresponse()
        return self._answer

    def read(self) -> bytes:
        """The next piece, b"" at the end."""
        with self._failures(self._url):
            if self._answer is None:
                raise DownloadError(f"{self._url} was not asked for")
            piece = self._answer.read1(CHUNK_BYTES)
            missing = self._answer.length
        if self._late:
            raise SlowRetrievalError(f"{self._url}: not whole at its deadline")
        self._received_bytes += len(piece)
        elapsed_s = time.monotonic() - self._began_s
        if elapsed_s > self._patience.grace_s and self._received_bytes < (
            self._patience.least_rate * (elapsed_s - self._patience.grace_s)
        ):
            raise SlowRetrievalError(f"{self._url}: {self._received_bytes} bytes in {elapsed_s:.0f} s")
        if not piece and missing:
            raise DownloadError(f"{self._url} breaks off")
        return piece

    def close(self) -> None:
        """Let go."""
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _watch(self, limit_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(limit_s, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        self._late = True
        sock = getattr(self._connection, "sock", None) or getattr(
            getattr(getattr(self._answer, "fp", None), "raw", None), "_sock", None
        )
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(2)

    @contextlib.contextmanager
    def _failures(self, url: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise SlowRetrievalError(f"{url}: nothing came for {self._patience.gap_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._late:
                raise SlowRetrievalError(f"{url}: not whole at its deadline") from None
            raise DownloadError(f"{url}: {error or type(error).__name__}") from None


class FolderFetcher(FetcherInterface):
    """Files below a folder; URLs are `folder:/` and a path in it. Links are not followed out of it."""

    BASE = "folder:/"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.received_bytes = self.requests = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.begin(url, 0)[1]

    def begin(self, url: str, offset: int) -> tuple[bool, Iterator[bytes]]:
        """As of HttpFetcher."""
        path = (self._folder / urllib.parse.unquote(url.removeprefix(self.BASE)).lstrip("/")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise DownloadHTTPError(f"{url}: there is no such file in {self._folder}", 404)
        self.requests += 1
        return offset > 0, self._pieces(path, offset)

    def _pieces(self, path: Path, offset: int) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as stream:
            stream.seek(offset, os.SEEK_SET)
            while piece := stream.read(CHUNK_BYTES):
                self.received_bytes += len(piece)
                yield piece


Fetcher = HttpFetcher | FolderFetcher
