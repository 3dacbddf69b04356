"""Every variant of one model on this machine: measured, judged, chosen; what goes wrong with one alone."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device.agent.messages import AgentError
from edgekd.device.agent.selection import SELECTED, preferred
from edgekd.device.bench import bench_device
from edgekd.device.deploy import deploy
from edgekd.device.transport import LocalTransport
from edgekd.errors import MissingDependencyError, VerifyError
from tests.device.support import make_bundle, rewritten, script

pytestmark = pytest.mark.needs("ziglang")
QUICK: dict[str, Any] = {"runs": 16, "warmup": 2, "max_seconds": 0.5, "threads": 1}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float and int8 ONNX, .tflite, and compiled C of one net."""
    return make_bundle(tmp_path_factory.mktemp("variants"), 1, every_variant=True)


@pytest.fixture
def device(tmp_path: Path, bundle: Path) -> LocalTransport:
    """This machine with that bundle deployed under `root`."""
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, bundle, "root")
    return transport


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in record["selection"]["candidates"] if row["threads"] == 1}


def test_every_variant_is_measured_and_the_choice_is_kept(device: LocalTransport, tmp_path: Path) -> None:
    record = bench_device(device, "root", **QUICK)
    rows = by_name(record)
    assert list(rows) == ["float", "int8", "litert", "native"]
    for name, row in rows.items():
        assert row["failure"] is None and row["golden"]["within_tolerance"], name
        assert row["latency_us"]["n"] == 16 and row["drop"] <= 0.02 and row["verdict"] != "out"
        assert row["cold_start_us"] > row["load_us"] > 0
    assert rows["native"]["golden"]["exact"] and rows["native"]["golden"]["max_difference_steps"] == 0
    assert rows["native"]["rss_rise_bytes"] < rows["float"]["rss_rise_bytes"] / 4
    selection = record["selection"]
    kept = [row for row in selection["candidates"] if row["verdict"] == "kept"]
    assert len(kept) == 1 and selection["ranked_by"] == "time" and selection["recorded"]
    assert record["variant"]["variant"] == kept[0]["variant"] == selection["chosen"]["variant"]
    stored = json.loads((tmp_path / "root" / "current" / SELECTED).read_text())
    assert stored["chosen"] == selection["chosen"] and stored["release"] == record["device"]["release"]
    again = bench_device(device, "root", **QUICK)
    assert again["selection"]["reused"] and again["selection"]["when"] == stored["when"]
    assert not bench_device(device, "root", again=True, **QUICK)["selection"]["reused"]


def test_what_is_served_is_the_choice_or_else_the_first_that_can_run(
    device: LocalTransport, tmp_path: Path, bundle: Path
) -> None:
    final, table = tmp_path / "root" / "current", json.loads((bundle / "bundle.json").read_text())
    assert preferred(final, table) == ("int8", 1)
    chosen = bench_device(device, "root", **QUICK)["selection"]["chosen"]
    assert preferred(final, table) == (chosen["variant"], chosen["threads"])
    table["variants"] = {"native": {"engine": "native", "files": {"m68k": "native-m68k.so"}}}
    with pytest.raises(AgentError, match="no variant can run here"):
        preferred(final, table)


def test_a_choice_does_not_outlive_what_it_was_made_for(device: LocalTransport, tmp_path: Path) -> None:
    bench_device(device, "root", **QUICK)
    path = tmp_path / "root" / "current" / SELECTED
    table = json.loads(path.read_text())
    table["fingerprint"]["engines"]["onnxruntime"] = "onnxruntime 0.1"
    path.write_text(json.dumps(table))
    assert not bench_device(device, "root", **QUICK)["selection"]["reused"]
    path.write_text("{")
    assert not bench_device(device, "root", **QUICK)["selection"]["reused"]


def test_without_any_runtime_the_compiled_c_runs(device: LocalTransport, tmp_path: Path) -> None:
    bare = script(tmp_path / "bare", f'exec {sys.executable} -I -S "$@"')
    record = bench_device(LocalTransport(tmp_path, str(bare)), "root", **QUICK)
    assert record["variant"]["variant"] == "native" and record["bit_exact"] is True
    assert record["accuracy"] > 0.8 and record["tools"]["native"]
    rows = by_name(record)
    assert [rows[name]["verdict"] for name in ("int8", "float", "litert")] == ["out"] * 3
    assert "pip install ai-edge-litert" in rows["litert"]["why"]


def test_a_variant_that_crashes_is_out_and_the_others_go_on(device: LocalTransport, tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    python = script(tmp_path / "python", f'PYTHONPATH={folder} exec {sys.executable} "$@"')
    record = bench_device(LocalTransport(tmp_path, str(python)), "root", **QUICK)
    rows = by_name(record)
    assert rows["int8"]["verdict"] == "out" and "was killed by SIGSEGV" in rows["int8"]["why"]
    assert record["variant"]["variant"] in ("litert", "native")


@pytest.mark.parametrize("file", ["int8.tflite", "native"])
def test_a_file_replaced_under_us_is_refused(device: LocalTransport, tmp_path: Path, file: str) -> None:
    (path,) = (tmp_path / "root" / "current" / "bundle").glob(f"{file}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=f"{path.name} is missing or not what was sent; deploy again"):
        bench_device(device, "root", **QUICK)


def test_wrong_golden_vectors_put_a_variant_out(tmp_path: Path, bundle: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for name in ("int8", "native"):
        golden = np.load(copy / f"golden_{name}.npy")
        np.save(copy / f"golden_{name}.npy", (golden[::-1] if name == "int8" else golden ^ 1))
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, rewritten(copy), "root")
    rows = by_name(bench_device(transport, "root", **QUICK))
    assert rows["int8"]["verdict"] == rows["native"]["verdict"] == "out"
    assert "differs by 1 steps on the golden samples, 0 allowed" in rows["native"]["why"]
    assert rows["float"]["verdict"] in ("kept", "slower", "tie")
    with pytest.raises(VerifyError, match="the native model differs from the host by 1 steps"):
        bench_device(transport, "root", "native", **QUICK)


def test_a_model_that_loses_more_than_the_budget_is_out(tmp_path: Path, bundle: Path) -> None:
    """Labels that only the float model's answers match: the reference is then better than int8."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    reference = np.load(copy / "reference.npy")
    np.save(copy / "samples_y.npy", (reference + 1) % 10)
    np.save(copy / "reference.npy", (reference + 1) % 10)
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, rewritten(copy), "root")
    with pytest.raises(
        VerifyError, match=r"no variant can be used here \(float: loses|int8: loses .* 0\.02 allowed"
    ):
        bench_device(transport, "root", **QUICK)


def test_answers_that_are_no_numbers_put_a_variant_out(tmp_path: Path, bundle: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    samples = np.load(copy / "samples_x.npy")
    samples[3] = np.nan
    np.save(copy / "samples_x.npy", samples)
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, rewritten(copy), "root")
    with pytest.raises((VerifyError, MissingDependencyError)) as error:
        bench_device(transport, "root", **QUICK)
    assert "float: answers no finite number on the golden samples" in str(error.value)
    assert "native: the sample holds a NaN; mend the data" in str(error.value)


def test_a_release_that_cannot_be_written_to_is_measured_all_the_same(
    device: LocalTransport, tmp_path: Path
) -> None:
    blocker = tmp_path / "root" / "current" / SELECTED
    blocker.with_name(f"{SELECTED}.new").mkdir()  # no file can be written there, whoever asks
    record = bench_device(device, "root", **QUICK)
    assert record["selection"]["recorded"] is False and not blocker.exists()
    assert os.listdir(blocker.parent)
