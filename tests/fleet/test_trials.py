"""Trials of real models: each bad one is found out by name, and the device is back on the old one by itself.

The models run in ONNX Runtime, in the shipped sandbox; what a signed bundle's native code might try is tried
in the same sandbox.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekd.fleet import formats, pair
from edgekd.fleet.agent import config, machine, seccomp, trial
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.health import FAILURES, Measured, judge
from edgekd.fleet.agent.trial import SandboxedTrial, Told, verdict_of
from edgekd.fleet.formats import Health
from edgekd.fleet.shipping import agent_archive
from tests.device.support import conv_net, make_bundle
from tests.fleet import native_models
from tests.fleet.hosts import TestDevice, memory_folder, serving
from tests.fleet.made import MODEL, Fleet, make_release

ROOT = Path(__file__).resolve().parents[2]
HEALTH = Health(latency_runs=40, soak_inferences=300, latency_ratio_p10=2.0, latency_ratio_median=2.0)
ME = Config("pi-1", "pi-sim", (MODEL,))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A release's files: a small int8 network, its golden outputs."""
    folder = make_bundle(tmp_path_factory.mktemp("bundle"), 1)
    files = {f"bundle/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return files | {"bench.json": b"{}", "bom.cdx.json": b"{}"}


def with_model(good: dict[str, bytes], model: bytes) -> dict[str, bytes]:
    """The same release with another model file, and the old golden outputs."""
    return good | {"bundle/int8.onnx": model}


def changed(model: bytes, change: Callable[[Any], None]) -> bytes:
    """An ONNX model after `change` of its graph."""
    import onnx

    loaded = onnx.load_from_string(model)
    change(loaded.graph)
    return loaded.SerializeToString()


def wrong(good: dict[str, bytes]) -> bytes:
    return conv_net(99)


def slow(good: dict[str, bytes]) -> bytes:
    """The right answers, and a large product beside them whose result is multiplied by zero and added."""
    from onnx import helper, numpy_helper

    def change(graph: Any) -> None:
        import numpy as np

        side = np.full((100, 100), 1e-3, np.float32)
        graph.initializer.extend(
            [numpy_helper.from_array(side, "side"), numpy_helper.from_array(np.float32(0), "nothing")]
        )
        out, (given,) = graph.output[0].name, graph.input
        for node in graph.node:
            node.output[:] = ["answer" if name == out else name for name in node.output]
        graph.node.extend(
            [
                helper.make_node("ReduceSum", [given.name], ["sum"], keepdims=0),
                helper.make_node("Mul", ["side", "sum"], ["s0"]),
                *(helper.make_node("MatMul", [f"s{i}", "side"], [f"s{i + 1}"]) for i in range(3)),
                helper.make_node("ReduceMax", ["s3"], ["most"], keepdims=0),
                helper.make_node("Mul", ["most", "nothing"], ["zero"]),
                helper.make_node("Add", ["answer", "zero"], [out]),
            ]
        )

    return changed(good["bundle/int8.onnx"], change)


def nan(good: dict[str, bytes]) -> bytes:
    from onnx import helper, numpy_helper

    def change(graph: Any) -> None:
        import numpy as np

        graph.initializer.append(numpy_helper.from_array(np.float32("nan"), "nan"))
        out = graph.output[0].name
        for node in graph.node:
            node.output[:] = ["answer" if name == out else name for name in node.output]
        graph.node.append(helper.make_node("Add", ["answer", "nan"], [out]))

    return changed(good["bundle/int8.onnx"], change)


def wrong_shape(good: dict[str, bytes]) -> bytes:
    from onnx import helper

    def change(graph: Any) -> None:
        out = graph.output[0].name
        for node in graph.node:
            node.output[:] = ["answer" if name == out else name for name in node.output]
        graph.node.append(helper.make_node("Concat", ["answer", "answer"], [out], axis=1))
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 20

    return changed(good["bundle/int8.onnx"], change)


def broken(good: dict[str, bytes]) -> bytes:
    return good["bundle/int8.onnx"][:-40]


BAD = (
    (wrong, "wrong-answers"),
    (slow, "too-slow"),
    (nan, "not-finite"),
    (wrong_shape, "wrong-shape"),
    (broken, "does-not-load"),
)


@pytest.mark.parametrize(("make", "reason"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_a_bad_model_never_serves(
    good: dict[str, bytes], make: Callable[[dict[str, bytes]], bytes], reason: str
) -> None:
    with memory_folder() as folder, serving(folder / "host") as host:
        fleet = Fleet(folder / "host")
        fleet.release(1, good, health=HEALTH)
        fleet.choose(1)
        device = TestDevice(folder / "device", fleet)
        device.visit(host.url)
        assert device.release == 1
        fleet.release(2, with_model(good, make(good)), health=HEALTH)
        fleet.choose(2)
        device.clock.ahead_s = 700
        judged = SandboxedTrial(device.root / "models" / MODEL, MODEL, ME)
        device._trial = judged  # type: ignore[method-assign]
        found = device.visit(host.url)
        assert found.outcome == {MODEL: "reverted"} and device.release == 1, judged.last
        assert judged.last["verdict"] == reason and judged.last["seconds"] < 60
        assert device.visit(host.url).outcome == {MODEL: "unchanged"}


@pytest.mark.needs("ziglang")
@pytest.mark.parametrize("mood", native_models.MOODS)
def test_native_code_is_found_out_by_what_a_release_is_signed_with(
    native: dict[str, Mapping[str, bytes]], mood: str
) -> None:
    """By the default limits; what serves goes on serving, within a minute and without a network."""
    with memory_folder() as folder, serving(folder / "host") as host:
        fleet = Fleet(folder / "host")
        fleet.release(1, native["good"] | {"bom.cdx.json": b"{ }"})
        fleet.choose(1)
        device = TestDevice(folder / "device", fleet)
        device.visit(host.url)
        fleet.release(2, native[mood])
        fleet.choose(2)
        device.clock.ahead_s = 700
        judged = SandboxedTrial(device.root / "models" / MODEL, MODEL, ME)
        device._trial = judged  # type: ignore[method-assign]
        outcome = device.visit(host.url).outcome[MODEL]
        assert judged.last["verdict"] == (native_models.MOODS[mood] or "passed"), judged.last
        assert judged.last["seconds"] < 60
        assert (outcome, device.release) == (("reverted", 1) if mood != "good" else ("confirmed", 2))


def test_a_good_model_passes_its_trial(good: dict[str, bytes], tmp_path: Path) -> None:
    judged = try_slot(tmp_path, good)
    assert judged.last["verdict"] == "passed", judged.last
    measured = judged.last["measured"]
    assert measured["inferences"] == 300 and measured["top1"] == 1 and measured["median_us"] > 0
    assert {"memory", "seccomp"} <= set(judged.last["walls"])


def try_slot(folder: Path, files: dict[str, bytes], **other: Any) -> SandboxedTrial:
    """The trial of a release that lies in a slot; `other` replaces what Config says."""
    release = make_release(1, files, health=HEALTH)
    slot = folder / "slots" / "new"
    for path, data in files.items():
        (slot / path).parent.mkdir(parents=True, exist_ok=True)
        (slot / path).write_bytes(data)
    (slot / "release.json").write_bytes(formats.dump_bytes(release))
    judged = SandboxedTrial(folder, MODEL, dataclasses.replace(ME, **other))
    judged("new", None)
    return judged


def test_a_file_that_was_changed_behind_the_check_is_not_loaded(
    good: dict[str, bytes], tmp_path: Path
) -> None:
    try_slot(tmp_path, good)
    model = tmp_path / "slots" / "new" / "bundle" / "int8.onnx"
    model.write_bytes(conv_net(5))
    judged = SandboxedTrial(tmp_path, MODEL, ME)
    assert judged("new", None) == machine.TrialFailed("does-not-load")


def test_without_its_runtime_a_device_convicts_nobody(good: dict[str, bytes], tmp_path: Path) -> None:
    judged = try_slot(tmp_path, good, python="/bin/false")
    assert judged.last["verdict"] == trial.NO_RUNTIME
    assert isinstance(judged("new", None), machine.TrialDisturbed)


# ---- what native code might try -------------------------------------------------------------------------

TRIES = {
    "a socket": "import socket; socket.socket()",
    "a fork": "os.fork()",
    "forks without end": "while True: os.fork()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a write outside": "open(sys.argv[1], 'w')",
    "a removal": "os.unlink(sys.argv[1])",
    "a signal to others": "os.kill(os.getppid(), 9)",
    "another namespace": "import ctypes; ctypes.CDLL(None).unshare(0x10000000)",
    "a trace": "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)",
}


def in_sandbox(code: str, *arguments: str, memory_bytes: int = 1 << 28, user: str = "") -> int:
    """Exit status of `code` run behind all walls."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from edgekd.fleet.agent import sandbox;"
        f"sandbox.enter({user!r}, 20, 1 << 20, 64); sandbox.close_door({memory_bytes})\n{code}"
    )
    command = [sys.executable, "-I", "-B", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("name", TRIES)
def test_what_a_model_must_not_do_ends_its_process(name: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("untouched")
    assert in_sandbox(TRIES[name], str(mine)) == 128 + 31  # SIGSYS
    assert mine.read_text() == "untouched"
    told = Told(walls=["seccomp"], signal=31)
    assert verdict_of(told, HEALTH, False) == machine.TrialFailed("forbidden-call")


def test_memory_beside_the_runtimes_is_limited() -> None:
    assert in_sandbox("bytearray(1 << 30)") == 1  # MemoryError
    assert in_sandbox("bytearray(1 << 20)") == 0


def test_reading_and_threads_stay_allowed() -> None:
    thread = "import threading; t = threading.Thread(target=len, args=('x',)); t.start(); t.join()"
    assert in_sandbox(thread + "; open('/proc/self/stat').read()") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_as_root_a_trial_runs_as_another_user() -> None:
    assert in_sandbox("sys.exit(os.geteuid() == 0 or 0 in os.getgroups())", user="nobody") == 0


@pytest.mark.needs("ziglang")
@pytest.mark.parametrize("name", sorted(seccomp.TABLES))
def test_the_numbers_of_calls_are_the_kernels(name: str) -> None:
    import re

    import ziglang

    include = Path(ziglang.__file__).parent / "lib" / "libc" / "include"
    files = {
        "x86_64": ["x86-linux-any/asm/unistd_64.h"],
        "aarch64": ["any-linux-any/asm-generic/unistd.h", "aarch64-linux-any/asm/unistd_64.h"],
        "armv7l": ["arm-linux-any/asm/unistd-eabi.h"],
    }[name]
    text = "".join((include / file).read_text() for file in files)
    rows = re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+\(?(?:__NR_SYSCALL_BASE\s*\+\s*)?(\d+)", text)
    known = {call: int(number) for call, number in rows}
    assert len(known) > 300
    assert {call: known.get(call) for call in seccomp.numbers(name)} == seccomp.numbers(name)
    assert not [call for call in seccomp.NAMES if call in known and call not in seccomp.numbers(name)]
    assert seccomp.TABLES[name][2] == tuple(known.get(c, -1) for c in ("clone", "clone3", "open", "openat"))


# ---- the verdict ----------------------------------------------------------------------------------------

FINE = Measured(top1=1.0, steps=0.0, ratio_p10=1.0, ratio_median=1.0, peak_rss_bytes=10, growth_bytes=0)
LIMITS = Health(max_peak_rss_bytes=1 << 20, max_rss_growth_bytes=1 << 16, max_latency_us=100.0)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, machine.TrialPassed()),
        ({"shape_is_right": False}, machine.TrialFailed("wrong-shape")),
        ({"finite": False}, machine.TrialFailed("not-finite")),
        ({"steps": None}, machine.TrialFailed("not-finite")),
        ({"steps": 2.01}, machine.TrialFailed("wrong-answers")),
        ({"top1": 0.99}, machine.TrialFailed("wrong-answers")),
        ({"peak_rss_bytes": 1 << 21}, machine.TrialFailed("memory")),
        ({"growth_bytes": 1 << 17}, machine.TrialFailed("memory")),
        ({"ratio_p10": 1.26}, machine.TrialFailed("too-slow")),
        ({"ratio_median": 1.26}, machine.TrialFailed("too-slow")),
        ({"ratio_p10": None, "ratio_median": None, "median_us": 101.0}, machine.TrialFailed("too-slow")),
        ({"ratio_p10": None, "ratio_median": None, "median_us": 99.0}, machine.TrialPassed()),
        ({"ratio_p10": 9.0, "throttled": True}, machine.TrialDisturbed("throttled")),
        ({"steps": 9.0, "throttled": True}, machine.TrialFailed("wrong-answers")),
    ],
)
def test_the_verdict(changes: dict[str, Any], verdict: machine.Event) -> None:
    found = judge(dataclasses.replace(FINE, **changes), LIMITS)
    assert found == verdict and getattr(found, "reason", "loop") in {*FAILURES, "throttled"}


DONE = {"top1": 1.0, "steps": 0.0}


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (Told(["memory"], DONE, done=True), machine.TrialPassed()),
        (Told(["memory"], DONE), machine.TrialFailed("crashed")),  # it called exit()
        (Told(["memory"], DONE, signal=11), machine.TrialFailed("crashed")),
        (Told(["memory"], {}, signal=9), machine.TrialDisturbed("killed")),
        (Told(["memory"], {}, signal=24), machine.TrialFailed("timeout")),
        (Told(["memory"], DONE, late=True), machine.TrialFailed("timeout")),
        (Told(["memory"], {}, failure="memory"), machine.TrialFailed("memory")),
        (Told([], {}), machine.TrialDisturbed(trial.NO_RUNTIME)),
        (Told(["memory"], {"lies": 1}, done=True), machine.TrialFailed("crashed")),
    ],
)
def test_how_a_trial_ended_is_evidence(told: Told, verdict: machine.Event) -> None:
    assert verdict_of(told, HEALTH, False) == verdict


# ---- what the agent itself takes ------------------------------------------------------------------------

# The agent needs Python alone; where `cryptography` is installed, it verifies with that, and takes more.
WITHOUT_SITE, WITH_CRYPTOGRAPHY = (("-S",), 40_000_000), ((), 44_000_000)


@pytest.mark.needs("ziglang", "ssh")
@pytest.mark.parametrize(
    ("options", "most_bytes"), [WITHOUT_SITE, WITH_CRYPTOGRAPHY], ids=["bare Python", "with cryptography"]
)
def test_a_whole_installation_takes_less_than_40_mb(
    native: dict[str, Mapping[str, bytes]], options: tuple[str, ...], most_bytes: int
) -> None:
    """The shipped file over HTTP: refresh, fetch, trial against the old one, confirm, signed report. The
    trial's own process has limits of its own; behind it nothing stays."""
    with memory_folder() as folder, serving(folder / "host") as host:
        fleet = Fleet(folder / "host")
        made = fleet.pair()
        pair.set_fleet_policy(made, formats.FleetPolicy(formats.SCHEMA, "test-fleet", min_interval_s=0))
        made.releases.refresh()
        fleet.publish(made)
        device = TestDevice(folder / "device", fleet)
        (folder / "agent.pyz").write_bytes(agent_archive())
        settings = config.dump(Config("pi-1", "pi-sim", (MODEL,), clock="system", python=sys.executable))
        (device.root / config.FILE).write_text(settings)
        agent = [sys.executable, "-I", *options, str(folder / "agent.pyz")]
        where = ["--root", str(device.root)]
        subprocess.run([*agent, "setup", *where], check=True, capture_output=True)
        for number in (1, 2):
            fleet.release(number, native["good"] | {"bom.cdx.json": b" " * number})
            fleet.choose(number)
            done = subprocess.run(
                [*agent, "poll", "--url", host.url, *where], capture_output=True, check=False
            )
            report = json.loads(done.stdout)
            assert report["models"][MODEL]["release"] == number, report
            assert 20_000_000 < report["peak_rss_bytes"] <= most_bytes
        command = str(device.root).encode()
        alive = [p for p in Path("/proc").glob("[0-9]*/cmdline") if command in _read(p)]
        assert alive == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
