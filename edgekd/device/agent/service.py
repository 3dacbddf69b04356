"""Making the current release a service, and holding a new release to what it answers there.

`service` writes the units and starts them: as root, or by a sudo that asks nothing. service.json in the
device's directory says which unit serves it. While that unit runs, each deploy waits until the new release
answers in it, and goes back where it does not.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .bench import find_bundle, selection_of
from .files import SCHEMA, write_whole
from .history import go_back, note
from .install import locked
from .messages import AUTO, MARK, AgentError, Ticker, emit
from .units import Served, service_unit, socket_unit

UNITS = Path("/etc/systemd/system")
ANSWER_S = 90.0  # a slow card loads a runtime within this
ASK_S = 2.0
ENDS = 3


def unit_name(root: Path) -> str:
    """`edgekd` for the directory edgekd, else edgekd-NAME."""
    slug = re.sub(r"[^a-zA-Z0-9_.-]+", "-", root.name).strip("-.") or "root"
    return "edgekd" if slug == "edgekd" else f"edgekd-{slug}"[:64]


def service(arguments: argparse.Namespace) -> None:
    """Install and start the units: request line in (owner, wait_s, port, memory_bytes), result out."""
    request, root = json.loads(sys.stdin.buffer.readline()), Path(arguments.root).resolve()
    if not Path("/run/systemd/system").is_dir():
        hand = f"{sys.executable} {root}/current/agent.pyz serve --root {root} --socket PATH"
        raise AgentError("runtime", f"systemd does not run here; start the server by other means: {hand}")
    if not (root / "current").is_symlink():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    with locked(root, request["owner"], request["wait_s"]):
        directory, bundle, release = find_bundle(arguments)
        served = Served(
            unit=unit_name(root),
            root=root,
            python=sys.executable,
            variant=arguments.variant,
            threads=arguments.threads,
            port=int(request["port"]),
            memory_bytes=int(request["memory_bytes"]),
        )
        open_up(root)
        command = write_units(served)
        prefix = root_prefix(command) if command else []
        if arguments.variant == AUTO:
            selection_of(directory, bundle, release, arguments)
        if command:
            as_root([*prefix, *command], served.unit)
        write_whole(root / "service.json", json.dumps(table_of(served)) + "\n")
        told = wait_for(root, served.unit, str(release))
        if command:
            note(root, "service installed", str(release), request["owner"], unit=served.unit)
        if told is None:
            raise AgentError(
                "unhealthy", f"{served.unit} does not answer ({why(served.unit)}); mend that first"
            )
        emit(
            "result",
            unit=served.unit,
            socket=served.socket,
            port=served.port,
            changed=bool(command),
            health=told,
        )


def table_of(served: Served) -> dict[str, Any]:
    """What service.json holds."""
    return {"schema": SCHEMA, "unit": served.unit, "socket": served.socket, "port": served.port}


def open_up(root: Path) -> None:
    """The service's user is another than the login's: let it read the releases."""
    for directory in (root, root / "releases", *(p for p in (root / "releases").rglob("*") if p.is_dir())):
        if directory.stat().st_mode & 0o055 != 0o055:
            os.chmod(directory, directory.stat().st_mode | 0o055)


def write_units(served: Served) -> list[str]:
    """The program that installs and starts the units; [] where they are there and run."""
    texts = {f"{served.unit}.socket": socket_unit(served), f"{served.unit}.service": service_unit(served)}
    changed = [
        n for n, t in texts.items() if not (UNITS / n).is_file() or (UNITS / n).read_text("utf-8") != t
    ]
    active = all(systemctl("is-active", "--quiet", name) == 0 for name in texts)
    if not changed and active:
        return []
    folder = served.root / "service"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, text)
    names = " ".join(texts)
    lines = [
        "set -e",
        *(f"install -m 644 '{folder / name}' {UNITS}/{name}" for name in texts),
        "systemctl daemon-reload",
        f"systemctl enable --quiet {names}",
        f"systemctl stop {names}",  # a socket that listens is not changed by a reload
        f"systemctl start {names}",
    ]
    write_whole(folder / "install.sh", "\n".join(lines) + "\n")
    return ["sh", str(folder / "install.sh")]


def root_prefix(command: list[str]) -> list[str]:
    """What makes a program run as root; AgentError `denied`, with the line to run by hand."""
    if os.getuid() == 0:
        return []
    if shutil.which("sudo") is None or run(["sudo", "-n", "true"]).returncode != 0:
        by_hand = "sudo " + " ".join(command)
        raise AgentError("denied", f"a service needs root, and sudo asks for a password; run {by_hand}")
    return ["sudo", "-n"]


def as_root(command: list[str], unit: str) -> None:
    """Run the program that starts the unit; AgentError `failed` with what it said."""
    done = run(command)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AgentError("failed", f"{unit} could not be started ({last}); {why(unit)}")


def systemctl(*words: str) -> int:
    """systemctl's exit status."""
    return run(["systemctl", *words]).returncode


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """A program with no input and an end."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_S, check=False
    )


def said(unit: str, lines: int) -> list[str]:
    """The service's last lines in systemd's journal; none where this login may not read it."""
    command = ["journalctl", "-u", f"{unit}.service", "-n", str(lines), "-o", "short-iso", "--no-pager", "-q"]
    for prefix in ([], ["sudo", "-n"]) if os.getuid() else ([],):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = run([*prefix, *command])
            if done.returncode == 0 and done.stdout.strip():
                return done.stdout.strip().splitlines()
    return []


def why(unit: str) -> str:
    """The last error that the service said, else how systemd saw it end."""
    for line in reversed(said(unit, 40)):
        if MARK in line:
            return str(json.loads(line.partition(MARK)[2].removesuffix("@@")).get("message"))
    told = run(["systemctl", "show", "-p", "Result,ExecMainStatus", f"{unit}.service"]).stdout.split()
    return f"{' '.join(told)}; see: journalctl -u {unit}"


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(root: Path, timeout_s: float = ASK_S) -> dict[str, Any] | None:
    """What the service says of its health; None where there is none, or it does not answer."""
    try:
        path = json.loads((root / "service.json").read_text(encoding="utf-8"))["socket"]
        connection = SocketConnection(path, timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            told = json.loads(connection.getresponse().read())
        return dict(told) if told.get("status") == "ok" else None
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None


def wait_for(root: Path, unit: str, release: str, limit_s: float = ANSWER_S) -> dict[str, Any] | None:
    """The health of the service once it serves `release`.

    None where it does not within `limit_s`, or ended more than ENDS times on the way (once is how it takes a
    new release).
    """
    end_s, say, first = time.monotonic() + limit_s, Ticker("service starts", round(limit_s)), restarts(unit)
    while (left_s := end_s - time.monotonic()) > 0:
        say(round(limit_s - left_s))
        told = ask(root, min(left_s, ASK_S))
        if told and told["release"] == release:
            return told
        if restarts(unit) - first > ENDS:
            return None
        time.sleep(0.1)
    return None


def restarts(unit: str) -> int:
    """How often systemd started the service again since it was started by hand."""
    told = run(["systemctl", "show", "-p", "NRestarts", "--value", f"{unit}.service"]).stdout.strip()
    return int(told) if told.isdecimal() else 0


def served_by(root: Path) -> str | None:
    """The unit that serves this directory and runs; None where there is none."""
    try:
        unit = str(json.loads((root / "service.json").read_text(encoding="utf-8"))["unit"])
        return unit if systemctl("is-active", "--quiet", f"{unit}.socket") == 0 else None
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return None


def settle(root: Path, release: str, owner: str) -> dict[str, Any] | None:
    """Wait until the service serves `release`, which is current; its health, None without a service.

    Where it does not come, the release before is made current again; raises AgentError `unhealthy`.
    """
    unit = served_by(root)
    if unit is None:
        return None
    open_up(root)
    told = wait_for(root, unit, release)
    if told is not None:
        return {"unit": unit, "health": told}
    failed = f"{release} does not answer in {unit} ({why(unit)})"
    try:
        old = go_back(root)
    except AgentError as error:
        raise AgentError("unhealthy", f"{failed}; {error.args[1]}") from None
    note(root, "went back", old, owner, left=release)
    again = "which answers" if wait_for(root, unit, old) else "which does not answer either"
    raise AgentError("unhealthy", f"{failed}; back to {old}, {again}")
