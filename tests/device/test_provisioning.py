"""Which wheels a device gets, what is sent of them, and each reason why a device can have none."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgekd.device.provisioning import wheels
from edgekd.device.provisioning.choose import Wheel, choose, loads, read_lock, userland
from edgekd.device.provisioning.examine import judge
from edgekd.device.provisioning.provision import (
    check_place,
    check_space,
    environment_name,
    plan_files,
    provision,
    read_facts,
)
from edgekd.device.provisioning.wheels import Packed, packed_wheels, platforms, project_of, thin
from edgekd.device.transport import LocalTransport
from edgekd.errors import (
    BudgetError,
    ConfigError,
    DeviceError,
    EdgekdError,
    MissingDependencyError,
    VerifyError,
)

PI: dict[str, Any] = {
    "python": "3.11.2",
    "implementation": "CPython",
    "executable": "/usr/bin/python3",
    "architecture": "aarch64",
    "word_bits": 64,
    "free_threaded": False,
    "libc": "glibc 2.36",
    "has_libstdcxx": True,
    "packages": {},
    "environment": None,
    "root": "/home/pi/edgekd",
    "free_bytes": 4 << 30,
    "is_writable": True,
    "is_read_only": False,
    "clock_off_s": 0.4,
    "governor": None,
    "temperature_c": None,
    "throttled": None,
    "machine": {
        "board": "Raspberry Pi 4",
        "cpu": None,
        "architecture": "aarch64",
        "cores": 4,
        "os": "Debian",
    },
}


@pytest.mark.parametrize("python", ["3.11.2", "3.12.3", "3.13.5"])
@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_every_wheel_is_of_the_device_and_in_the_lock(python: str, architecture: str) -> None:
    facts = PI | {"python": python, "architecture": architecture}
    choice = choose("pi", facts, (), read_lock())
    assert choice.runtimes == ("onnxruntime", "litert")
    tag = "cp" + "".join(python.split(".")[:2])
    for wheel in choice.wheels:
        assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
        python_tag, _, platform = wheel.file.removesuffix(".whl").split("-")[-3:]
        assert architecture in platform or platform == "any"
        assert python_tag == tag or "abi3" in wheel.file or "py3" in python_tag


def test_a_runtime_can_be_named() -> None:
    choice = choose("pi", PI, ("onnxruntime",), read_lock())
    assert {project_of(wheel.file).split("==")[0] for wheel in choice.wheels} == {
        "flatbuffers",
        "numpy",
        "onnxruntime",
        "packaging",
        "protobuf",
    }
    with pytest.raises(ConfigError, match="runtime 'onnx' does not exist; known: "):
        choose("pi", PI, ("onnx",), read_lock())


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (
            {"python": "3.19.0"},
            MissingDependencyError,
            "has Python 3.19, and any runtime has wheels for 3.11, 3.12",
        ),
        ({"implementation": "PyPy"}, DeviceError, "runs PyPy; wheels are for CPython"),
        ({"free_threaded": True}, DeviceError, "free-threaded Python"),
        ({"libc": "musl"}, DeviceError, "has musl and the runtimes are built for glibc"),
        ({"libc": None}, DeviceError, "an unknown C library"),
        ({"libc": "glibc 2.17"}, MissingDependencyError, "has glibc 2.17, older than the wheels"),
        ({"has_libstdcxx": False}, MissingDependencyError, "sudo apt-get install libstdc"),
        (
            {"architecture": "riscv64"},
            MissingDependencyError,
            "is riscv64, and any runtime has wheels for aarch64",
        ),
        ({"architecture": "armv6l", "word_bits": 32}, DeviceError, "Armv6 processor"),
        ({"architecture": "x86_64", "word_bits": 32}, DeviceError, "32-bit userland on a x86_64 kernel"),
        (
            {"word_bits": 32},
            MissingDependencyError,
            r"32-bit userland \(64-bit kernel, Arm\).*only tflite-runtime 2.14.0 exists.* no numpy",
        ),
        (
            {"architecture": "armv7l", "word_bits": 32, "packages": {"numpy": "2.1.0"}},
            MissingDependencyError,
            "has Python 3.11.2 and numpy 2.1.0",
        ),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_device_that_can_have_none_is_told_why(
    changes: dict[str, Any], kind: type[EdgekdError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        choose("pi", PI | changes, (), read_lock())


def test_32_bit_arm_gets_the_last_runtime_that_was_built_for_it() -> None:
    facts = PI | {"word_bits": 32, "packages": {"numpy": "1.24.2"}}
    assert userland("pi", facts) == "armv7l"
    choice = choose("pi", facts, (), read_lock())
    assert choice.runtimes == ("tflite-runtime",)
    assert [wheel.file for wheel in choice.wheels] == [
        "tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_armv7l.whl"
    ]
    assert "a 64-bit system has newer ones" in choice.note


@pytest.mark.parametrize(
    ("file", "libc", "expected"),
    [
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", "glibc 2.36", True),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", "glibc 2.27", False),
        ("a-1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", "glibc 2.27", True),
        ("a-1-cp310-abi3-manylinux2014_aarch64.whl", "glibc 2.17", True),
        ("a-1-cp310-abi3-manylinux2014_aarch64.whl", "glibc 2.12", False),
        ("a-1-py3-none-any.whl", "glibc 2.5", True),
        ("a-1-cp311-cp311-musllinux_1_2_aarch64.whl", "glibc 2.36", False),
    ],
)
def test_a_wheel_loads_by_its_tags(file: str, libc: str, expected: bool) -> None:
    assert loads(file, libc) is expected


def make_wheel(path: Path, *, version: str = "1.0") -> Path:
    file = path / f"little-{version}-py3-none-any.whl"
    info = f"little-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("little/__init__.py", "ANSWER = 42\n")
        archive.writestr("little/tests/test_it.py", "assert False\n")
        archive.writestr("little/__init__.pyi", "ANSWER: int\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: little\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


def test_what_a_device_never_runs_is_left_out_and_the_rest_is_the_same_each_time(tmp_path: Path) -> None:
    data = make_wheel(tmp_path).read_bytes()
    thinned = thin(data)
    assert thinned == thin(data)
    with zipfile.ZipFile(io.BytesIO(thinned)) as archive:
        assert archive.namelist() == [
            "little-1.0.dist-info/METADATA",
            "little-1.0.dist-info/WHEEL",
            "little/__init__.py",
        ]


def test_platform_tags_and_names_come_from_the_file_names() -> None:
    files = ["a-1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", "b_c-2.0-py3-none-any.whl"]
    assert platforms(files) == ["manylinux_2_27_aarch64", "manylinux_2_28_aarch64"]
    assert platforms(files[1:]) == ["any"]
    assert project_of(files[1]) == "b_c==2.0"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes as its only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_wheels_are_fetched_once_and_held_to_the_lock(index: Path, tmp_path: Path) -> None:
    file = make_wheel(index)
    wheel = Wheel(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    (first,) = packed_wheels([wheel], "aarch64", "3.11", tmp_path / "cache")
    file.unlink()
    (second,) = packed_wheels([wheel], "aarch64", "3.11", tmp_path / "cache")
    assert first == second and first.name == "little-1.0-py3-none-any.zip"
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.unpacked_bytes == 3 * 2 * 4096


def test_another_file_than_the_locks_is_refused(index: Path, tmp_path: Path) -> None:
    file = make_wheel(index)
    with pytest.raises(VerifyError, match="other files than the lock"):
        packed_wheels([Wheel(file.name, "0" * 64)], "aarch64", "3.11", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/*.zip"))


def test_an_index_without_the_wheel_is_one_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"pip could not fetch the wheels for aarch64: .*; check its index"):
        packed_wheels([Wheel("none-1.0-py3-none-any.whl", "0" * 64)], "aarch64", "3.11", tmp_path / "cache")


def packed(tmp_path: Path, data: bytes) -> Packed:
    path = tmp_path / "little-1.0-py3-none-any.zip"
    path.write_bytes(data)
    return Packed(path.name, path, hashlib.sha256(data).hexdigest(), len(data), 8192)


def test_space_is_needed_before_the_first_byte_is_sent(tmp_path: Path) -> None:
    wheel = packed(tmp_path, bytes(5000))
    plan = [{"path": wheel.name, "offset": 0, "size_bytes": 5000}]
    need_bytes = 8192 + 8192 + (1 << 18)
    check_space("pi", "edgekd", [wheel], plan, need_bytes)
    with pytest.raises(
        BudgetError, match=f"{need_bytes - 1} bytes are free at edgekd .* needs {need_bytes} "
    ):
        check_space("pi", "edgekd", [wheel], plan, need_bytes - 1)


def test_only_what_did_not_arrive_whole_is_sent_again() -> None:
    files = {name: {"sha256": name * 2, "size_bytes": 7} for name in ("a", "b")}
    assert [part["path"] for part in plan_files(files, {"a": {"sha256": "aa", "size_bytes": 7}})] == ["b"]
    assert len(plan_files(files, {})) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"is_read_only": True}, "mounted read-only"), ({"is_writable": False}, "cannot be written")],
)
def test_a_root_that_cannot_be_written_is_refused_before_anything_is_fetched(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DeviceError, match=words):
        check_place("pi", PI | changes)


def test_the_environments_name_follows_wheels_and_python() -> None:
    choice = choose("pi", PI, (), read_lock())
    assert environment_name(choice, PI) == environment_name(choice, PI | {"python": "3.11.9"})
    assert environment_name(choice, PI) != environment_name(choice, PI | {"python": "3.13.1"})


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({}, "clock", "ok"),
        ({"clock_off_s": 9e5}, "clock", "bad"),
        ({"is_read_only": True}, "root", "bad"),
        ({"is_writable": False}, "root", "bad"),
        ({"free_bytes": 1 << 20}, "space", "look"),
        ({"throttled": []}, "throttling", "ok"),
        ({"throttled": ["throttled now"]}, "throttling", "bad"),
        ({"throttled": ["was throttled since its start"]}, "throttling", "look"),
        ({"governor": "performance"}, "governor", "ok"),
        ({"governor": "ondemand"}, "governor", "look"),
        ({"temperature_c": 85.0}, "temperature", "bad"),
        ({}, "runtime", "bad"),
        ({"packages": {"onnxruntime": "1.32.0"}}, "runtime", "ok"),
        ({"packages": {"onnxruntime": "1.32.0"}, "libc": "musl"}, "runtime", "look"),
    ],
)
def test_the_doctors_table(changes: dict[str, Any], check: str, state: str) -> None:
    rows = {row["check"]: row for row in judge("pi", PI | changes)}
    assert rows[check]["state"] == state
    assert bool(rows[check]["mend"]) == (state != "ok" and check != "temperature")


@pytest.fixture
def little(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalTransport:
    """This machine as the device, and a lock whose runtime is one little wheel without a proof."""
    file = make_wheel(index)
    lock = wheels_lock(file)
    monkeypatch.setattr("edgekd.device.provisioning.provision.read_lock", lambda: lock)
    monkeypatch.setattr("edgekd.device.provisioning.provision.proofs_of", lambda choice: {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return LocalTransport(tmp_path / "home", sys.executable)


def test_a_second_call_changes_nothing_and_says_so(little: LocalTransport, tmp_path: Path) -> None:
    first = provision(little, "edgekd", runtimes=("little",))
    runtime = tmp_path / "home/edgekd/runtime"
    packages = next((runtime / "current/lib").glob("python*")) / "site-packages"
    assert not first.unchanged and first.packages == ("little==1.0",)
    assert (packages / "little/__init__.py").read_text() == "ANSWER = 42\n"
    before = {path: path.lstat().st_mtime_ns for path in runtime.rglob("*")}
    second = provision(little, "edgekd", runtimes=("little",))
    assert second.unchanged and second.environment == first.environment and second.uploaded_bytes == 0
    assert before == {path: path.lstat().st_mtime_ns for path in runtime.rglob("*")}
    facts = read_facts(little, "edgekd")
    assert facts["environment"]["name"] == first.environment


def test_an_environment_replaces_the_one_before_whole(
    little: LocalTransport, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = provision(little, "edgekd", runtimes=("little",))
    file = make_wheel(index, version="2.0")
    lock = wheels_lock(file)
    monkeypatch.setattr("edgekd.device.provisioning.provision.read_lock", lambda: lock)
    second = provision(little, "edgekd", runtimes=("little",))
    runtime = tmp_path / "home/edgekd/runtime"
    assert (runtime / "current").readlink() == Path(second.environment)
    assert {path.name for path in runtime.glob("env-*")} == {first.environment, second.environment}


def wheels_lock(file: Path) -> dict[str, Any]:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    rows = [
        {"runtime": "little", "python": python, "architecture": architecture, "wheels": [file.name]}
        for architecture in ("x86_64", "aarch64")
    ]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"schema": 1, "environments": rows, "wheels": {file.name: digest}}


def test_a_runtime_that_does_not_run_leaves_the_old_environment(
    little: LocalTransport, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = provision(little, "edgekd", runtimes=("little",))
    lock = wheels_lock(make_wheel(index, version="3.0"))
    monkeypatch.setattr("edgekd.device.provisioning.provision.read_lock", lambda: lock)
    broken = {"onnxruntime": ("proof.onnx", b"no model")}
    monkeypatch.setattr("edgekd.device.provisioning.provision.proofs_of", lambda choice: broken)
    monkeypatch.setattr("edgekd.device.provisioning.provision.PROOFS", broken)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime does not run on this device \(.*removed"):
        provision(little, "edgekd", runtimes=("little",))
    runtime = tmp_path / "home/edgekd/runtime"
    assert (runtime / "current").readlink() == Path(first.environment)
    assert not [path for path in runtime.glob("env-*") if path.suffix == ".new"]


def test_the_cache_lies_outside_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert wheels.default_cache() == tmp_path / "edgekd" / "wheels"
