"""Serving the model over HTTP, on sockets that systemd holds (or on a path or a port of loopback).

    POST /infer    one sample in, the answer out (JSON, or float32 values one after the other)
    GET  /health   200 while it answers as it should, 503 where not; counters, p50 and p99
    GET  /         what is served: release, variant, shape, labels

One inference at a time; who waits longer than BUSY_S is told to come again (503). Memory is bounded: so many
connections, so many bytes a request, so many latencies remembered. docs/formats/linux.md has the protocol.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import socket
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer, ThreadingMixIn
from typing import Any, Protocol

from .machine import memory_bytes
from .messages import AgentError

CONNECTIONS = 32  # at once; more are told to come again
BUSY_S = 5.0
IDLE_S = 30.0  # a connection that says nothing for so long is closed
REMEMBERED = 2000
JSON_BYTES_A_VALUE = 32
DRAIN_S, DRAIN_BYTES = 2.0, 1 << 20  # of a refused request: read on so long and so far before closing


class Model(Protocol):
    """What is served. `facts`: what `GET /` tells; `shape`: of one sample, [1, ...]."""

    facts: dict[str, Any]
    shape: tuple[int, ...]

    def answer(self, row: Any) -> list[float]:
        """The outputs for one sample of float32 values that lie as `shape`."""

    def describe(self, row: Any, outputs: list[float]) -> dict[str, Any]:
        """`index` and `label`, or `score`: what the outputs mean."""


class Desk:
    """The model behind its lock, and the counters of what it was asked."""

    def __init__(self, model: Model) -> None:
        self.model, self.values = model, math.prod(model.shape)
        self._lock, self._began_s = threading.Lock(), time.monotonic()
        self._times: deque[int] = deque(maxlen=REMEMBERED)
        self.requests = self.errors = self.refused = 0
        self.at_work = 0
        self._probe = memoryview(array.array("f", bytes(4 * self.values)))
        self._expected = model.answer(self._probe)

    def infer(self, row: Any) -> tuple[list[float], int]:
        """Outputs and microseconds of one inference. Raises AgentError `locked` where others are in front."""
        if not self._lock.acquire(timeout=BUSY_S):
            self.refused += 1
            raise AgentError("locked", "the model is busy; come again")
        try:
            self.at_work = 1
            begin_ns = time.perf_counter_ns()
            outputs = self.model.answer(row)
            took_ns = time.perf_counter_ns() - begin_ns
        except BaseException:
            self.errors += 1
            raise
        finally:
            self.at_work = 0
            self._lock.release()
        self.requests += 1
        self._times.append(took_ns)
        return outputs, took_ns // 1000

    def is_well(self) -> bool:
        """Whether a fixed sample is answered, and as it was at the start."""
        if not self._lock.acquire(timeout=BUSY_S):
            return False
        try:
            return self.model.answer(self._probe) == self._expected
        finally:
            self._lock.release()

    def health(self) -> dict[str, Any]:
        """The counters; latencies of the inference alone, over the last 2,000."""
        times = sorted(self._times)
        at = {
            f"p{p}_us": times[max(0, -(-p * len(times) // 100) - 1)] // 1000 if times else None
            for p in (50, 99)
        }
        counts = {"requests": self.requests, "errors": self.errors, "refused": self.refused}
        memory = {"rss_bytes": memory_bytes("VmRSS"), "peak_rss_bytes": memory_bytes("VmHWM")}
        return {
            **self.model.facts,
            **counts,
            **at,
            **memory,
            "uptime_s": round(time.monotonic() - self._began_s),
        }


class Handler(BaseHTTPRequestHandler):
    """One connection: requests one after the other, each answered whole."""

    protocol_version, server_version, sys_version = "HTTP/1.1", "edgekd", ""
    timeout, wbufsize = IDLE_S, -1  # buffered: an answer leaves in one piece
    disable_nagle_algorithm = False
    server: Server
    is_read = False  # the request's body

    def do_GET(self) -> None:
        """`/` and `/health`."""
        if self.path == "/":
            self._send(200, {**self.server.desk.model.facts, "shape": list(self.server.desk.model.shape)})
        elif self.path == "/health":
            well = self.server.desk.is_well()
            self._send(
                200 if well else 503, {"status": "ok" if well else "failing", **self.server.desk.health()}
            )
        else:
            self._refuse(404, f"there is no {self.path}; GET /, GET /health or POST /infer")

    def do_POST(self) -> None:
        """`/infer`."""
        self.is_read = False
        if self.path != "/infer":
            self._refuse(404, f"there is no {self.path}; POST /infer")
            return
        try:
            row = self._row()
            outputs, took_us = self.server.desk.infer(row)
        except AgentError as error:
            code = {"config": 400, "space": 413, "locked": 503}.get(error.args[0], 500)
            self._refuse(code, error.args[1])
            return
        except Exception as error:  # the runtime's own errors have many types; the service lives on
            self._refuse(500, f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}")
            return
        if self.headers.get("Accept") == "application/octet-stream":
            self._send_bytes(200, array.array("f", outputs).tobytes(), "application/octet-stream")
        else:
            told = self.server.desk.model.describe(row, outputs)
            release = self.server.desk.model.facts["release"]
            self._send(200, {"output": outputs, **told, "latency_us": took_us, "release": release})

    def _row(self) -> Any:
        """The request's sample. Raises AgentError `config` or `space` in one sentence."""
        count, text = self.server.desk.values, self.headers.get("Content-Length", "")
        if not text.isdecimal():
            raise AgentError("config", "the request has no Content-Length; send it")
        if int(text) > (most := max(4 * count, JSON_BYTES_A_VALUE * count) + 1024):
            raise AgentError("space", f"the request has {text} bytes and at most {most} are taken")
        body, self.is_read = self.rfile.read(int(text)), True
        if len(body) != int(text):
            raise AgentError("config", f"the request ended after {len(body)} of {text} bytes")
        if self.headers.get("Content-Type", "application/octet-stream").startswith("application/json"):
            return _json_row(body, count)
        if len(body) != 4 * count:
            raise AgentError(
                "config", f"a sample is {count} float32 values, {4 * count} bytes; got {len(body)}"
            )
        row = memoryview(body).cast("f")
        if not all(map(math.isfinite, row)):
            raise AgentError("config", "the sample holds NaN or infinity; mend it")
        return row

    def _refuse(self, code: int, message: str) -> None:
        self.close_connection = True  # what is left unread of the request must not be taken for the next
        self._send(code, {"error": message}, {"Retry-After": "1"} if code == 503 else {})
        self._drain()

    def _drain(self) -> None:
        """Read on for a moment: a client that still sends when the link is reset never sees its answer."""
        left = self.headers.get("Content-Length", "")
        until, left_bytes = time.monotonic() + DRAIN_S, min(int(left) if left.isdecimal() else 0, DRAIN_BYTES)
        with contextlib.suppress(OSError):
            self.connection.settimeout(DRAIN_S)
            while left_bytes > 0 and not self.is_read and time.monotonic() < until:
                piece = self.rfile.read1(min(left_bytes, 1 << 16))
                if not piece:
                    return
                left_bytes -= len(piece)

    def _send(self, code: int, table: dict[str, Any], extra: dict[str, str] | None = None) -> None:
        self._send_bytes(code, json.dumps(table).encode() + b"\n", "application/json", extra)

    def _send_bytes(self, code: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(extra or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """No line a request: a journal on a card wears it out."""

    def address_string(self) -> str:
        """A peer of a unix socket has no address."""
        return str(self.client_address[0]) if self.client_address else "local"


def _json_row(body: bytes, count: int) -> Any:
    """{"input": values, nested in any way} as float32 values in order."""
    try:
        left, values = [json.loads(body)["input"]], array.array("f")
        while left:
            value = left.pop()
            if isinstance(value, list):
                left.extend(reversed(value))
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError
            else:
                values.append(value)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise AgentError("config", 'the request is no {"input": [numbers]}; send that') from None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise AgentError(
            "config", f"a sample is {count} finite numbers; got {len(values)}, or NaN among them"
        )
    return memoryview(values)


class Server(ThreadingMixIn, HTTPServer):
    """One listening socket. A connection has a thread; CONNECTIONS at once, on all sockets together."""

    daemon_threads, block_on_close, request_queue_size = True, False, 128
    room = threading.BoundedSemaphore(CONNECTIONS)

    def __init__(self, listener: socket.socket, desk: Desk) -> None:
        BaseServer.__init__(self, ("", 0), Handler)  # HTTPServer's own would make a socket: not allowed here
        self.socket, self.desk = listener, desk
        self.server_name, self.server_port = "edgekd", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; a peer of a unix socket has no address."""
        connection, address = self.socket.accept()
        return connection, address or ("local", 0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, or 503 where there is no room."""
        if self.room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        self.desk.refused += 1
        body = b'{"error": "too many connections; come again"}\n'
        head = (
            f"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            request.sendall(head.encode() + body)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The connection's whole life; its room is free afterwards, however it ended."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is none of ours; anything else is said in a line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"connection: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
