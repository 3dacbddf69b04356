"""The device's side of provisioning: take the packages, unpack them apart, prove them, make them current.

Nothing of what runs is touched until the new environment has run one inference in a process of its own.
Cut anywhere, `current` names a whole environment, and calling again finishes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from .files import sha256_file, sync, write_whole
from .install import locked
from .messages import AgentError, Ticker, emit
from .receive import receive
from .runtime import TABLE, read_environment, site_packages

NAME = re.compile(r"env-[0-9a-f]{12}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.(zip|onnx|tflite)")
PROOF_TIMEOUT_S = 300

# Runs in the new environment: one inference, whose answer is known. x + x for x = 0 .. 3.
PROOF = """
import sys
import numpy
engine, model = sys.argv[1:]
x = numpy.arange(4, dtype=numpy.float32).reshape(1, 4)
if engine == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x})[0]
else:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
sys.exit(0 if y.tolist() == (x + x).tolist() else "the runtime computes 1 + 1 wrongly")
"""


def provision(arguments: argparse.Namespace) -> None:
    """Request line in, state out, files in, result out."""
    root, source = Path(arguments.root), cast(BufferedReader, sys.stdin.buffer)
    request = json.loads(source.readline())
    name, files = check_request(request)
    runtime = root / "runtime"
    staging = runtime / f"{name}.incoming"
    runtime.mkdir(parents=True, exist_ok=True)
    with locked(root, request["owner"], request["wait_s"]):
        for other in runtime.glob("env-*.*"):
            if other != staging:
                shutil.rmtree(other)
        whole = read_environment(runtime / name) is not None
        have = {} if whole else present(staging, files)
        space = os.statvfs(runtime)
        current = os.path.basename(os.readlink(runtime / "current")) if is_link(runtime) else None
        state = {"installed": whole, "current": current, "have": have}
        emit("state", **state, free_bytes=space.f_bavail * space.f_frsize)
        signal.alarm(request["stall_s"])
        line = source.readline()
        signal.alarm(0)
        if not line:
            raise AgentError("cut", "the host went away; provision again")
        if not whole:
            receive(staging, json.loads(line)["send"], source, request["stall_s"])
            build(runtime, name, staging, request)
        changed = point(runtime, name)
        removed = prune(runtime, keep=(name, current)) if changed else []
        emit("result", environment=name, changed=changed or not whole, removed=removed)


def check_request(request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The environment's name and its files, refused where one would lie outside."""
    name, files = request["name"], request["files"]
    if not NAME.fullmatch(name) or not all(FILE_NAME.fullmatch(each) for each in files):
        raise AgentError("mismatch", "the request names a file outside the environment; provision again")
    return name, files


def is_link(runtime: Path) -> bool:
    """Whether an environment is current."""
    return (runtime / "current").is_symlink()


def present(staging: Path, files: dict[str, Any]) -> dict[str, Any]:
    """What an earlier, interrupted call left, whole or in part."""
    found = {}
    for name in files:
        path = staging / name
        if path.is_file():
            found[name] = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return found


def build(runtime: Path, name: str, staging: Path, request: dict[str, Any]) -> None:
    """Unpack the files into an environment, prove it, and give it its name."""
    files, fresh = request["files"], runtime / f"{name}.new"
    for each, expected in files.items():
        path = staging / each
        if not path.is_file() or sha256_file(path) != expected["sha256"]:
            shutil.rmtree(staging, ignore_errors=True)
            raise AgentError("mismatch", f"{each} arrived changed; provision again")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        lay_out(fresh)
        unpack(staging, [each for each in files if each.endswith(".zip")], site_packages(fresh))
        for engine, model in request["proofs"].items():
            prove(fresh, engine, staging / model)
        write_whole(fresh / TABLE, json.dumps(request["table"], indent=1, sort_keys=True) + "\n")
        subprocess.run(["sync"], check=False)  # thousands of files: one sync of all is quicker than one each
        shutil.rmtree(runtime / name, ignore_errors=True)
        os.rename(fresh, runtime / name)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync(runtime)
    shutil.rmtree(staging)


def lay_out(folder: Path) -> None:
    """An empty virtual environment of this Python; `venv` itself may not be installed."""
    site_packages(folder).mkdir(parents=True)
    (folder / "bin").mkdir()
    base = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(base)
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    (folder / "pyvenv.cfg").write_text(text)


def unpack(staging: Path, names: list[str], target: Path) -> None:
    """Unpack archives of packages; a member that would leave the folder is refused."""
    archives = [zipfile.ZipFile(staging / name) for name in names]
    say = Ticker("unpack", sum(len(archive.infolist()) for archive in archives))
    done = 0
    for archive in archives:
        for member in archive.infolist():
            if member.filename.startswith("/") or ".." in member.filename.split("/"):
                raise AgentError("mismatch", f"{archive.filename} holds {member.filename!r}; provision again")
            archive.extract(member, target)
            done += 1
            say(done)
        archive.close()


def prove(folder: Path, engine: str, model: Path) -> None:
    """Run one inference with `engine`; AgentError `runtime` says in one line why it does not run here."""
    emit("progress", label=f"proof of {engine}", done=0, total=1)
    path = str(site_packages(folder).resolve())
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROOF, engine, str(model.resolve())]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=PROOF_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise AgentError(
            "runtime", f"{engine} did not answer in {PROOF_TIMEOUT_S} s; the environment was removed"
        ) from None
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or [f"ended with status {answer.returncode}"])[-1]
        raise AgentError(
            "runtime", f"{engine} does not run on this device ({said}); the environment was removed"
        )


def point(runtime: Path, name: str) -> bool:
    """Let `current` name the environment; False when it does already."""
    current, fresh = runtime / "current", runtime / "current.new"
    if current.is_symlink() and os.readlink(current) == name:
        return False
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    os.replace(fresh, current)
    sync(runtime)
    return True


def prune(runtime: Path, keep: tuple[str | None, ...]) -> list[str]:
    """Remove environments but the current one and the one before it, which a service may still run on."""
    removed = []
    for folder in sorted(runtime.glob("env-*")):
        if folder.name not in keep and NAME.fullmatch(folder.name):
            shutil.rmtree(folder)
            removed.append(folder.name)
    return removed
