"""`edgekd-agent tuf`: one repository's TUF client, by the agent's own code, as a command.

    edgekd-agent tuf --metadata-dir DIR init ROOT.json
    edgekd-agent tuf --metadata-dir DIR --metadata-url URL refresh
    edgekd-agent tuf --metadata-dir DIR --metadata-url URL --target-base-url URL --target-dir DIR
                     --target-name NAME [--target-name NAME ...] download

The options are those of the TUF project's conformance suite, which drives any client by them.
"""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from pathlib import Path

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edgekd.fleet.agent import durable
from edgekd.fleet.agent.clock import Now, SystemClock
from edgekd.fleet.agent.disk import RealDisk
from edgekd.fleet.agent.fetchers import Fetcher, HttpFetcher
from edgekd.fleet.agent.metadata import Repository, refusals
from edgekd.fleet.agent.refusals import Refused

BOOTSTRAP = "bootstrap"  # beside what was verified; no .json, for it is no role's file


def main(argv: list[str]) -> int:
    """Run one command: 0, or 1 with one sentence on standard error."""
    arguments = parse(argv)
    try:
        if arguments.command == "init":
            initialize(arguments.metadata_dir, arguments.trusted_root)
        else:
            names = arguments.target_name or [] if arguments.command == "download" else []
            work(arguments, names, SystemClock(trusted=True).now())
        return 0
    except Refused as refused:
        print(f"edgekd-agent: {refused.reason}: {refused}", file=sys.stderr)
        return 1


def initialize(folder: Path, root: Path) -> None:
    """Trust a root: nothing is asked for."""
    with refusals(str(root)):
        data = root.read_bytes()
        for name in (BOOTSTRAP, "root.json"):
            durable.write_whole(RealDisk(folder), name, data)


def work(arguments: argparse.Namespace, names: list[str], now: Now) -> None:
    """Refresh, then bring each target; what was verified is kept whether or not all of it succeeds."""
    folder: Path = arguments.metadata_dir
    disk, fetcher = RealDisk(folder.parent), HttpFetcher()
    with refusals(str(folder)):
        bootstrap = (folder / BOOTSTRAP).read_bytes()
    with Repository(
        disk, folder.name, bootstrap, arguments.metadata_url, fetcher, now.system_s
    ) as repository:
        try:
            repository.refresh()
            for name in names:
                download(repository, name, arguments.target_base_url, arguments.target_dir, fetcher)
        finally:
            repository.keep()


def download(repository: Repository, name: str, base: str, folder: Path, fetcher: Fetcher) -> None:
    """One target into `folder`, under its name with every separator quoted; one that is there stays."""
    target = repository.target(name)
    if target is None:
        raise Refused("not-found", f"{name} is not signed by this repository")
    path = folder / urllib.parse.quote(name, "")
    if path.is_file() and _is(target, path.read_bytes()):
        return
    url = f"{base.rstrip('/')}/{hashed(repository, target)}"
    with refusals(url):
        data = fetcher.download_bytes(url, target.length)
    if not _is(target, data):
        raise Refused("wrong-hash", f"{url} has other bytes than were signed")
    durable.write_whole(RealDisk(folder), path.name, data)


def hashed(repository: Repository, target: TargetFile) -> str:
    """Where a target lies on the host: its hash in front where the repository has consistent snapshots."""
    if not repository.signed("root").get("consistent_snapshot"):
        return target.path
    parent, slash, name = target.path.rpartition("/")
    return f"{parent}{slash}{next(iter(target.hashes.values()))}.{name}"


def _is(target: TargetFile, data: bytes) -> bool:
    try:
        target.verify_length_and_hashes(data)
        return True
    except LengthOrHashMismatchError:
        return False


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of one command."""
    parser = argparse.ArgumentParser(prog="edgekd-agent tuf", description="a TUF client of one repository")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    for name in ("refresh", "download"):
        commands.add_parser(name)
    return parser.parse_args(argv)
