"""One visit: what the agent does each time it is started, by a timer, over SSH, or by hand.

1. Go on where the last visit was cut; look at the slots; look at how the confirmed release fares.
2. Ask for `rollout`'s timestamp. The same bytes as before, and nothing left to do: that is all.
3. Refresh `releases`, then `rollout`; check their times; keep what was verified.
4. For each model: choose, admit, fetch, and hand it to the machine.
5. Write and sign the report.
A refusal ends 2 to 4 with its reason in the report; it never ends what serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.fleet import formats
from edgekd.fleet.agent import durable, machine, policy, slots
from edgekd.fleet.agent.clock import Clock, Now
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.disk import Disk, RealDisk
from edgekd.fleet.agent.fetch import Wanted, fetch
from edgekd.fleet.agent.fetchers import Fetcher
from edgekd.fleet.agent.installer import Installer, Trial
from edgekd.fleet.agent.metadata import Repository, refusals
from edgekd.fleet.agent.policy import Device, Target
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.fields import FormatError

VISIT = "visit.json"
ROOTS = {"releases": "roots/releases.json", "rollout": "roots/rollout.json"}
MODELS = "models"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Hands:
    """What a visit needs of the world: the clock, and for a model's directory its trial and its restart."""

    clock: Clock
    trial: Callable[[str], Trial]
    restart: Callable[[str], None]
    look: Callable[[str, Installer], dict[str, Any]] = lambda model, installer: {}
    say: Say = lambda line: None


@dataclass
class Memory:
    """visit.json: what one visit leaves for the next. timestamp: SHA-256 of the last one that was acted on;
    settled: nothing was left to do then; seen_s: the newest signed time; root: the rollout's root version
    that it was signed under; sequence: of reports; sent, sent_at_s: the news of the
    last delivered one, and when."""

    timestamp: str = ""
    settled: bool = False
    seen_s: int = 0
    root: int = 0
    sequence: int = 0
    sent: str = ""
    sent_at_s: int = 0


@dataclass
class Found:
    """What came of a visit. outcome: a word for each model; refused: the first refusal; versions: of both
    timestamps; bytes, requests: what the network was asked for."""

    outcome: dict[str, str] = field(default_factory=dict)
    refused: Refused | None = None
    looks: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    received_bytes: int = 0
    requests: int = 0


class Visit:
    """One visit to `root`, the agent's directory. base: what the paths of both repositories begin with."""

    def __init__(self, root: Path, config: Config, hands: Hands) -> None:
        self.root, self.config, self.hands = root, config, hands
        self.disk: Disk = RealDisk(root)
        self.device = Device(config.device, config.hardware)
        self.memory = read_memory(self.disk)
        self.found = Found()
        self.installers: dict[str, Installer] = {}
        self._settled = True

    def run(
        self, fetcher: Fetcher | None, base: str, last: Callable[[Visit], None] = lambda visit: None
    ) -> Found:
        """The whole visit; without a fetcher only its first step. `last`: what else to do under the lock."""
        with locked(self.root):
            now = self.hands.clock.now()
            try:
                with refusals(str(self.root)):  # a disk that refuses is reported like everything else
                    self._begin()
                    if fetcher is not None:
                        self._ask(fetcher, base.rstrip("/"), now)
                    last(self)
            except Refused as refused:
                self._refuse(refused)
            if fetcher is not None:
                self.found.received_bytes, self.found.requests = fetcher.received_bytes, fetcher.requests
            return self.found

    def _begin(self) -> None:
        durable.make_directory(self.disk, MODELS)
        for model in self.config.models:
            durable.make_directory(self.disk, f"{MODELS}/{model}")
            disk = RealDisk(self.root / MODELS / model)
            restart = lambda model=model: self.hands.restart(model)  # noqa: E731
            installer = self.installers[model] = Installer(disk, self.hands.trial(model), restart)
            installer.start()
            self.found.looks[model] = self.hands.look(model, installer)

    def _refuse(self, refused: Refused) -> None:
        self._settled = False
        self.found.refused = self.found.refused or refused
        self.hands.say(f"{refused.reason}: {refused}")

    def _ask(self, fetcher: Fetcher, base: str, now: Now) -> None:
        roots = {name: self._root(name) for name in ROOTS}
        now_s = now.trusted_s(self.memory.seen_s)
        places = {"releases": formats.RELEASES_METADATA, "rollout": formats.ROLLOUT_METADATA}
        urls = {name: f"{base}/{place}/" for name, place in places.items()}
        with Repository(
            self.disk, "metadata/rollout", roots["rollout"], urls["rollout"], fetcher, now_s
        ) as rollout:
            if self._is_settled(rollout) and rollout.is_unchanged():
                check_expiry(rollout.times(), now_s)
                self.found.outcome = dict.fromkeys(self.config.models, "unchanged")
                self.found.versions["rollout"] = int(rollout.signed("timestamp")["version"])
                return
            with Repository(
                self.disk, "metadata/releases", roots["releases"], urls["releases"], fetcher, now_s
            ) as releases:
                fleet = self._refresh(releases, rollout, now)
                for model in self.config.models:
                    try:
                        self.found.outcome[model] = self._model(
                            model, fleet, releases, rollout, fetcher, base, now
                        )
                    except Refused as refused:
                        self.found.outcome[model] = refused.reason
                        self._refuse(refused)
                releases.keep()
            self._remember(rollout)

    def _root(self, name: str) -> bytes:
        if self.disk.kind(ROOTS[name]) != "file":
            raise Refused("not-set-up", f"{self.root / ROOTS[name]} is missing; enrol this device")
        return self.disk.read(ROOTS[name])

    def _is_settled(self, rollout: Repository) -> bool:
        known = rollout.kept("timestamp")
        resting = all(each.state.at_rest and not each.state.damaged for each in self.installers.values())
        same = known is not None and hashlib.sha256(known).hexdigest() == self.memory.timestamp
        return self.memory.settled and same and resting

    def _refresh(self, releases: Repository, rollout: Repository, now: Now) -> formats.FleetPolicy:
        """Both repositories up to date, their times checked, what was verified kept; the fleet's policy."""
        durable.make_directory(self.disk, "metadata")
        for each in (releases, rollout):
            try:
                each.refresh()
            except Refused:
                self._keep(each, rollout, now, formats.MAX_AHEAD_DAYS)
                raise
        releases.keep()
        signed = releases.target(formats.FLEET_POLICY)
        with malformed():
            fleet = formats.parse_fleet_policy(signed.custom if signed else None)
        self._keep(rollout, rollout, now, fleet.max_ahead_days)
        policy.check_times(rollout.times(), fleet.max_ahead_days, now)
        self._learn_time(rollout, now)
        self.found.versions = {
            name: int(each.signed("timestamp")["version"])
            for name, each in (("releases", releases), ("rollout", rollout))
        }
        return fleet

    def _keep(self, each: Repository, rollout: Repository, now: Now, ahead_days: int) -> None:
        """Keep what was verified; of `rollout` only the roots where its times are not to be believed."""
        believed = True
        if each is rollout:
            try:
                policy.check_times(rollout.times(), ahead_days, now)
            except Refused:
                believed = False
        each.keep(roots_only=not believed)

    def _learn_time(self, rollout: Repository, now: Now) -> None:
        """The newest signed time; one that was signed under other keys is forgotten."""
        root = int(rollout.signed("root")["version"])
        if root != self.memory.root:
            self.memory.root, self.memory.seen_s = root, 0
        at_s = max((at for _, at in rollout.times().values()), default=0)
        self.memory.seen_s = min(max(self.memory.seen_s, at_s), now.newest_believed_s)

    def _model(
        self,
        model: str,
        fleet: formats.FleetPolicy,
        releases: Repository,
        rollout: Repository,
        fetcher: Fetcher,
        base: str,
        now: Now,
    ) -> str:
        """One model: the word for its outcome, or Refused."""
        installer = self.installers[model]
        limits = self._limits(model, releases, installer)
        wave, first = self._wanted(model, rollout)
        chosen = policy.choose(self.device, installer.state, wave, first)
        if chosen.choice is None:
            return chosen.why
        choice, state = chosen.choice, installer.state
        if state.serves(choice.target.sha256) and not state.damaged:
            return "up-to-date"
        signed = releases.target(formats.release_path(model, choice.release))
        note = None
        if signed is not None:
            with malformed():
                note = formats.parse_note(signed.custom, model, choice.release), target_of(signed)
        version = int(releases.signed("timestamp")["version"])
        now_s = now.trusted_s(self.memory.seen_s)
        candidate = policy.admit(choice, note, self.device, state, fleet, limits, version, now_s)
        if not now.is_set:
            raise Refused(
                "no-clock", "the clock of this device is not set, so nothing is installed; it goes on serving"
            )
        if note is None or not state.at_rest:
            return state.phase
        files, data = self._release(model, choice, note[0], fetcher, base)
        self.hands.say(f"fetching release {choice.release} of {model}")
        with refusals(f"{self.root / MODELS / model}"):
            fetch(installer.disk, candidate.sha256, data, files, source_of(fetcher, base, model))
            state = installer.handle(machine.Fetched(candidate, now_s))
        self._settled = self._settled and state.at_rest
        return state.phase

    def _limits(self, model: str, releases: Repository, installer: Installer) -> formats.ModelPolicy:
        signed = releases.target(formats.policy_path(model))
        if signed is None:
            raise Refused(
                "unsigned", f"releases has no policy of a model {model!r}; check agent.toml's models"
            )
        with malformed():
            limits = formats.parse_model_policy(signed.custom, model)
        installer.handle(machine.FloorSeen(limits.min_release))
        return limits

    def _wanted(self, model: str, rollout: Repository) -> tuple[Any, Any]:
        hardware = self.device.hardware
        wave = rollout.target(formats.wave_path(model, hardware))
        first = rollout.target(formats.base_path(model, hardware))
        with malformed():
            return (
                wave and (formats.parse_wave(wave.custom, model, hardware), target_of(wave)),
                first and (formats.parse_base(first.custom, model, hardware), target_of(first)),
            )

    def _release(
        self, model: str, choice: policy.Choice, note: formats.ReleaseNote, fetcher: Fetcher, base: str
    ) -> tuple[list[Wanted], bytes]:
        """The release's files and its own bytes, fetched and held to what was signed."""
        target, where = choice.target, formats.release_path(model, choice.release)
        url = f"{base}/{formats.RELEASES_TARGETS}/{formats.hashed_path(where, target.sha256)}"
        with refusals(url):
            data = fetcher.download_bytes(url, target.length_bytes)
        if len(data) != target.length_bytes or hashlib.sha256(data).hexdigest() != target.sha256:
            raise Refused("wrong-hash", f"{url} has other bytes than were signed")
        with malformed():
            release = formats.parse_release(data, model, choice.release)
        policy.check_release(release, note)
        return [Wanted(path, each.sha256, each.size_bytes) for path, each in release.files.items()], data

    def _remember(self, rollout: Repository) -> None:
        known = rollout.kept("timestamp")
        self.memory.timestamp = hashlib.sha256(known).hexdigest() if known is not None else ""
        self.memory.settled = self._settled
        write_memory(self.disk, self.memory)


def source_of(fetcher: Fetcher, base: str, model: str) -> Callable[[Wanted, int], Iterator[bytes]]:
    """A release's files from the static host."""

    def pieces(wanted: Wanted, offset: int) -> Iterator[bytes]:
        place = formats.hashed_path(formats.payload_path(model, wanted.path), wanted.sha256)
        url = f"{base}/{formats.RELEASES_TARGETS}/{place}"
        with refusals(url):
            goes_on, answer = fetcher.begin(url, offset)
            if offset and not goes_on:
                yield b""
            yield from answer

    return pieces


def target_of(signed: Any) -> Target:
    """What TUF signs of a release's file; one without a SHA-256 is as good as unsigned."""
    return Target(str(signed.hashes.get("sha256", "")), int(signed.length))


def check_expiry(times: dict[str, tuple[int, int]], now_s: int) -> None:
    """Refused where a role's time is over."""
    for role, (expires_s, _) in times.items():
        if expires_s <= now_s:
            raise Refused("expired", f"the rollout's {role} has expired and the host has no newer one")


@contextmanager
def malformed() -> Iterator[None]:
    """A FormatError as Refused."""
    try:
        yield
    except FormatError as error:
        raise Refused("malformed", str(error)) from None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the agent's lock; it goes with the process. Refused (busy) where another has it."""
    try:
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused("disk-error", f"{root} cannot be written ({error.strerror}); mend that") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused("busy", f"another edgekd-agent is at work in {root}; wait for it") from None
    finally:
        os.close(handle)


def read_memory(disk: Disk) -> Memory:
    """visit.json; a fresh one where it is absent or damaged: then everything is asked for anew."""
    try:
        value = json.loads(disk.read(VISIT))
        return Memory(**{name: value[name] for name in Memory.__dataclass_fields__ if name in value})
    except (OSError, ValueError, KeyError, TypeError):
        return Memory()


def write_memory(disk: Disk, memory: Memory) -> None:
    """Keep it, where it changed."""
    if read_memory(disk) != memory:
        durable.write_whole(disk, VISIT, json.dumps(vars(memory)).encode())


def running(installer: Installer) -> str | None:
    """The hash that `current` names."""
    return slots.current(installer.disk)
