"""What the device tests share: a small bundle, a real OpenSSH server, and a link that misbehaves."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.ssh import SshOptions, SshTransport
from edgekd.export.linux import write_bundle
from edgekd.export.variants import IntegerModel

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def conv_net(seed: int, channels: int = 16, side: int = 8) -> bytes:
    """A float ONNX model [N, 1, side, side] -> [N, 10]: two convolutions, a global pool, a matrix."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        scale = (2 / np.prod(shape[1:])) ** 0.5
        return numpy_helper.from_array((rng.normal(size=shape) * scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    constants = [
        weights("w1", channels, 1, 3, 3),
        weights("w2", channels, channels, 3, 3),
        weights("w3", 10, channels),
        *(weights(f"b{i}", n) for i, n in ((1, channels), (2, channels), (3, 10))),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def quantized(float_onnx: bytes, x: np.ndarray, folder: Path) -> bytes:
    """The QDQ int8 model, made by onnxruntime.quantization."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter([{"x": x[i : i + 1]} for i in range(min(len(x), 32))])

        def get_next(self) -> Any:
            return next(self.rows, None)

    source, result = folder / "float_in.onnx", folder / "int8_out.onnx"
    source.write_bytes(float_onnx)
    quantize_static(
        source,
        result,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    return result.read_bytes()


def make_bundle(
    folder: Path,
    seed: int,
    *,
    samples: int = 32,
    activation: str = "int8",
    channels: int = 16,
    side: int = 8,
    every_variant: bool = False,
    architectures: tuple[str, ...] = (),
) -> Path:
    """A bundle whose labels are the float model's answers, so that its float accuracy is 1.

    every_variant: with a .tflite and C compiled for `architectures` (this machine's when empty), too.
    """
    from edgekd.export.onnx_session import run_onnx
    from edgekd.quantize.activation import uint8_variant

    folder.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(seed + 1).normal(size=(samples, 1, side, side)).astype(np.float32)
    float_onnx = conv_net(seed, channels, side)
    int8_onnx = quantized(float_onnx, x, folder)
    integer = integer_model(int8_onnx, folder, architectures) if every_variant else None
    if activation == "uint8":
        int8_onnx = uint8_variant(int8_onnx)
    classes = run_onnx(float_onnx, x).argmax(1)
    out = folder / f"bundle-{seed}-{activation}"
    write_bundle(
        out,
        name="net",
        float_onnx=float_onnx,
        int8_onnx=int8_onnx,
        activation=activation,
        labels=[str(i) for i in range(10)],
        samples_x=x,
        samples_y=classes,
        split="test",
        golden_count=min(16, samples),
        preprocessing={"scale": 1.0},
        integer=integer,
        reference=("float", classes.astype(np.int64)),
    )
    return out


def integer_model(int8_onnx: bytes, folder: Path, architectures: tuple[str, ...] = ()) -> IntegerModel:
    """The forms of the int8 graph that a bundle may hold: its .tflite, and C for `architectures` or here."""
    from edgekd.device.agent.engines import architecture
    from edgekd.export.native import build_native, native_graph
    from edgekd.mcu.toolchain import find_compiler
    from edgekd.qgraph.onnx_reader import read_onnx

    graph = read_onnx(int8_onnx, "int8.onnx")
    compiler = find_compiler("clang", folder / "compiler")
    return IntegerModel(
        graph, True, build_native(native_graph(graph), architectures or [architecture()], compiler)
    )


def rewritten(bundle: Path) -> Path:
    """The bundle after its files were changed: with their digests as they are now."""
    table = json.loads((bundle / "bundle.json").read_text())
    for name in table["files"]:
        data = (bundle / name).read_bytes()
        table["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (bundle / "bundle.json").write_text(json.dumps(table))
    return bundle


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sshd:
    """An OpenSSH server on a free port of this machine, with its own host key, config and login key."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.user = folder / "login_key", getpass.getuser()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd refuses to run without
        for path in (self.key, folder / "host_key", folder / "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        shutil.copy(self.key.with_suffix(".pub"), folder / "authorized_keys")
        self.port, self.known_hosts = free_port(), folder / "known_hosts"
        self.config = folder / "sshd_config"
        self.lines = lines
        self.start()
        self.pin(self.port, "host_key")

    def start(self) -> None:
        """Write the configuration, start the server and wait until it listens."""
        text = f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {self.folder}/host_key
            AuthorizedKeysFile {self.folder}/authorized_keys
            PidFile none
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            MaxStartups 100
        """
        self.config.write_text("\n".join([text, *self.lines, ""]))
        self.run()

    def run(self) -> None:
        """Start the server by its configuration as it is."""
        command = [SSHD, "-D", "-f", str(self.config), "-E", str(self.folder / "sshd.log")]
        self.process = subprocess.Popen(command)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait()

    def cut_power(self) -> None:
        """Kill the server and all that runs under it, at once; `start` switches it on again."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def pin(self, port: int, key: str) -> None:
        """Trust `key` for 127.0.0.1 at `port`."""
        kind, blob = (self.folder / f"{key}.pub").read_text().split()[:2]
        with self.known_hosts.open("a") as stream:
            stream.write(f"[127.0.0.1]:{port} {kind} {blob}\n")

    def options(self, port: int | None = None, **changes: Any) -> SshOptions:
        """Options that work; `changes` replace some."""
        given = {
            "host": "127.0.0.1",
            "user": self.user,
            "port": port or self.port,
            "key_file": self.key,
            "known_hosts": (self.known_hosts,),
            "target": "rpi4",
            "python": sys.executable,
            "timeout_s": 10.0,
        }
        return SshOptions(**{**given, **changes})

    def connect(self, port: int | None = None, **changes: Any) -> SshTransport:
        """A transport to this server."""
        return SshTransport(self.options(port, **changes))


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents first."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


class Proxy:
    """A TCP link to a port that is cut, reset or frozen after so many bytes from the client."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_after: int | None = None
        self.freeze_after: int | None = None
        self.reset_after: int | None = None
        self.passed_bytes = 0
        self._sockets: list[socket.socket] = []
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the link and all that goes over it."""
        self._open = False
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=(source, sink, source is client), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                if counts and self.cut_after is not None:
                    data = data[: max(0, self.cut_after - self.passed_bytes)]
                sink.sendall(data)
                if not counts:
                    while self._frozen():
                        time.sleep(0.05)
                    continue
                self.passed_bytes += len(data)
                if self.cut_after is not None and self.passed_bytes >= self.cut_after:
                    break
                if self.reset_after is not None and self.passed_bytes >= self.reset_after:
                    for each in (source, sink):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        each.shutdown(socket.SHUT_RD)  # wakes the other direction, so that close resets
                        each.close()
                    return
                while self._frozen():
                    time.sleep(0.05)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _frozen(self) -> bool:
        return self._open and self.freeze_after is not None and self.passed_bytes >= self.freeze_after


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A Proxy that is closed at the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def script(path: Path, *lines: str) -> Path:
    """An executable shell script."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path
