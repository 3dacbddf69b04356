"""Measuring on a device: what comes back, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.device.bench import bench_device
from edgekd.device.deploy import deploy
from edgekd.device.session import parse_line
from edgekd.device.transport import LocalTransport
from edgekd.errors import ConfigError, DeviceError, MissingDependencyError, VerifyError
from edgekd.evaluate.record import new_record
from tests.device.support import Sshd, make_bundle, proxy_to, script


@pytest.fixture
def device(tmp_path: Path, bundle: Path) -> LocalTransport:
    """This machine with the small bundle deployed under `root`."""
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, bundle, "root")
    return transport


@pytest.mark.parametrize("variant", ["int8", "float"])
def test_the_measurements_fill_a_bench_record(device: LocalTransport, bundle: Path, variant: str) -> None:
    measured = bench_device(device, "root", variant, runs=64)
    record = new_record(**measured)
    latency = record["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] and latency["n"] == 64
    assert record["load_us"] > 0 and record["split"] == "test"
    assert record["cold_start_us"] > record["load_us"] and record["throughput_per_s"] > 0
    assert record["samples"] == record["samples_on_device"] == 32
    assert record["accuracy"] == 1.0 if variant == "float" else record["accuracy"] > 0.8
    assert record["agreement"] == 1.0
    assert record["model_bytes"] == (bundle / f"{variant}.onnx").stat().st_size
    assert record["peak_rss_bytes"] > record["rss_rise_bytes"] > 1_000_000
    assert record["device"]["golden"]["max_difference_steps"] == 0.0  # the same machine, the same runtime
    assert record["device"]["architecture"] and record["tools"]["onnxruntime"]
    assert record["variant"] == {
        "variant": variant,
        "engine": "onnxruntime",
        "threads": 1,
        "file": f"{variant}.onnx",
    }
    assert record["selection"] is None and 0 <= record["noise"] < 10 and record["emulated"] is False
    assert record["flash_bytes"] is None and record["bit_exact"] is None


@pytest.mark.needs("sshd")
def test_over_ssh_the_same(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    with sshd.connect() as transport:
        release = deploy(transport, bundle, str(tmp_path / "root")).release
        record = bench_device(transport, str(tmp_path / "root"), "int8", runs=24, expected_release=release)
        assert record["device"]["release"] == release and record["latency_us"]["n"] == 24
        with pytest.raises(VerifyError, match="deploy again"):
            bench_device(
                transport, str(tmp_path / "root"), "int8", runs=20, expected_release="net-000000000000"
            )


@pytest.mark.needs("sshd")
def test_a_link_that_freezes_ends_the_bench(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=2.0) as transport:
            deploy(transport, bundle, str(tmp_path / "root"))
            proxy.freeze_after = 0
            with pytest.raises(DeviceError, match=r"was silent|did not answer|took more than"):
                bench_device(transport, str(tmp_path / "root"), "int8", quiet_s=1.0, total_s=5.0)


def test_without_labels_there_is_no_accuracy(tmp_path: Path, bundle: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    table = json.loads((copy / "bundle.json").read_text())
    table["samples"] |= {"y": None, "metric": None}
    table["reference"] = None
    del table["files"]["samples_y.npy"], table["files"]["reference.npy"]
    (copy / "bundle.json").write_text(json.dumps(table))
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, copy, "root")
    assert bench_device(transport, "root", "int8", runs=10)["accuracy"] is None


def test_fewer_samples_on_request(device: LocalTransport) -> None:
    assert bench_device(device, "root", "int8", runs=10, samples=20)["samples"] == 20


def test_nothing_deployed(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="holds no release; deploy first"):
        bench_device(LocalTransport(tmp_path, sys.executable), "root")


def test_an_unknown_variant(device: LocalTransport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use auto, float or int8"):
        bench_device(device, "root", "int4")


@pytest.mark.parametrize(
    "name", ["bundle/int8.onnx", "bundle/bundle.json", "bundle/samples_x.npy", "release.json"]
)
def test_a_file_replaced_under_us_is_refused_and_a_deploy_mends_it(
    device: LocalTransport, tmp_path: Path, bundle: Path, name: str
) -> None:
    path = tmp_path / "root" / "current" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=f"{name.split('/')[-1]} is missing or not what was sent"):
        bench_device(device, "root", "int8", runs=10)
    deploy(device, bundle, "root")
    assert bench_device(device, "root", "int8", runs=10)["agreement"] == 1.0


@pytest.mark.parametrize("variant", ["auto", "int8"])
def test_a_device_without_the_runtime(device: LocalTransport, tmp_path: Path, variant: str) -> None:
    bare = script(tmp_path / "bare", f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime") as error:
        bench_device(LocalTransport(tmp_path, str(bare)), "root", variant)
    assert "\n" not in str(error.value)


def test_a_runtime_that_crashes_or_hangs(device: LocalTransport, tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    python = script(tmp_path / "broken", f'PYTHONPATH={folder} exec {sys.executable} "$@"')
    broken = LocalTransport(tmp_path, str(python))
    (folder / "onnxruntime.py").write_text("import os; os.abort()\n")
    with pytest.raises(DeviceError, match="int8: its process was killed by SIGABRT during 'load'"):
        bench_device(broken, "root", "int8")
    (folder / "onnxruntime.py").write_text("raise RuntimeError('wrong processor')\n")
    with pytest.raises(DeviceError, match="RuntimeError: wrong processor"):
        bench_device(broken, "root", "int8")
    (folder / "onnxruntime.py").write_text("import time; time.sleep(60)\n")
    with pytest.raises(DeviceError, match=r"said nothing|took more than"):
        bench_device(broken, "root", "int8", total_s=3.0)


def test_the_copy_in_the_release_runs_by_hand(device: LocalTransport, tmp_path: Path) -> None:
    current = tmp_path / "root" / "current"
    command = [sys.executable, current / "agent.pyz", "bench", "--bundle", current / "bundle"]
    command += ["--runs", "16", "--variant", "int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = [m for line in done.stdout.splitlines() if (m := parse_line(line.encode()))]
    assert messages[-1]["type"] == "result" and messages[-1]["latency_us"]["n"] == 16


def test_answers_that_leave_the_tolerance_are_refused(tmp_path: Path, bundle: Path) -> None:
    """The golden outputs of another model: all hashes are right, the answers are not."""
    other = make_bundle(tmp_path / "other", 5)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    (copy / "golden_int8.npy").write_bytes((other / "golden_int8.npy").read_bytes())
    table = json.loads((copy / "bundle.json").read_text())
    entry = json.loads((other / "bundle.json").read_text())["files"]["golden_int8.npy"]
    table["files"]["golden_int8.npy"] = entry
    (copy / "bundle.json").write_text(json.dumps(table))
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, copy, "root")
    with pytest.raises(VerifyError, match=r"differs from the host by .* steps"):
        bench_device(transport, "root", "int8", runs=10)


@pytest.mark.parametrize(
    "line", [b"", b"Welcome", b"@@edgekd-agent-1 {broken @@", b"@@edgekd-agent-1 [1] @@"]
)
def test_other_text_is_no_message(line: bytes) -> None:
    assert parse_line(line) is None
    assert parse_line(b"prompt> " + b'@@edgekd-agent-1 {"type": "result"} @@') == {"type": "result"}
