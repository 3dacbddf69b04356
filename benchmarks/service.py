"""The served model under load: latency at a stated rate, memory over many requests, time to come back.

    python benchmarks/service.py [--requests 100000] [--rate 200] [--out benchmarks/results/service.json]

The server is that of `deploy --service`, on its unix socket; the client's own time is in the latencies.
Clients ask at fixed moments whether or not the answer before is there, so a slow answer is not hidden.
Where systemd can be started in a namespace (root), the unit itself is killed and timed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from edgekd.device.agent.service import SocketConnection
from edgekd.device.deploy import deploy
from edgekd.device.service import install_service
from edgekd.device.transport import LocalTransport
from tests.device.booted import Booted
from tests.device.support import make_bundle
from tests.device.test_server import Running

CLIENTS = 4
KILLS = 5


def ask(connection: SocketConnection, body: bytes) -> None:
    """One inference; raises where it is not answered with 200."""
    connection.request("POST", "/infer", body)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"answered with {answer.status}")


def at_rate(path: str, body: bytes, rate_hz: float, seconds: float) -> dict[str, Any]:
    """p50, p99 and the largest latency in microseconds, from the moment that a request was due."""
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    times: list[float] = []

    def client() -> None:
        connection = SocketConnection(path, 30)
        with contextlib.closing(connection):
            while (moment := due.get()) is not None:
                ask(connection, body)
                times.append(time.perf_counter() - moment)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    begin = time.perf_counter()
    for number in range(int(rate_hz * seconds)):
        moment = begin + number / rate_hz
        time.sleep(max(0.0, moment - time.perf_counter()))
        due.put(moment)
    for _ in clients:
        due.put(None)
    for each in clients:
        each.join()
    took_s = time.perf_counter() - begin
    at = {f"p{p}_us": round(float(np.percentile(times, p)) * 1e6) for p in (50, 99, 100)}
    return {"rate_hz": rate_hz, "reached_hz": round(len(times) / took_s, 1), "requests": len(times), **at}


def holds_memory(running: Running, body: bytes, requests: int) -> dict[str, Any]:
    """Resident bytes before and after so many requests as fast as one client asks them."""
    connection = SocketConnection(str(running.path), 30)
    with contextlib.closing(connection):
        for _ in range(1000):
            ask(connection, body)
        before = running.ask("GET", "/health")[1]
        begin = time.perf_counter()
        for _ in range(requests):
            ask(connection, body)
        took_s = time.perf_counter() - begin
    after = running.ask("GET", "/health")[1]
    return {
        "requests": after["requests"] - before["requests"],
        "errors": after["errors"],
        "rss_before_bytes": before["rss_bytes"],
        "rss_after_bytes": after["rss_bytes"],
        "rise_bytes": after["rss_bytes"] - before["rss_bytes"],
        "requests_per_s": round(requests / took_s),
    }


def after_kills(folder: Path, bundle: Path) -> list[float] | None:
    """Seconds from each `kill -9` of the unit's process to the next answer; None without a systemd."""
    if os.getuid():
        return None
    booted, body = Booted(folder / "systemd"), b""
    try:
        transport = LocalTransport(folder, booted.program("python", sys.executable), 60)
        deploy(transport, bundle, "unit")
        install_service(transport, "unit", port=8124)
        found = []
        for _ in range(KILLS):
            pid = booted.run(
                "systemctl", "show", "-p", "MainPID", "--value", "edgekd-unit.service"
            ).stdout.strip()
            booted.run("kill", "-9", pid)
            begin = time.monotonic()
            done = booted.run("curl", "-s", "-m", "60", "http://127.0.0.1:8124/health")
            found.append(round(time.monotonic() - begin, 2))
            body = done.stdout.encode()
            if json.loads(body)["status"] != "ok":
                raise RuntimeError(f"not well after a kill: {done.stdout}")
        return found
    finally:
        booted.stop()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the served model under load")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bundle = make_bundle(folder / "made", 1)
        deploy(LocalTransport(folder, sys.executable), bundle, "root")
        body = np.load(bundle / "samples_x.npy")[:1].tobytes()
        running = Running(folder / "root")
        try:
            load = at_rate(str(running.path), body, chosen.rate, chosen.seconds)
            memory = holds_memory(running, body, chosen.requests)
        finally:
            running.stop()
        restarts = after_kills(folder, bundle)
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    record = {"machine": machine, "load": load, "memory": memory, "seconds_after_kill": restarts}
    text = json.dumps(record, indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    print(text)
    return int(memory["errors"] > 0 or memory["rise_bytes"] > 4 << 20)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
