"""A static HTTP host with a knob for each way in which a network or an attacker misbehaves; and a device."""

from __future__ import annotations

import http.server
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.fleet.agent import config, machine, slots
from edgekd.fleet.agent.clock import Now
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.disk import RealDisk
from edgekd.fleet.agent.fetchers import HttpFetcher, Patience
from edgekd.fleet.agent.visit import Found, Hands, Visit
from tests.fleet.made import HARDWARE, MODEL, Fleet

IN_MEMORY = Path("/dev/shm")  # the agent syncs every file: on a slow disk that is most of a test's time
IMPATIENT = Patience(gap_s=1.0, grace_s=0.3, least_rate=2000.0, file_s=2.0)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where the system has one; other users may read it."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a folder as its server's knobs say."""

    server: Host
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        self.server.requests.append(path)
        if self.server.everything is not None:
            return self._answer(200, self.server.everything)
        file = self.server.folder / path
        if ".." in path.split("/") or not file.is_file():
            return self._answer(404, b"")
        data = self.server.change(path, file.read_bytes())
        offset = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if offset and self.server.ranges:
            return self._answer(206, data[offset:])
        self._answer(200, data)

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(1 << 40 if self.server.endless else len(data)))
        self.end_headers()
        try:
            self._send(data)
        except OSError:
            self.close_connection = True

    def _send(self, data: bytes) -> None:
        if self.server.cut_after is not None and len(data) > self.server.cut_after:
            self.wfile.write(data[: self.server.cut_after])
            self.close_connection = True
        elif self.server.drip_s:
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.drip_s)
        else:
            self.wfile.write(data)
            while self.server.endless:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Host(http.server.ThreadingHTTPServer):
    """The host. everything: the one answer to all (a captive portal); change: what becomes of a file's bytes;
    cut_after, drip_s, endless: how an answer goes on; requests: the paths asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.requests = folder, []  # type: ignore[var-annotated]
        self.everything: bytes | None = None
        self.change: Callable[[str, bytes], bytes] = lambda path, data: data
        self.cut_after: int | None = None
        self.drip_s, self.endless, self.ranges = 0.0, False, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[Host]:
    """A host that is closed at the end."""
    host = Host(folder)
    thread = threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.shutdown()
        host.server_close()


@dataclass
class FixedClock:
    """A clock that says what it is told: beside the system's by `ahead_s`."""

    ahead_s: int = 0
    is_set: bool = True

    def now(self) -> Now:
        return Now(int(time.time()) + self.ahead_s, self.is_set)


@dataclass
class TestDevice:
    """An enrolled device: its directory, and a trial that says what `verdict` says."""

    __test__ = False
    root: Path
    fleet: Fleet
    id: str = "pi-1"
    hardware: str = HARDWARE
    clock: FixedClock = field(default_factory=FixedClock)
    verdict: machine.Event = field(default_factory=machine.TrialPassed)
    trials: list[str] = field(default_factory=list)
    restarts: int = 0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        (self.root / "roots").mkdir(parents=True)
        for name, data in zip(("releases", "rollout"), self.fleet.roots, strict=True):
            (self.root / "roots" / f"{name}.json").write_bytes(data)
        made = Config(self.id, self.hardware, (MODEL,), clock="system")
        (self.root / config.FILE).write_text(config.dump(made))

    def visit(self, url: str) -> Found:
        """One visit over HTTP."""
        hands = Hands(self.clock, lambda model: self._trial, self._restart)
        return Visit(self.root, config.read(self.root), hands).run(HttpFetcher(self.patience), url)

    def refused(self, url: str) -> str:
        """The reason of the visit's refusal, "" for none; what serves must be whole."""
        before = self.running
        found = self.visit(url)
        if found.refused is not None:
            assert self.running == before and (before is None or slots.is_whole(self.disk, before))
        return found.refused.reason if found.refused else ""

    def _trial(self, sha256: str, against: str | None) -> machine.Event:
        self.trials.append(sha256)
        return self.verdict

    def _restart(self, model: str) -> None:
        self.restarts += 1

    @property
    def disk(self) -> RealDisk:
        return RealDisk(self.root / "models" / MODEL)

    @property
    def running(self) -> str | None:
        """The hash that `current` names."""
        return slots.current(self.disk) if (self.root / "models" / MODEL).is_dir() else None

    @property
    def release(self) -> int | None:
        """The release number that it runs."""
        return slots.release_of(self.disk, self.running) if self.running else None
