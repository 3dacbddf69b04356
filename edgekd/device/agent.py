"""The part of edgekd that runs on a Linux device: one file, Python >= 3.11, the standard library alone.

The host sends this text over standard input (`python3 -c BOOT deploy ...`), so it needs nothing installed;
a copy lies in each release to be run by hand: `python3 agent.py bench --bundle DIR`. It installs a release
whole or not at all, and measures one. Each answer is one line, `@@edgekd-agent-1 {json} @@`, so that text
printed by a login shell cannot disturb it. docs/formats/linux.md has every message and file.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

SCHEMA = 1
MARK = "@@edgekd-agent-1 "
CHUNK_BYTES = 1 << 16
RELEASE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}-[0-9a-f]{12}")
FILE_NAME = re.compile(r"(?:bundle/)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class AgentError(Exception):
    """A refusal (kind, message) that the host turns into its own error; kinds: docs/formats/linux.md."""


def emit(message_type: str, **fields: Any) -> None:
    """Write one message. The newline in front parts it from what a shell printed without one."""
    data = f"\n{MARK}{json.dumps({'type': message_type, **fields})} @@\n".encode()
    while data:
        data = data[os.write(1, data) :]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """fsync a file or a directory: after this a power cut cannot lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text`: the old or the new content survives, never half."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object of our schema from a file; AgentError `mismatch` when it is none."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise damaged(path) from None
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        raise AgentError("mismatch", f"{path} is not of schema {SCHEMA}; deploy again with one edgekd")
    return table


def damaged(path: Path) -> AgentError:
    """The refusal to use a release that is not what was sent."""
    return AgentError("mismatch", f"{path} is missing or not what was sent; deploy again to mend it")


def verify_files(directory: Path, files: dict[str, Any]) -> None:
    """Hold each file of `directory` to its sha256; AgentError `mismatch` names the first that differs."""
    for name, expected in files.items():
        path = directory / name
        if not path.is_file() or sha256_file(path) != expected["sha256"]:
            raise damaged(path)


@contextlib.contextmanager
def locked(root: Path, owner: str, wait_s: float) -> Iterator[None]:
    """Hold the directory's lock. It lives with this process: a cut link, kill or reboot frees it."""
    end = time.monotonic() + wait_s
    with (root / "lock").open("a+", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    stream.seek(0)
                    text = f"{root} is being deployed to by {stream.read() or 'another'}; wait for it"
                    raise AgentError("locked", text) from None
                time.sleep(0.05)
        stream.truncate(0)
        stream.write(f"{owner} since {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
        stream.flush()
        yield
        stream.truncate(0)


def check_request(release: str, manifest_text: str) -> dict[str, Any]:
    """The manifest's file table, after its digest, names and types were held to the release's name."""
    digest = hashlib.sha256(manifest_text.encode()).hexdigest()
    if not RELEASE_NAME.fullmatch(release) or not release.endswith(digest[:12]):
        raise AgentError("mismatch", f"the manifest does not belong to release {release!r}; deploy again")
    files: dict[str, Any] = json.loads(manifest_text)["files"]
    if bad := [name for name in files if not FILE_NAME.fullmatch(name)]:
        raise AgentError("mismatch", f"the manifest names a file {bad[0]!r} outside the release")
    return files


def survey(root: Path, release: str, files: dict[str, Any]) -> dict[str, Any]:
    """What of `files` is here: whole in the release, or whole or in part in incoming/."""
    final, staging = root / "releases" / release, root / "incoming" / release
    have: dict[str, Any] = {}
    for name, expected in files.items():
        for path in (final / name, staging / name):
            if not path.is_file():
                continue
            size_bytes, digest = path.stat().st_size, sha256_file(path)
            whole = digest == expected["sha256"]
            if whole or (path.is_relative_to(staging) and size_bytes < expected["size_bytes"]):
                have[name] = {"size_bytes": size_bytes, "sha256": digest}
                break
    return {"installed": final.is_dir(), "have": have, **describe_root(root)}


def describe_root(root: Path) -> dict[str, Any]:
    """The directory in words: current release, all releases, free space."""
    link, releases, space = root / "current", root / "releases", os.statvfs(root)
    current = os.path.basename(os.readlink(link)) if link.is_symlink() else None
    names = sorted(p.name for p in releases.iterdir()) if releases.is_dir() else []
    return {"current": current, "releases": names, "free_bytes": space.f_bavail * space.f_frsize}


def receive(staging: Path, plan: list[dict[str, Any]], source: BufferedReader, stall_s: int) -> None:
    """Append the announced bytes to the files in incoming/; a full disk leaves nothing behind."""
    try:
        for part in plan:
            path = staging / part["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if not part["offset"]:
                path.unlink(missing_ok=True)
            with path.open("r+b" if part["offset"] else "wb") as stream:
                stream.truncate(part["offset"])
                stream.seek(part["offset"])
                copy_exactly(source, stream, part["size_bytes"], stall_s)
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(staging, ignore_errors=True)
        raise


def copy_exactly(source: BufferedReader, stream: BinaryIO, size_bytes: int, stall_s: int) -> None:
    """Move `size_bytes` from the link into a file; what came before a cut is kept."""
    while size_bytes:
        signal.alarm(stall_s)  # a link silent for this long ends the process, and so frees the lock
        chunk = source.read1(min(size_bytes, CHUNK_BYTES))
        signal.alarm(0)
        if not chunk:
            raise AgentError("cut", "the link ended in the middle of a file; deploy again")
        stream.write(chunk)
        stream.flush()
        size_bytes -= len(chunk)


def install(root: Path, release: str, files: dict[str, Any], manifest_text: str, keep: int) -> list[str]:
    """Turn what lies in incoming/ into the current release; returns the old releases that were removed.

    Order: check, fsync, rename the directory, rename the symlink. Cut anywhere, `current` names a whole
    release, and calling again finishes. A release that is there but damaged is mended file by file.
    """
    final, staging = root / "releases" / release, root / "incoming" / release
    manifest = final / "release.json"
    if staging.is_dir() or not manifest.is_file() or sha256_file(manifest)[:12] != release[-12:]:
        place(final, staging, files, manifest_text)
    verify_files(final, files)
    activate(root, release)
    return prune(root, release, keep)


def place(final: Path, staging: Path, files: dict[str, Any], manifest_text: str) -> None:
    """Move the checked files from incoming/ into the release."""
    staging.mkdir(exist_ok=True)
    staged = {n: e for n, e in files.items() if (staging / n).is_file()}
    try:
        verify_files(staging, staged)
    except AgentError:
        shutil.rmtree(staging)
        raise
    write_whole(staging / "release.json", manifest_text)
    names = [*staged, "release.json"]
    for name in names:
        os.chmod(staging / name, 0o444)
        sync(staging / name)
    if final.is_dir():
        for name in names:
            (final / name).parent.mkdir(exist_ok=True)
            os.replace(staging / name, final / name)
        shutil.rmtree(staging)
    else:
        sync(staging / "bundle")
        os.rename(staging, final)
    for directory in (final / "bundle", final, final.parent):
        sync(directory)


def activate(root: Path, release: str) -> None:
    """Let `current` name the release: a new symlink renamed over the old one."""
    current, fresh = root / "current", root / "current.new"
    target = f"releases/{release}"
    if current.is_symlink() and os.readlink(current) == target:
        return
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, current)
    sync(root)


def prune(root: Path, release: str, keep: int) -> list[str]:
    """Remember the order of releases in history.json and remove all but `keep` before the current one."""
    path, releases = root / "history.json", root / "releases"
    present = [p for p in releases.iterdir() if RELEASE_NAME.fullmatch(p.name)]
    names = [p.name for p in sorted(present, key=lambda p: p.stat().st_mtime)]
    try:
        known = [str(n) for n in json.loads(path.read_text(encoding="utf-8"))["releases"]]
    except (OSError, ValueError, KeyError, TypeError):
        known = []  # lost or never written: the order of installation is good enough
    order = [n for n in names if n not in known] + [n for n in known if n in names]
    order = [n for n in order if n != release]
    removed, kept = (order[:-keep], order[-keep:]) if keep else (order, [])
    text = json.dumps({"schema": SCHEMA, "releases": [*kept, release]}) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)
    for name in removed:
        shutil.rmtree(releases / name)
    return removed


def deploy(arguments: argparse.Namespace) -> None:
    """The device's side of a deploy: request line in, state out, plan and bytes in, result out."""
    root, source = Path(arguments.root), cast(BufferedReader, sys.stdin.buffer)
    request = json.loads(source.readline())
    release, manifest_text, stall_s = request["release"], request["manifest"], int(request["stall_s"])
    files = check_request(release, manifest_text)
    for directory in (root, root / "releases", root / "incoming"):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(root, request["owner"], request["wait_s"]):
        for other in (root / "incoming").iterdir():
            if other.name != release:
                shutil.rmtree(other)
        emit("state", **survey(root, release, files))
        signal.alarm(stall_s)
        line = source.readline()
        signal.alarm(0)
        if not line:
            raise AgentError("cut", "the deployer went away; deploy again")
        receive(root / "incoming" / release, json.loads(line)["send"], source, stall_s)
        removed = install(root, release, files, manifest_text, request["keep"])
        emit("result", release=release, removed=removed, **describe_root(root))


def memory_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process; None where /proc does not tell."""
    status_file = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status_file.read_text()) if status_file.exists() else None
    return int(found[1]) * 1024 if found else None


def import_runtime() -> tuple[Any, Any]:
    """numpy and onnxruntime; AgentError `runtime` with the line that installs them."""
    try:
        return importlib.import_module("numpy"), importlib.import_module("onnxruntime")
    except ImportError as error:
        reason, hint = str(error).strip().split("\n")[0], f"{sys.executable} -m pip install onnxruntime"
        raise AgentError("runtime", f"the runtime does not load ({reason}); install it: {hint}") from None


class Ticker:
    """Sends a progress message at most once a second."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.said_s = label, total, time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self.said_s > 1:
            self.said_s = time.monotonic()
            emit("progress", label=self.label, done=done, total=self.total)


def time_runs(call: Any, warmup: int, runs: int, max_s: float) -> list[int]:
    """Nanoseconds of up to `runs` calls after `warmup`; stops after `max_s`, but never before 10 calls."""
    begin, say = time.monotonic(), Ticker("bench", runs)
    for _ in range(warmup):
        call()
        if time.monotonic() - begin > max_s / 2:
            break
    times: list[int] = []
    while len(times) < runs and (len(times) < 10 or time.monotonic() - begin < max_s):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
        say(len(times))
    return times


def percentiles(times_ns: list[int]) -> dict[str, Any]:
    """p50, p90, p99 (nearest rank) and mean in microseconds."""
    ordered, count = sorted(times_ns), len(times_ns)
    at = {f"p{p}": ordered[max(0, -(-p * count // 100) - 1)] / 1000 for p in (50, 90, 99)}
    return {**at, "mean": sum(ordered) / count / 1000, "n": count}


def predict(numpy: Any, session: Any, samples: Any, count: int) -> Any:
    """Outputs [count, ...] of the first samples, one at a time, as the latency was measured."""
    name, outputs, say = session.get_inputs()[0].name, [], Ticker("accuracy", count)
    for index in range(count):
        outputs.append(session.run(None, {name: numpy.ascontiguousarray(samples[index : index + 1])})[0])
        say(index + 1)
    return numpy.concatenate(outputs)


def compare_golden(numpy: Any, outputs: Any, golden: Any, rule: dict[str, Any]) -> dict[str, Any]:
    """Differences from the host's outputs in quantization steps, held to the bundle's tolerance."""
    flat, expected = outputs.reshape(len(golden), -1), golden.reshape(len(golden), -1)
    steps = numpy.abs(flat.astype("float64") - expected.astype("float64")) / rule["step"]
    finite = bool(numpy.isfinite(steps).all())
    worst = float(steps.max()) if finite else None
    within = worst is not None and worst <= rule["tolerance_steps"] + 1e-6
    agreement = float((flat.argmax(1) == expected.argmax(1)).mean())
    told = {"samples": len(golden), "step": rule["step"], "tolerance_steps": rule["tolerance_steps"]}
    return {**told, "max_difference_steps": worst, "within_tolerance": within, "agreement": agreement}


def score(numpy: Any, session: Any, directory: Path, bundle: Any, variant: str, limit: int) -> dict[str, Any]:
    """Golden check and accuracy on the bundle's samples (the first `limit`, 0: all)."""
    files, rule = bundle["samples"], bundle["variants"][variant]["golden"]
    samples = numpy.load(directory / files["x"], mmap_mode="r")
    golden = numpy.load(directory / rule["file"])
    count = max(len(golden), min(limit or len(samples), len(samples)))
    outputs = predict(numpy, session, samples, count)
    accuracy = None
    if files["y"]:
        truth = numpy.load(directory / files["y"])[:count]
        accuracy = float((outputs.reshape(count, -1).argmax(1) == truth).mean())
    golden_result = compare_golden(numpy, outputs[: len(golden)], golden, rule)
    return {"samples": count, "accuracy": accuracy, "golden": golden_result}


def machine() -> dict[str, Any]:
    """What this device is; None where it does not tell."""
    cpu = board = system = None
    with contextlib.suppress(OSError):
        found = re.search(
            r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M
        )
        cpu = found[1].strip() if found else None
    with contextlib.suppress(OSError):
        board = Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME")
    facts = {"architecture": platform.machine(), "cpu": cpu, "board": board, "os": system}
    return {**facts, "cores": os.cpu_count(), "kernel": platform.release()}


def bench(arguments: argparse.Namespace) -> None:
    """Verify the release, load the model, and measure it; emits one result."""
    directory, bundle, release = find_bundle(arguments)
    idle_bytes = memory_bytes("VmRSS")
    numpy, runtime = import_runtime()
    tools = {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": runtime.__version__,
    }
    emit("progress", label="load", done=0, total=1)
    model = directory / bundle["variants"][arguments.variant]["file"]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = arguments.threads, 1
    options.log_severity_level = 3
    start = time.perf_counter_ns()
    session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    load_us = (time.perf_counter_ns() - start) / 1000
    first = numpy.ascontiguousarray(numpy.load(directory / bundle["samples"]["x"], mmap_mode="r")[:1])
    feed = {session.get_inputs()[0].name: first}
    times = time_runs(
        lambda: session.run(None, feed), arguments.warmup, arguments.runs, arguments.max_seconds
    )
    peak_bytes = memory_bytes("VmHWM")  # before the samples are loaded
    rise_bytes = None if peak_bytes is None or idle_bytes is None else peak_bytes - idle_bytes
    sizes = {"peak_rss_bytes": peak_bytes, "rss_rise_bytes": rise_bytes, "model_bytes": model.stat().st_size}
    scores = score(numpy, session, directory, bundle, arguments.variant, arguments.samples)
    facts = {"release": release, "split": bundle["split"], "machine": machine(), "tools": tools}
    emit("result", **facts, **sizes, **scores, latency_us=percentiles(times), load_us=load_us)


def find_bundle(arguments: argparse.Namespace) -> tuple[Path, dict[str, Any], str | None]:
    """The bundle asked for, its every byte verified: a directory's, or that of the current release."""
    release = None if arguments.bundle else find_release(Path(arguments.root))
    inside = Path(arguments.root, "releases", release, "bundle") if release else Path(arguments.bundle)
    bundle = read_table(inside / "bundle.json")
    verify_files(inside, bundle["files"])
    if arguments.variant not in bundle["variants"]:
        known = ", ".join(sorted(bundle["variants"]))
        raise AgentError("config", f"the bundle has no variant {arguments.variant!r}; it has {known}")
    return inside, bundle, release


def find_release(root: Path) -> str:
    """The name of the current release, its files verified."""
    if not (root / "current").is_symlink():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    release = os.path.basename(os.readlink(root / "current"))
    final = root / "releases" / release
    manifest = final / "release.json"
    if not manifest.is_file() or sha256_file(manifest)[:12] != release[-12:]:
        raise damaged(manifest)
    verify_files(final, read_table(manifest)["files"])
    return release


def status(arguments: argparse.Namespace) -> None:
    """Say what the directory holds and what this device is."""
    root = Path(arguments.root)
    if not root.is_dir():
        raise AgentError("empty", f"{root} holds no release; deploy first")
    emit("result", **describe_root(root), machine=machine(), python=platform.python_version())


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of one command."""
    parser = argparse.ArgumentParser(prog="agent.py", description="edgekd's part on a Linux device")
    parser.add_argument("command", choices=("deploy", "bench", "status"))
    for name, text in (("root", "edgekd"), ("bundle", ""), ("variant", "int8")):
        parser.add_argument(f"--{name}", default=text)
    for name, default in (("threads", 1), ("warmup", 20), ("runs", 300), ("samples", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--max-seconds", type=float, default=10.0)
    return parser.parse_args(argv)


def explain(error: OSError) -> AgentError:
    """An operating system error as a refusal with a sentence."""
    where = error.filename or "the device's directory"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgentError(
            "space", f"the device's disk is full (at {where}); free some space and deploy again"
        )
    if error.errno in DENIED:
        return AgentError(
            "denied", f"{where} cannot be written ({error.strerror}); set connection.root to another"
        )
    return AgentError("failed", f"{where}: {error.strerror or error}")


def main(argv: list[str]) -> int:
    """Run one command; every failure is one error message and exit status 1."""
    try:
        arguments = parse(argv)
        {"deploy": deploy, "bench": bench, "status": status}[arguments.command](arguments)
        return 0
    except AgentError as error:
        failure = error
    except OSError as error:
        failure = explain(error)
    except Exception as error:  # the runtime's own errors have many types; the host shows one line
        failure = AgentError(
            "failed", f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        )
    with contextlib.suppress(BrokenPipeError):
        emit("error", kind=failure.args[0], message=failure.args[1])
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
