"""A real PostgreSQL server for a test session: its own data folder and socket, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from edgekd.doctor import find_program


@contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh server. PostgreSQL refuses root, so under root it runs as `nobody`."""
    folder = Path(mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has 107 bytes at most
    who = {"user": "nobody"} if os.geteuid() == 0 else {}
    if who:
        shutil.chown(folder, "nobody")
    data = folder / "data"
    started = False
    try:
        run("initdb", "-D", str(data), "-U", "edgekd", "-A", "trust", "-N", **who)
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start", **who)
        started = True
        yield f"postgresql+psycopg://edgekd@/postgres?host={folder}"
    finally:
        if started:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop", **who)
        shutil.rmtree(folder, ignore_errors=True)


def run(program: str, *arguments: str, **who: str) -> None:
    """Run one of PostgreSQL's programs beside `postgres`."""
    binary = find_program("postgres")
    assert binary is not None
    command = [str(Path(binary).resolve().with_name(program)), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)  # type: ignore[call-overload]
