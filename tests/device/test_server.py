"""The server of the current release, on real sockets: answers, refusals, load, memory, another release."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.agent.service import SocketConnection
from edgekd.device.deploy import deploy
from edgekd.device.service import run_sample, sample_shape
from edgekd.device.transport import LocalTransport
from edgekd.errors import ConfigError, DeviceError, VerifyError
from edgekd.export.onnx_session import run_onnx
from tests.device.support import Sshd, free_port

pytestmark = pytest.mark.needs("onnxruntime")


class Running:
    """`agent.pyz serve` of the release in `root`, on a unix socket and a port."""

    def __init__(self, root: Path, *options: str) -> None:
        self.path, self.port = root.parent / "model.sock", free_port()
        command = [
            sys.executable,
            str(root / "current" / "agent.pyz"),
            "serve",
            "--root",
            str(root),
            *options,
        ]
        command += ["--socket", str(self.path), "--port", str(self.port)]
        environment = os.environ | {"STATE_DIRECTORY": str(root.parent / "state")}
        (root.parent / "state").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(600):
            if self.process.poll() is not None:
                return
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        connection = SocketConnection(str(self.path), 20)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        is_json = answer.headers["Content-Type"] == "application/json"
        return answer.status, json.loads(data) if is_json else data, dict(answer.headers)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    deploy(LocalTransport(folder, sys.executable), bundle, "root")
    running = Running(folder / "root")
    yield running
    running.stop()


def sample_of(bundle: Path, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A sample of the bundle and its golden answer."""
    x = np.load(bundle / "samples_x.npy")[index : index + 1]
    return x, run_onnx((bundle / "int8.onnx").read_bytes(), x)[0]


def test_it_answers_as_the_host_does_in_three_forms(served: Running, bundle: Path) -> None:
    x, expected = sample_of(bundle, 3)
    status, told, _ = served.ask("POST", "/infer", x.tobytes())
    assert status == 200 and np.allclose(told["output"], expected, atol=1e-5)
    assert told["index"] == int(expected.argmax()) and told["label"] == str(told["index"])
    body = json.dumps({"input": x.tolist()}).encode()
    assert (
        served.ask("POST", "/infer", body, {"Content-Type": "application/json"})[1]["output"]
        == told["output"]
    )
    raw = served.ask("POST", "/infer", x.tobytes(), {"Accept": "application/octet-stream"})[1]
    assert np.allclose(np.frombuffer(raw, np.float32), expected, atol=1e-5)
    over_tcp = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    with contextlib.closing(over_tcp):  # one connection, several requests
        for _ in range(3):
            over_tcp.request("POST", "/infer", x.tobytes())
            assert json.loads(over_tcp.getresponse().read())["output"] == told["output"]
    health = served.ask("GET", "/health")[1]
    assert (
        health["status"] == "ok"
        and health["requests"] >= 6
        and health["p50_us"] > 0
        and health["starts"] == 1
    )
    about = served.ask("GET", "/")[1]
    assert about["shape"] == [1, 1, 8, 8] and about["release"] == told["release"]


JSON = {"Content-Type": "application/json"}
BAD = [
    ("GET /nothing", b"", {}, 404, "there is no /nothing"),
    ("POST /health", b"x", {}, 404, "POST /infer"),
    ("POST /infer", b"abc", {}, 400, "64 float32 values, 256 bytes; got 3"),
    ("POST /infer", b"\xff" * 256, {}, 400, "NaN or infinity"),
    ("POST /infer", bytes(100_000), {}, 413, "at most"),
    ("POST /infer", b"{}", JSON, 400, '{"input": [numbers]}'),
    ("POST /infer", b"[" * 1000, JSON, 400, '{"input": [numbers]}'),
    ("POST /infer", b'{"input": [1, true]}', JSON, 400, "[numbers]"),
    ("POST /infer", b'{"input": [1, 2]}', JSON, 400, "64 finite numbers; got 2"),
    ("POST /infer", b'{"input": [NaN]}', JSON, 400, "64 finite numbers"),
    ("POST /infer", b"", {"Content-Length": "many"}, 400, "no Content-Length"),
]


@pytest.mark.parametrize(("line", "body", "headers", "status", "message"), BAD)
def test_a_bad_request_is_refused_in_a_sentence_and_the_next_is_served(
    served: Running, bundle: Path, line: str, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    code, told, _ = served.ask(*line.split(), body, headers)  # type: ignore[misc]
    assert code == status and message in told["error"]
    assert served.ask("POST", "/infer", sample_of(bundle)[0].tobytes())[0] == 200


def test_clients_that_say_nothing_or_vanish_hold_up_nobody(served: Running, bundle: Path) -> None:
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
    for each in silent[:10]:
        each.sendall(b"POST /infer HTTP/1.1\r\nContent-Length: 256\r\n\r\nabc")
    for each in silent[5:10]:
        each.close()
    assert served.ask("POST", "/infer", sample_of(bundle)[0].tobytes())[0] == 200
    more = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
    time.sleep(0.3)
    refused = [each for each in more if b"503" in _peek(each)]
    assert refused  # more than it has room for are told so at once
    for each in (*silent, *more):
        each.close()
    for _ in range(50):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if served.ask("POST", "/infer", sample_of(bundle)[0].tobytes())[0] == 200:
                break
        time.sleep(0.1)
    else:
        raise AssertionError("it did not recover")


def _peek(each: socket.socket) -> bytes:
    each.settimeout(0.05)
    try:
        return each.recv(100)
    except TimeoutError:
        return b""


def test_memory_holds_under_load_from_several_clients(served: Running, bundle: Path) -> None:
    body = sample_of(bundle)[0].tobytes()

    def load(count: int) -> None:
        connection = SocketConnection(str(served.path), 20)
        with contextlib.closing(connection):
            for _ in range(count):
                connection.request("POST", "/infer", body)
                assert connection.getresponse().read()

    load(300)
    before = served.ask("GET", "/health")[1]
    clients = [threading.Thread(target=load, args=(300,)) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    after = served.ask("GET", "/health")[1]
    assert after["requests"] - before["requests"] == 1200 and after["errors"] == before["errors"]
    assert after["rss_bytes"] - before["rss_bytes"] < 4 << 20


def test_it_ends_when_another_release_is_current_and_at_a_signal(
    tmp_path: Path, bundle: Path, next_bundle: Path
) -> None:
    local = LocalTransport(tmp_path, sys.executable)
    deploy(local, bundle, "root")
    first = Running(tmp_path / "root")
    deploy(local, next_bundle, "root")
    assert first.process.wait(30) == 0 and not first.path.exists()
    second = Running(tmp_path / "root")
    assert second.ask("GET", "/health")[1]["starts"] == 2
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(30) == 0


def test_a_changed_file_is_not_served_and_why_is_kept(tmp_path: Path, bundle: Path) -> None:
    release = deploy(LocalTransport(tmp_path, sys.executable), bundle, "root").release
    model = tmp_path / "root" / "releases" / release / "bundle" / "int8.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    running = Running(tmp_path / "root")
    assert running.process.wait(30) == 1
    kept = json.loads((tmp_path / "state" / "service.json").read_text())
    assert "int8.onnx is missing or not what was sent" in kept["last_failure"]["why"]


@pytest.mark.needs("sshd")
def test_one_inference_over_ssh(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    root, (x, expected) = str(tmp_path / "root"), sample_of(bundle, 5)
    with sshd.connect() as transport:
        with pytest.raises(DeviceError, match="holds no release"):
            sample_shape(transport, root)
        deploy(transport, bundle, root)
        assert sample_shape(transport, root)["input_shape"] == [1, 1, 8, 8]
        told = run_sample(transport, root, x)
        assert np.allclose(told["output"], expected, atol=1e-5) and told["label"] == str(told["index"])
        assert told["latency_us"] > 0 and told["load_us"] > 0 and told["score"] is None
        with pytest.raises(ConfigError, match="a sample of this model is 64 values; got 9"):
            run_sample(transport, root, np.zeros((1, 9), np.float32))
        (tmp_path / "root" / "current" / "bundle" / "int8.onnx").chmod(0o644)
        (tmp_path / "root" / "current" / "bundle" / "int8.onnx").write_bytes(b"other")
        with pytest.raises(VerifyError, match="not what was sent"):
            run_sample(transport, root, x)
