"""A fleet to rehearse on: real keys, real repositories, and devices that run the shipped agent's own code.

Time is the drill's: it goes on by an hour at each step, for the operator and for the devices alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edgekd.fleet import formats, keys, pair, payload
from edgekd.fleet.agent import config, machine, slots
from edgekd.fleet.agent.clock import Now
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.disk import RealDisk
from edgekd.fleet.agent.fetchers import FolderFetcher
from edgekd.fleet.agent.visit import Hands, Visit
from edgekd.fleet.formats import ModelPolicy, Release, Wave
from edgekd.fleet.home import Home, open_home

MODEL, HARDWARE, OTHER_HARDWARE = "drill-model", "drill-board", "another-board"
STEP = timedelta(hours=1)
SCHEMA = formats.SCHEMA


def passphrase(name: str) -> str:
    """Of a key that protects nothing."""
    return f"rehearsed with {name}"


@dataclass
class Time:
    """The drill's clock, the devices' too."""

    at: datetime

    def now(self) -> Now:
        return Now(int(self.at.timestamp()))


@dataclass
class Operator:
    """Whoever has the fleet's folder."""

    folder: Path
    time: Time

    def __post_init__(self) -> None:
        keys.init(self.folder, "drill", self.time.at, passphrase, rounds=1)

    @property
    def home(self) -> Home:
        """The fleet an hour later."""
        self.time.at += STEP
        return open_home(self.folder, self.time.at)

    @property
    def host(self) -> Path:
        return self.folder / "host"

    def release(self, number: int, hardware: str = HARDWARE) -> None:
        """Sign and publish a release, with what keys are here."""
        home = self.home
        made = home.open_clean()
        contents = contents_of(number)
        release = release_of(number, hardware, contents)
        if pair.model_policy(made.releases, MODEL) is None:
            pair.set_model_policy(made, ModelPolicy(SCHEMA, MODEL))
        payload.put_release(self.host, release, pair.add_release(made, release), contents)
        made.releases.refresh()
        home.finish(made, passphrase)

    def floor(self, number: int) -> None:
        """Raise the floor."""
        home = self.home
        made = home.open_clean()
        pair.set_model_policy(made, ModelPolicy(SCHEMA, MODEL, min_release=number))
        made.releases.refresh()
        home.finish(made, passphrase)

    def choose(self, number: int) -> None:
        """Choose a release for every device."""
        home = self.home
        made = home.open_clean()
        pair.set_wave(made, wave_of(made, number))
        made.rollout.refresh()
        home.finish(made, passphrase)

    def rotate(self, name: str) -> dict[str, Any]:
        """Replace a key."""
        return keys.rotate(self.home, name, passphrase, rounds=1)

    def lose(self, name: str) -> None:
        """The file of a key is gone."""
        file = self.home.ring.file(name)
        if file is not None:
            file.unlink()


@dataclass
class Device:
    """A device below `root`: the agent's code, a model that always passes its trial."""

    root: Path
    time: Time
    id: str = "drill-1"
    roots: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.roots:
            (self.root / "roots").mkdir(parents=True)
            for name, data in self.roots.items():
                (self.root / "roots" / f"{name}.json").write_bytes(data)
            made = Config(self.id, HARDWARE, (MODEL,), clock="system")
            (self.root / config.FILE).write_text(config.dump(made), "utf-8")

    def visit(self, host: Path) -> str:
        """One visit to a host's folder: "runs N", or "refuses: REASON, runs N"."""
        hands = Hands(self.time, lambda model: lambda new, old: machine.TrialPassed(), lambda model: None)
        visit = Visit(self.root, config.read(self.root), hands)
        found = visit.run(FolderFetcher(host), FolderFetcher.BASE)
        disk = RealDisk(self.root / "models" / MODEL)
        serving = slots.current(disk)
        runs = f"runs {slots.release_of(disk, serving) if serving else 'nothing'}"
        return f"refuses: {found.refused.reason}, {runs}" if found.refused else runs

    def twin(self, root: Path) -> Device:
        """Another device in the same state."""
        shutil.copytree(self.root, root, symlinks=True)
        return Device(root, self.time, self.id)


def enrol(root: Path, time: Time, host: Path, device: str = "drill-1") -> Device:
    """A device with the first roots of a host's folder."""
    places = {"releases": formats.RELEASES_METADATA, "rollout": formats.ROLLOUT_METADATA}
    roots = {name: (host / place / "1.root.json").read_bytes() for name, place in places.items()}
    return Device(root, time, device, roots)


def contents_of(number: int) -> dict[str, bytes]:
    """A release's files; nothing here is run."""
    texts = {"bundle/bundle.json": "{}", "bundle/golden.npy": "vectors", "bench.json": "{}", "bom.json": "{}"}
    texts |= {"bundle/model.onnx": f"model {number}"}
    return {path: text.encode() for path, text in texts.items()}


def release_of(number: int, hardware: str, contents: Mapping[str, bytes]) -> Release:
    """A release of those files."""
    return Release(
        schema=SCHEMA,
        model=MODEL,
        release=number,
        kind="linux",
        hardware=(hardware,),
        files=payload.entries(contents),
        bundle="bundle",
        golden=("bundle/golden.npy",),
        bench="bench.json",
        bom="bom.json",
    )


def wave_of(made: pair.Pair, number: int, releases_version: int | None = None) -> Wave:
    """Everybody takes part."""
    return Wave(
        schema=SCHEMA,
        rollout=f"drill-{number}-{pair.new_salt()[:8]}",
        model=MODEL,
        hardware=HARDWARE,
        release=number,
        salt=pair.new_salt(),
        ppm=formats.PPM,
        state="running",
        deadline_s=3600,
        releases_version=releases_version or made.releases.version("timestamp"),
    )
