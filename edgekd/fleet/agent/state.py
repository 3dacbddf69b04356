"""What a device knows about one model, and the one file that keeps it.

`State` is a value that machine.py replaces by another; `dump` and `parse` are its bytes. The
file carries the SHA-256 of its own content: a card that flips a bit is noticed, and the state is then taken
from what `current` names (`adopted`), never guessed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = 1
PHASES = ("idle", "fetched", "staged", "trying", "confirmed", "reverted")
AT_REST = ("idle", "confirmed", "reverted")
CANDIDATES = ("confirmed", "previous", "candidate")
MOST_QUARANTINED = 64


class DamagedStateError(Exception):
    """The state file is not what was written."""


@dataclass(frozen=True)
class Candidate:
    """A release that both repositories name: its hash is that of its release.json, and the slot's name.

    rollout, attempt: who asked for it; a quarantined hash is tried again only when they say so anew.
    """

    sha256: str
    release: int
    rollout: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class Quarantined:
    """Why a release was reverted, and at whose wish it had been tried."""

    release: int
    rollout: str
    attempt: int
    reason: str


@dataclass(frozen=True)
class State:
    """One model on one device.

    phase: where the machine stands; confirmed, previous: what serves and what it went back to in need;
    candidate: on its way, None at rest; trials: begun for it; disturbed: of them, without a verdict; boots:
    starts of the agent while it was on its way (the loop guard); floor: the largest least release seen;
    installed_at_s: signed or system time of the last installation's begin; reason: of the last revert;
    damaged: the confirmed slot does not read back and there is nothing to go back to: fetch it anew; adopted:
    the state file was lost, and what serves was taken from `current`.
    """

    phase: str = "idle"
    confirmed: Candidate | None = None
    previous: Candidate | None = None
    candidate: Candidate | None = None
    trials: int = 0
    disturbed: int = 0
    boots: int = 0
    floor: int = 0
    installed_at_s: int = 0
    reason: str = ""
    damaged: bool = False
    adopted: bool = False
    quarantine: Mapping[str, Quarantined] = dataclasses.field(default_factory=dict)

    @property
    def at_rest(self) -> bool:
        """Nothing is on its way."""
        return self.phase in AT_REST

    @property
    def resting_phase(self) -> str:
        """The phase without a candidate."""
        return "confirmed" if self.confirmed else "idle"

    def serves(self, sha256: str) -> bool:
        """Whether this is the confirmed release."""
        return self.confirmed is not None and self.confirmed.sha256 == sha256

    def is_quarantined(self, offer: Candidate) -> bool:
        """Whether it was reverted here and nobody has asked anew since."""
        known = self.quarantine.get(offer.sha256)
        return known is not None and known.rollout == offer.rollout and offer.attempt <= known.attempt

    def wanted(self) -> tuple[str, ...]:
        """The hashes whose slots stay."""
        kept = (self.confirmed, self.previous, self.candidate)
        return tuple(each.sha256 for each in kept if each is not None)


def dump(state: State) -> bytes:
    """The file's bytes."""
    value = {"schema": SCHEMA, **vars(state)}
    for name in CANDIDATES:
        value[name] = None if value[name] is None else vars(value[name])
    value["quarantine"] = {name: vars(each) for name, each in state.quarantine.items()}
    text = _text(value)
    return f'{{"sha256":"{_digest(text)}","state":{text}}}\n'.encode()


def parse(data: bytes) -> State:
    """The state in a file's bytes; DamagedStateError for anything that `dump` did not write."""
    try:
        outer = json.loads(data)
        value = outer["state"]
        if outer["sha256"] != _digest(_text(value)) or value.pop("schema") != SCHEMA:
            raise DamagedStateError("its checksum or schema differs")
        for name in CANDIDATES:
            value[name] = None if value[name] is None else Candidate(**value[name])
        value["quarantine"] = {name: Quarantined(**each) for name, each in value["quarantine"].items()}
        return State(**value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedStateError(f"it cannot be read ({type(error).__name__})") from None


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
