"""Wheels on this machine: fetched by pip from its configured index, held to the lock, thinned, and packed.

What a device never runs (tests, type stubs, a second copy of the library for C programs, a GPU's driver) is
left out of what is sent: it halves the bytes on the link and on the card. The cache, in the user's cache
directory, keeps what was packed under the wheel's sha256. Reads XDG_CACHE_HOME and the home.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.device.provisioning.choose import Wheel
from edgekd.errors import DeviceError, MissingDependencyError, VerifyError

THINNED = 1  # raised when LEFT_OUT or the packing changes: it is part of a packed file's name
LEFT_OUT = (
    "*/tests/*",
    "*.pyi",
    "*.h",
    "*.a",
    "*/RECORD",
    "onnxruntime/transformers/*",
    "onnxruntime/tools/*",
    "onnxruntime/quantization/*",
    "onnxruntime/datasets/*",
    "onnxruntime/capi/libonnxruntime.so*",
    "onnxruntime/ThirdPartyNotices.txt",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "ai_edge_litert/aot/*",
)
EARLIEST = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """One wheel as it is sent: its file, size, digest, and what it takes on the device."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    unpacked_bytes: int  # in blocks of 4096 bytes, as a file system counts


def default_cache() -> Path:
    """Where packed wheels are kept: edgekd/wheels in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgekd" / "wheels"


def packed_wheels(
    wheels: Sequence[Wheel], architecture: str, python: str, cache: Path | None = None
) -> list[Packed]:
    """Each wheel, packed for the link; fetched first where the cache lacks it.

    Raises VerifyError when the index gives another file than the lock's, DeviceError when it gives none,
    MissingDependencyError without pip.
    """
    folder = cache or default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in wheels if not _place(folder, wheel).is_file()]
    if missing:
        _fetch(missing, architecture, python, folder)
    return [_packed(folder, wheel) for wheel in wheels]


def _place(folder: Path, wheel: Wheel) -> Path:
    return folder / f"{wheel.sha256[:16]}-{THINNED}" / f"{wheel.file.removesuffix('.whl')}.zip"


def _packed(folder: Path, wheel: Wheel) -> Packed:
    path = _place(folder, wheel)
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        blocks = sum(-(-member.file_size // 4096) + 1 for member in archive.infolist())
    return Packed(path.name, path, hashlib.sha256(data).hexdigest(), len(data), 4096 * blocks)


def _fetch(wheels: Sequence[Wheel], architecture: str, python: str, folder: Path) -> None:
    """Let pip download the files, by name, version and digest, then pack each."""
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as name:
        work = Path(name)
        lines = [f"{project_of(w.file)} --hash=sha256:{w.sha256}" for w in wheels]
        (work / "wanted.txt").write_text("\n".join(lines) + "\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += [f"--platform={tag}" for tag in platforms(w.file for w in wheels)]
        command += ["--dest", str(work), "-r", str(work / "wanted.txt")]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise _why(answer.stderr, architecture)
        for wheel in wheels:
            data = (work / wheel.file).read_bytes()
            if hashlib.sha256(data).hexdigest() != wheel.sha256:
                raise VerifyError(f"{wheel.file} is not the lock's file; check pip's index")
            _write_whole(_place(folder, wheel), thin(data))


def _why(errors: str, architecture: str) -> DeviceError | MissingDependencyError | VerifyError:
    """pip's failure as one sentence."""
    lines = [line for line in errors.splitlines() if line.startswith("ERROR:")] or errors.splitlines()[-1:]
    said = lines[0].removeprefix("ERROR: ") if lines else "no message"
    if "No module named pip" in errors:
        return MissingDependencyError(
            f"{sys.executable} has no pip, which fetches a device's wheels; run {sys.executable} -m ensurepip"
        )
    if "HASHES" in errors:
        return VerifyError(f"pip's index gives other files than the lock names: {said}; check the index")
    return DeviceError(f"pip could not fetch the wheels for {architecture}: {said}; check its index")


def project_of(file: str) -> str:
    """`name==version` of a wheel's file name."""
    project, version = file.split("-")[:2]
    return f"{project}=={version}"


def platforms(files: Iterable[str]) -> list[str]:
    """The platform tags in wheels' names, for pip's --platform; `any` needs none."""
    found = {tag for file in files for tag in file.removesuffix(".whl").rpartition("-")[2].split(".")}
    return sorted(found - {"any"}) or ["any"]


def thin(wheel: bytes) -> bytes:
    """A wheel without what a device never runs: the same bytes wherever it is packed by one zlib."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as source, zipfile.ZipFile(stream, "w") as out:
        for member in sorted(source.infolist(), key=lambda each: each.filename):
            name = member.filename
            if name.endswith("/") or any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT):
                continue
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = 0o100644 << 16
            out.writestr(entry, source.read(member), compresslevel=9)
    return stream.getvalue()


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
