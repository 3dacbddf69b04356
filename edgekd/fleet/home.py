"""The operator's folder of a fleet: keys, the host's folder, and what is proposed but not yet signed enough.

keys.json   which keys there are (keyring.py)
keys/       encrypted secrets, as long as they lie here
host/       what a static host serves (docs/formats/fleet.md): copy it there after each publish
proposed/   releases/ROLE.json, rollout/ROLE.json: edits that further keys must sign
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError, RolloutError, VerifyError
from edgekd.fleet.keyring import DUTIES, Ask, Keyring, load_keyring
from edgekd.fleet.pair import Pair
from edgekd.fleet.repository import StaticRepository
from edgekd.store import disk_error

REPOSITORIES = ("releases", "rollout")


@dataclass
class Home:
    """A fleet's folder at a time. `ring` changes when a key is added."""

    folder: Path
    ring: Keyring
    now: datetime

    @property
    def host(self) -> Path:
        """What a static host serves."""
        return self.folder / "host"

    @property
    def proposed(self) -> Path:
        """Where edits wait for signatures."""
        return self.folder / "proposed"

    def open(self) -> Pair:
        """Both repositories, with what is proposed."""
        pair = Pair(self.host, self.now, self.ring.online_days)
        for name, repository in named(pair):
            repository.load(self.proposed / name)
        return pair

    def open_clean(self) -> Pair:
        """Both repositories, to begin an edit. RolloutError where an earlier one waits for signatures."""
        pair = self.open()
        if pair.releases.pending or pair.rollout.pending:
            raise RolloutError(
                f"{self.proposed}: an earlier change waits for signatures; finish it with release.sign and "
                f"release.publish, or remove that folder"
            )
        return pair

    def save(self, pair: Pair) -> None:
        """Keep what is pending for the next signer."""
        try:
            for name, repository in named(pair):
                repository.save(self.proposed / name)
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def publish(self, pair: Pair) -> list[str]:
        """Write everything pending to the host's folder; the files written. Raises as `publish` does."""
        for name, repository in named(pair):
            if repository.lacking():
                raise VerifyError(f"{name}: {self.told(repository)}; sign with further keys first")
        written = [f"{name}/{file}" for name, each in named(pair) if each.pending for file in each.publish()]
        shutil.rmtree(self.proposed, ignore_errors=True)
        return written

    def finish(self, pair: Pair, ask: Ask, only: Iterable[str] = ()) -> dict[str, Any]:
        """Sign with the keys that are here, then publish, or keep it for further keys.

        Returns {"published": files, "signed_by": names, "lacking": sentences}: nothing is published while a
        signature lacks.
        """
        signed = sign_with(self.ring, pair, ask, only)
        lacking = [f"{name}: {self.told(each)}" for name, each in named(pair) if each.lacking()]
        written = [] if lacking else self.publish(pair)
        if lacking:
            self.save(pair)
        return {"published": written, "signed_by": signed, "lacking": lacking}

    def told(self, repository: StaticRepository) -> str:
        """What signatures a repository's pending roles lack, in words."""
        found = {lack.role: lack for lack in repository.lacking()}
        return ", ".join(f"{role} has {lack.have} of {lack.need} signatures" for role, lack in found.items())


def named(pair: Pair) -> list[tuple[str, StaticRepository]]:
    """The repositories in the order in which they are published."""
    return [("releases", pair.releases), ("rollout", pair.rollout)]


def open_home(folder: Path, now: datetime) -> Home:
    """The fleet in a folder. Raises ConfigError where there is none."""
    return Home(folder, load_keyring(folder), now)


def sign_with(ring: Keyring, pair: Pair, ask: Ask, only: Iterable[str] = ()) -> list[str]:
    """Sign what is pending; the names of the keys that signed.

    only: these keys, each of which must have something to sign. Without it every key that is here, as long
    as a signature lacks, root last, so that no passphrase is asked for in vain.
    """
    names = list(only)
    signed = []
    order = sorted(ring.entries, key=lambda name: -DUTIES.index(ring.entries[name].duty))
    for name in names or order:
        useful = _is_useful(ring, pair, name, all_roles=bool(names))
        if names and not useful:
            raise ConfigError(f"key {name} has nothing to sign here; edgekd keys.status says who signs what")
        if useful and (names or ring.is_here(name)):
            signer = ring.signer(name, ask)
            for _, repository in named(pair):
                repository.sign([signer])
            signed.append(name)
    return signed


def _is_useful(ring: Keyring, pair: Pair, name: str, all_roles: bool) -> bool:
    keyid = ring.entry(name).public.keyid
    for _, repository in named(pair):
        wanted = repository.pending if all_roles else {lack.role for lack in repository.lacking()}
        if any(repository.may_sign(role, keyid) for role in wanted):
            return True
    return False
