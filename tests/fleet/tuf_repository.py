"""A TUF repository with a knob for everything, in a folder that a real HTTP host serves; and a plain client.

`Repository` holds the metadata as python-tuf's objects, signs and writes what it is told to (`write`), with
whatever versions, keys and names a test wants. `Client` is `edgekd-agent tuf`, run as its command line is.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edgekd.fleet.agent.tuf_cli import main
from tests.fleet.hosts import Host

TOP = ("root", "targets", "snapshot", "timestamp")


@dataclass
class Repository:
    """signers: role -> who signs it now; hashes: whether snapshot and timestamp name hashes and lengths."""

    folder: Path
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    md: dict[str, Metadata[Any]] = field(default_factory=dict)
    hashes: bool = False

    def __post_init__(self) -> None:
        for name in ("metadata", "targets"):
            (self.folder / name).mkdir(parents=True)
        far = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self.md = {
            "root": Metadata(Root(expires=far, consistent_snapshot=True)),
            "targets": Metadata(Targets(expires=far)),
            "snapshot": Metadata(Snapshot(expires=far)),
            "timestamp": Metadata(Timestamp(expires=far)),
        }
        for role in TOP:
            self.trust(role, new_key())
        for role in TOP:
            self.md[role].signed.version = 0
            self.write(role)
        self.first_root = (self.folder / "metadata" / "1.root.json").read_bytes()

    def __getattr__(self, role: str) -> Any:
        if role not in TOP:
            raise AttributeError(role)
        return self.md[role].signed

    def trust(self, role: str, *signers: CryptoSigner, threshold: int = 1) -> None:
        """Let these, and nobody else, sign a top-level role."""
        root: Root = self.md["root"].signed
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for signer in signers:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = threshold
        self.signers[role] = list(signers)

    def write(self, *roles: str, version: int | None = None, name_as: int | None = None) -> None:
        """Raise the version of each role, note it in the roles above, sign it, and put it on the host.

        version: this one instead; name_as: the version that the file's name says, where it lies.
        """
        for role in roles:
            md = self.md[role]
            md.signed.version = md.signed.version + 1 if version is None else version
            if role == "snapshot":
                self._note(self.md["timestamp"].signed, role)
            elif role not in ("root", "timestamp"):
                self._note(self.md["snapshot"].signed, role)
            self.sign(role)
            self.put(role, name_as or md.signed.version, md.to_bytes())
            if role == "snapshot":
                self._note(self.md["timestamp"].signed, role)

    def _note(self, above: Any, role: str) -> None:
        md = self.md[role]
        if self.hashes:
            self.sign(role)
            found = MetaFile.from_data(md.signed.version, md.to_bytes(), ["sha256"])
        else:
            found = MetaFile(md.signed.version)
        if isinstance(above, Timestamp):
            above.snapshot_meta = found
        else:
            above.meta[f"{role}.json"] = found

    def sign(self, role: str) -> None:
        self.md[role].signatures.clear()
        for signer in self.signers[role]:
            self.md[role].sign(signer, append=True)

    def put(self, role: str, version: int, data: bytes) -> None:
        self.path(role, version).write_bytes(data)

    def path(self, role: str, version: int | None = None) -> Path:
        """Where a role's file lies, by default the newest."""
        number = self.md[role].signed.version if version is None else version
        name = "timestamp" if role == "timestamp" else f"{number}.{urllib.parse.quote(role, '')}"
        return self.folder / "metadata" / f"{name}.json"

    def change(self, role: str, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change the JSON of a role's newest file behind its signatures."""
        value = json.loads(self.path(role).read_bytes())
        edit(value)
        self.path(role).write_bytes(json.dumps(value).encode())

    def refresh(self, *roles: str) -> None:
        """Write roles and then what names them."""
        self.write(*roles, *(role for role in ("snapshot", "timestamp") if role not in roles))

    def delegate(
        self,
        above: str,
        role: str,
        paths: Iterable[str] = ("*",),
        signer: CryptoSigner | None = None,
        terminating: bool = False,
    ) -> None:
        """Let `above` delegate paths to `role`, which is made where it is new."""
        signer = signer or new_key()
        if role not in self.md:
            self.md[role] = Metadata(Targets(expires=self.md["root"].signed.expires))
            self.md[role].signed.version = 0
        self.signers.setdefault(role, []).append(signer)
        parent: Targets = self.md[above].signed
        if parent.delegations is None:
            parent.delegations = Delegations({}, {})
        assert parent.delegations.roles is not None
        parent.delegations.roles[role] = DelegatedRole(role, [], 1, terminating, list(paths))
        parent.add_key(signer.public_key, role)

    def add_target(
        self, path: str, data: bytes, role: str = "targets", algorithms: tuple[str, ...] = ("sha256",)
    ) -> TargetFile:
        """Name a file in a role, and lay it out under each of its hashes."""
        target = TargetFile.from_data(path, data, list(algorithms))
        self.md[role].signed.targets[path] = target
        self.lay_out(target, data)
        return target

    def lay_out(self, target: TargetFile, data: bytes) -> None:
        parent, slash, name = target.path.rpartition("/")
        for digest in target.hashes.values():
            place = self.folder / "targets" / f"{parent}{slash}{digest}.{name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


def new_key(kind: str = "ed25519") -> CryptoSigner:
    makers = {
        "ed25519": CryptoSigner.generate_ed25519,
        "ecdsa": CryptoSigner.generate_ecdsa,
        "rsa": CryptoSigner.generate_rsa,
    }
    return makers[kind]()


@dataclass
class Client:
    """The command line in a folder of its own. `ahead` moves its clock."""

    folder: Path
    host: Host

    def __post_init__(self) -> None:
        for name in ("kept", "got"):
            (self.folder / name).mkdir(parents=True)

    def init(self, root: bytes) -> bool:
        """Trust a root; nothing is asked for."""
        (self.folder / "root.json").write_bytes(root)
        return self._run("init", str(self.folder / "root.json"))

    def refresh(self) -> bool:
        """Whether it succeeded."""
        return self._run("refresh", options=["--metadata-url", f"{self.host.url}/metadata"])

    def download(self, *names: str) -> bool:
        """Whether it succeeded for every name."""
        options = ["--metadata-url", f"{self.host.url}/metadata", "--target-dir", str(self.folder / "got")]
        options += ["--target-base-url", f"{self.host.url}/targets"]
        return self._run("download", options=options + [word for n in names for word in ("--target-name", n)])

    def _run(self, *command: str, options: Iterable[str] = ()) -> bool:
        status = main(["--metadata-dir", str(self.folder / "kept"), *options, *command])
        assert status in (0, 1)
        return status == 0

    def versions(self) -> dict[str, int]:
        """Role -> the version that is trusted, the root alone after `init`."""
        paths = (self.folder / "kept").glob("*.json")
        signed = {path.stem: json.loads(path.read_bytes())["signed"] for path in paths}
        return {urllib.parse.unquote(name): each["version"] for name, each in signed.items()}

    def kept(self, role: str) -> bytes:
        return (self.folder / "kept" / f"{urllib.parse.quote(role, '')}.json").read_bytes()

    def got(self) -> list[bytes]:
        """What was downloaded, by name."""
        return [path.read_bytes() for path in sorted((self.folder / "got").iterdir())]

    def asked(self) -> list[str]:
        """The metadata that was asked for since the last call, without folder and suffix."""
        paths, self.host.requests = self.host.requests, []
        return [p.removeprefix("metadata/").removesuffix(".json") for p in paths if p.startswith("metadata/")]


def key_of(signer: CryptoSigner) -> Key:
    return signer.public_key
