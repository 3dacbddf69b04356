"""Measuring on a device: what comes back, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.agent.bench import compare_golden
from edgekd.device.agent.measure import percentiles, time_runs
from edgekd.device.bench import bench_device, check_golden
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
    measured = bench_device(device, "root", variant, runs=60)
    record = new_record(**measured)
    latency = record["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] and latency["n"] == 60
    assert record["load_us"] > 0 and record["split"] == "test"
    assert record["samples"] == record["samples_on_device"] == 32
    assert record["accuracy"] == 1.0 if variant == "float" else record["accuracy"] > 0.8
    assert record["agreement"] == 1.0
    assert record["model_bytes"] == (bundle / f"{variant}.onnx").stat().st_size
    assert record["peak_rss_bytes"] > record["device"]["rss_rise_bytes"] > 1_000_000
    assert record["device"]["golden"]["max_difference_steps"] == 0.0  # the same machine, the same runtime
    assert record["device"]["architecture"] and record["tools"]["onnxruntime"]
    assert record["instructions"] is None and record["flash_bytes"] is None and record["bit_exact"] is None


@pytest.mark.needs("sshd")
def test_over_ssh_the_same(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    with sshd.connect() as transport:
        release = deploy(transport, bundle, str(tmp_path / "root")).release
        record = bench_device(transport, str(tmp_path / "root"), runs=20, expected_release=release)
        assert record["device"]["release"] == release and record["latency_us"]["n"] == 20
        with pytest.raises(VerifyError, match="deploy again"):
            bench_device(transport, str(tmp_path / "root"), runs=20, expected_release="net-000000000000")


@pytest.mark.needs("sshd")
def test_a_link_that_freezes_ends_the_bench(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=2.0) as transport:
            deploy(transport, bundle, str(tmp_path / "root"))
            proxy.freeze_after = 0
            with pytest.raises(DeviceError, match=r"was silent|did not answer|took more than"):
                bench_device(transport, str(tmp_path / "root"), quiet_s=1.0, total_s=5.0)


def test_without_labels_there_is_no_accuracy(tmp_path: Path, bundle: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    table = json.loads((copy / "bundle.json").read_text())
    table["samples"]["y"] = None
    del table["files"]["samples_y.npy"]
    (copy / "bundle.json").write_text(json.dumps(table))
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, copy, "root")
    assert bench_device(transport, "root", runs=10)["accuracy"] is None


def test_fewer_samples_on_request(device: LocalTransport) -> None:
    assert bench_device(device, "root", runs=10, samples=20)["samples"] == 20


def test_nothing_deployed(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="holds no release; deploy first"):
        bench_device(LocalTransport(tmp_path, sys.executable), "root")


def test_an_unknown_variant(device: LocalTransport, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="use int8 or float"):
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
        bench_device(device, "root", runs=10)
    deploy(device, bundle, "root")
    assert bench_device(device, "root", runs=10)["agreement"] == 1.0


def test_a_device_without_the_runtime(device: LocalTransport, tmp_path: Path) -> None:
    bare = script(tmp_path / "bare", f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime") as error:
        bench_device(LocalTransport(tmp_path, str(bare)), "root")
    assert "\n" not in str(error.value)


def test_a_runtime_that_crashes_or_hangs(device: LocalTransport, tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    python = script(tmp_path / "broken", f'PYTHONPATH={folder} exec {sys.executable} "$@"')
    broken = LocalTransport(tmp_path, str(python))
    (folder / "onnxruntime.py").write_text("import os; os.abort()\n")
    with pytest.raises(DeviceError, match="agent killed"):
        bench_device(broken, "root")
    (folder / "onnxruntime.py").write_text("raise RuntimeError('wrong processor')\n")
    with pytest.raises(DeviceError, match="RuntimeError: wrong processor"):
        bench_device(broken, "root")
    (folder / "onnxruntime.py").write_text("import time; time.sleep(60)\n")
    with pytest.raises(DeviceError, match=r"said nothing|took more than"):
        bench_device(broken, "root", total_s=1.5)


def test_the_copy_in_the_release_runs_by_hand(device: LocalTransport, tmp_path: Path) -> None:
    current = tmp_path / "root" / "current"
    command = [sys.executable, current / "agent.pyz", "bench", "--bundle", current / "bundle", "--runs", "10"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = [m for line in done.stdout.splitlines() if (m := parse_line(line.encode()))]
    assert messages[-1]["type"] == "result" and messages[-1]["latency_us"]["n"] == 10


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
        bench_device(transport, "root", runs=10)


def test_golden_differences_are_counted_in_steps_and_nan_is_never_within() -> None:
    golden = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    rule = {"step": 0.5, "tolerance_steps": 1}
    same = compare_golden(np, golden + np.float32(0.5), golden, rule)
    assert (same["max_difference_steps"], same["within_tolerance"], same["agreement"]) == (1.0, True, 1.0)
    far = compare_golden(np, golden[:, ::-1], golden, rule)
    assert (far["max_difference_steps"], far["within_tolerance"], far["agreement"]) == (2.0, False, 0.0)
    nan = compare_golden(np, golden * np.float32("nan"), golden, rule)
    assert (nan["max_difference_steps"], nan["within_tolerance"]) == (None, False)
    with pytest.raises(VerifyError, match="no finite number"):
        check_golden("board", "int8", nan)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1000], (1.0, 1.0, 1.0, 1.0)),
        (list(range(1000, 101_000, 1000)), (50.0, 90.0, 99.0, 50.5)),
        ([3000, 1000, 2000], (2.0, 3.0, 3.0, 2.0)),
    ],
)
def test_percentiles(times: list[int], expected: tuple[float, ...]) -> None:
    told: dict[str, Any] = percentiles(times)
    assert (told["p50"], told["p90"], told["p99"], told["mean"]) == expected
    assert told["n"] == len(times)


def test_slow_calls_stop_at_the_time_limit_but_not_before_ten() -> None:
    import time

    assert len(time_runs(lambda: time.sleep(0.01), 2, 10_000, 0.05)) == 10


@pytest.mark.parametrize(
    "line", [b"", b"Welcome", b"@@edgekd-agent-1 {broken @@", b"@@edgekd-agent-1 [1] @@"]
)
def test_other_text_is_no_message(line: bytes) -> None:
    assert parse_line(line) is None
    assert parse_line(b"prompt> " + b'@@edgekd-agent-1 {"type": "result"} @@') == {"type": "result"}
