"""The command `serve`: load the current release, hold it to its golden answers, answer until it changes.

Started by systemd with its sockets (`--service`), or by hand with --socket PATH or --port N. It ends when
`current` names another release: whoever started it starts it again, and the sockets keep what came meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import write_whole
from .messages import AgentError
from .model import load_current
from .selection import SELECTED
from .server import Desk, Server

FIRST_FD = 3  # systemd's: sd_listen_fds(3)
LOOK_S = 0.5
PROBE_S = 5.0
FINISH_S = 5.0  # requests under way may take so long when the service ends


def inherited() -> list[socket.socket]:
    """The listening sockets that systemd handed over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=number) for number in range(FIRST_FD, FIRST_FD + count)]


@contextlib.contextmanager
def own_sockets(path: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets of our own: `path`, and `port` of loopback where it is not 0; the path goes at the end."""
    found = []
    if path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        os.chmod(path, 0o666)
        found.append(listener)
    if port:
        found.append(socket.create_server(("127.0.0.1", port), backlog=128))
    if not found:
        raise AgentError("config", "serve needs --socket PATH or --port N where systemd gives it no socket")
    for listener in found:
        listener.listen(128)
    yield found
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path or "/nonexistent")


def tell_systemd(text: str) -> None:
    """sd_notify(3); nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address[0] == "@" else address)
            channel.send(text.encode())


class Diary:
    """What the service keeps over its own end: how often it started, and why it last did not."""

    def __init__(self) -> None:
        folder = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        self._path = Path(folder, "service.json") if folder else None
        self.table: dict[str, Any] = {"starts": 0, "last_failure": None}
        if self._path and self._path.is_file():
            with contextlib.suppress(ValueError, OSError):
                self.table |= json.loads(self._path.read_text(encoding="utf-8"))

    def write(self, **changes: Any) -> None:
        """Keep changes; a state that cannot be written is no reason not to serve."""
        self.table |= changes
        if self._path:
            with contextlib.suppress(OSError):
                write_whole(self._path, json.dumps(self.table) + "\n")


def serve(arguments: argparse.Namespace) -> None:
    """Serve until the release changes, a signal comes, or the model no longer answers as it did."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *told: stop.set())
    diary, root = Diary(), Path(arguments.root)
    try:
        model = load_current(arguments)
        desk = Desk(model)
    except Exception as error:
        text = str(error.args[1]) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"
        diary.write(last_failure={"when": int(time.time()), "why": text})
        raise
    diary.write(starts=diary.table["starts"] + 1)
    model.facts |= diary.table
    given = inherited()
    with (
        contextlib.nullcontext(given) if given else own_sockets(arguments.socket, arguments.port) as listeners
    ):
        servers = [Server(listener, desk) for listener in listeners]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        tell_systemd("READY=1")
        print(f"serving {model.facts['release']} ({model.facts['variant']})", file=sys.stderr, flush=True)
        why = watch(root, desk, stop)
        tell_systemd("STOPPING=1")
        for server in servers:
            server.shutdown()
        wait_for_idle(desk)
    print(f"ended: {why}", file=sys.stderr, flush=True)


def watch(root: Path, desk: Desk, stop: threading.Event) -> str:
    """Wait for a reason to end; systemd's watchdog is fed only while the model answers as it did."""
    probed_s, choice = time.monotonic(), chosen_at(root)
    while not stop.wait(LOOK_S):
        if os.path.basename(os.readlink(root / "current")) != desk.model.facts["release"]:
            return "the current release is another"
        if chosen_at(root) != choice:
            return "another variant was chosen"
        if time.monotonic() - probed_s >= PROBE_S:
            probed_s = time.monotonic()
            if not desk.is_well():
                raise AgentError("failed", "the model no longer answers as it did at the start")
            tell_systemd("WATCHDOG=1")
    return "a signal"


def chosen_at(root: Path) -> int:
    """When the current release's variant was chosen; 0 for never."""
    path = root / "current" / SELECTED
    return path.stat().st_mtime_ns if path.is_file() else 0


def wait_for_idle(desk: Desk) -> None:
    """Let the inference that runs come to its end."""
    end_s = time.monotonic() + FINISH_S
    while desk.at_work and time.monotonic() < end_s:
        time.sleep(0.01)
