"""The content-addressed store: one directory an artifact, named by the hash of what made it.

Layout under the root (default `.edgekd/`):
    artifacts/<stage>/<key>/   the artifact's files and manifest.json (immutable once there)
    times/<stage>-<key>.json   how long it took, and when: outside the artifact and its digest
    records/<name>.jsonl       what effects left: deployments and benches on real devices
    locks/, tmp/               one lock an artifact; work in progress, renamed when whole

A killed run leaves only `tmp/`; the next run removes it and continues. Two runs at once are kept
apart by the lock: the second waits and finds the artifact there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgekd.errors import ArtifactError, BudgetError, EdgekdError

SCHEMA = 1
MANIFEST = "manifest.json"
KEY_DIGITS = 24


@dataclass(frozen=True)
class Origin:
    """What makes an artifact: all of it enters the key.

    params: what the stage reads of recipe, target and options (JSON values).
    inputs: role -> (stage, key, digest) of each artifact it reads.
    tools: name -> version of every tool whose bytes matter.
    """

    stage: str
    version: int
    params: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str, str]]
    tools: Mapping[str, str]

    @property
    def key(self) -> str:
        """The hash that names the artifact; input keys do not enter, only input digests."""
        what = {
            "stage": self.stage,
            "version": self.version,
            "params": self.params,
            "inputs": {role: digest for role, (_, _, digest) in self.inputs.items()},
            "tools": self.tools,
        }
        return hashlib.sha256(canonical_json(what)).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True)
class Artifact:
    """A whole artifact in the store. `digest` depends on its files' bytes alone."""

    stage: str
    key: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        metrics: Mapping[str, Any] = self.manifest["metrics"]
        return metrics

    def verify(self) -> None:
        """Raise ArtifactError if a file is missing, changed or of another length."""
        for name, expected in self.manifest["files"].items():
            path = self.path / name
            mend = f"remove {self.path} and run again"
            if not path.is_file():
                raise ArtifactError(f"{self.stage} {self.key}: file {name} is missing; {mend}")
            if sha256_file(path) != expected["sha256"]:
                raise ArtifactError(
                    f"{self.stage} {self.key}: file {name} is not what its manifest says; {mend}"
                )


class Shared(Protocol):
    """A cache of whole artifacts elsewhere (edgekd/shared.py)."""

    def fetch(self, stage: str, key: str, into: Path) -> bool: ...
    def offer(self, stage: str, key: str, directory: Path) -> None: ...


class Store:
    """Artifacts on a local disk; `shared` is asked for what is absent and offered what was made."""

    def __init__(self, root: Path, shared: Shared | None = None) -> None:
        self.root = root
        self.shared = shared

    def find(self, origin: Origin) -> Artifact | None:
        """The artifact that `origin` makes, or None. Its manifest is checked, its files' bytes are not."""
        path = self._place(origin.stage, origin.key)
        return self.read(path) if path.is_dir() else None

    def make(
        self,
        origin: Origin,
        build: Callable[[Path], Mapping[str, Any]],
        *,
        again: bool = False,
        waiting: Callable[[str], None] = lambda what: None,
    ) -> Artifact:
        """Return the artifact, building it where it is absent (or `again`).

        `build(directory)` fills a fresh directory and returns the metrics. Raises what it raises,
        with nothing left in `artifacts/`; a full disk becomes BudgetError.
        """
        try:
            with self._locked(f"{origin.stage}-{origin.key}", waiting):
                found = None if again else self.find(origin) or self._fetch(origin)
                if found is None:
                    found = self._build(origin, build)
                    if self.shared:
                        self.shared.offer(origin.stage, origin.key, found.path)
                return found
        except OSError as error:
            raise disk_error(error, self.root) from error

    def read(self, path: Path) -> Artifact:
        """The artifact in directory `path`. Raises ArtifactError for a broken manifest."""
        mend = f"remove {path} and run again"
        try:
            manifest = json.loads((path / MANIFEST).read_text("utf-8"))
            files, digest = manifest["files"], manifest["digest"]
            whole = manifest["schema"] == SCHEMA and digest == files_digest(files)
            stage, key = str(manifest["stage"]), str(manifest["key"])
            missing = [n for n, f in files.items() if (path / n).stat().st_size != f["bytes"]]
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: {Path(str(error.filename)).name} is missing; {mend}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ArtifactError(f"{path / MANIFEST}: broken or truncated; {mend}") from None
        if not whole:
            raise ArtifactError(f"{path / MANIFEST}: of another schema, or changed by hand; {mend}")
        if missing:
            raise ArtifactError(f"{path}: {missing[0]} has another length than its manifest says; {mend}")
        return Artifact(stage, key, path, manifest)

    def all(self) -> Iterator[Artifact]:
        """Every whole artifact, by stage and key."""
        for path in sorted((self.root / "artifacts").glob("*/*")):
            yield self.read(path)

    def seconds(self, artifact: Artifact) -> float | None:
        """How long the artifact took to make, where that was kept."""
        return self._times(artifact).get("seconds")

    def made_at(self, artifact: Artifact) -> int | None:
        """When the artifact was made (Unix time in seconds), where that was kept."""
        when = self._times(artifact).get("when")
        return None if when is None else int(when)

    def _times(self, artifact: Artifact) -> dict[str, float]:
        path = self.root / "times" / f"{artifact.stage}-{artifact.key}.json"
        try:
            times = json.loads(path.read_text("utf-8"))
            return {"seconds": float(times["seconds"]), "when": float(times["when"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def append_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one line to `records/<name>.jsonl`: what an effect left."""
        path = self.root / "records" / f"{name}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(f"records-{name}", lambda what: None), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.root) from error

    def records(self, name: str) -> list[dict[str, Any]]:
        """The lines of `records/<name>.jsonl`, oldest first; a line cut by a crash is left out."""
        path = self.root / "records" / f"{name}.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def work(self, name: str) -> Path:
        """A directory for a tool's own cache (compiler objects); nothing in it is an artifact."""
        path = self.root / "work" / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.root) from error
        return path

    def discard_work(self, name: str) -> None:
        """Remove what `work(name)` holds, if anything."""
        shutil.rmtree(self.root / "work" / name, ignore_errors=True)

    def _place(self, stage: str, key: str) -> Path:
        return self.root / "artifacts" / stage / key

    def _build(self, origin: Origin, build: Callable[[Path], Mapping[str, Any]]) -> Artifact:
        temporary = self.root / "tmp" / f"{origin.stage}-{origin.key}"
        shutil.rmtree(temporary, ignore_errors=True)  # the lock is ours: what lies there is a killed run's
        temporary.mkdir(parents=True)
        started = time.monotonic()
        try:
            metrics = build(temporary)
            _write_manifest(temporary, origin, metrics)
            self._publish(temporary, origin)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._write_times(origin, time.monotonic() - started)
        return self.read(self._place(origin.stage, origin.key))

    def _fetch(self, origin: Origin) -> Artifact | None:
        """The artifact from the shared cache, verified before it gets its place here."""
        if self.shared is None:
            return None
        temporary = self.root / "tmp" / f"{origin.stage}-{origin.key}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            if not self.shared.fetch(origin.stage, origin.key, temporary):
                return None
            fetched = self.read(temporary)
            fetched.verify()
            if (fetched.stage, fetched.key) != (origin.stage, origin.key):
                raise ArtifactError(
                    f"the shared cache's {origin.stage} {origin.key} is another artifact; remove it there"
                )
            self._publish(temporary, origin)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.read(self._place(origin.stage, origin.key))

    def _publish(self, temporary: Path, origin: Origin) -> None:
        place = self._place(origin.stage, origin.key)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # --again: the old one makes way
            discarded = self.root / "tmp" / f"old-{origin.stage}-{origin.key}"
            shutil.rmtree(discarded, ignore_errors=True)
            place.rename(discarded)
            temporary.rename(place)
            shutil.rmtree(discarded, ignore_errors=True)
        else:
            temporary.rename(place)
        sync_directory(place.parent)

    def _write_times(self, origin: Origin, seconds: float) -> None:
        path = self.root / "times" / f"{origin.stage}-{origin.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"seconds": round(seconds, 3), "when": int(time.time())}).encode())

    @contextmanager
    def _locked(self, name: str, waiting: Callable[[str], None]) -> Iterator[None]:
        from filelock import FileLock, Timeout

        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the bytes that are hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of an artifact: of its files' names and bytes, of nothing else."""
    return hashlib.sha256(canonical_json({n: f["sha256"] for n, f in files.items()})).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old bytes or the new, never half."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename in `path` survive a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_error(error: OSError, root: Path) -> EdgekdError:
    """An OSError while writing to the store, as one sentence."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root if root.exists() else root.parent).free
        return BudgetError(
            f"the disk of {root} is full ({free} bytes free); make room and run again to continue"
        )
    where = error.filename or root
    return ArtifactError(
        f"{where}: cannot be written: {error.strerror or error}; mend that, or use --store DIR"
    )


def _write_manifest(directory: Path, origin: Origin, metrics: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = path.relative_to(directory).as_posix()
        files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    manifest = {
        "schema": SCHEMA,
        "stage": origin.stage,
        "key": origin.key,
        "version": origin.version,
        "digest": files_digest(files),
        "params": origin.params,
        "inputs": {r: {"stage": s, "key": k, "digest": d} for r, (s, k, d) in origin.inputs.items()},
        "tools": origin.tools,
        "metrics": metrics,
        "files": files,
    }
    write_atomically(
        directory / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode("utf-8")
    )
