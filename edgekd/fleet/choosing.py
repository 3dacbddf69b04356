"""Which signed release runs where: `choose` signs `rollout` with the online key and publishes it.

For named devices (a push) or a share of all (a wave). Everything else is a device's own decision, from the
same signed data (docs/formats/fleet.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.errors import ConfigError, RolloutError
from edgekd.fleet import formats, pair
from edgekd.fleet.fields import FormatError
from edgekd.fleet.formats import Base, Wave
from edgekd.fleet.home import Home
from edgekd.fleet.keyring import Ask
from edgekd.fleet.keys import refuse_expired
from edgekd.fleet.pair import Pair

DEADLINE_S = 86_400


@dataclass(frozen=True)
class Choice:
    """Who gets a release. hardware: empty for all that it is signed for; devices: ids that take part whatever
    ppm is; ppm: the share of the others, in millionths; salt, rollout: "" for new ones; base: whether devices
    that run nothing yet install it, too."""

    model: str
    release: int
    hardware: tuple[str, ...] = ()
    devices: Sequence[str] = ()
    ppm: int = 0
    state: str = "running"
    salt: str = ""
    rollout: str = ""
    attempt: int = 1
    deadline_s: int = DEADLINE_S
    base: bool = False


def choose(home: Home, choice: Choice, ask: Ask) -> dict[str, Any]:
    """Sign and publish a choice: one wave for each hardware, all with one salt.

    Returns what `Home.finish` does, with "waves", the list of them. Raises RolloutError for a choice that
    names nobody, a release that is not signed, for other hardware or below the floor, and where the offline
    part has expired or another change waits; ConfigError for names and numbers that cannot be.
    """
    made = home.open_clean()
    refuse_expired(home, made)
    waves = stage(made, choice)
    return home.finish(made, ask) | {"waves": waves}


def stage(made: Pair, choice: Choice) -> list[Wave]:
    """The same, pending: for a caller who publishes several at once."""
    if not choice.devices and not choice.ppm and not choice.base:
        raise RolloutError(f"{choice.model} {choice.release}: nobody is chosen; name devices or a share")
    if len(choice.devices) > formats.MOST_CANARIES:
        raise RolloutError(
            f"{len(choice.devices)} devices are named, and a wave lists {formats.MOST_CANARIES} at most; "
            f"take a share of the fleet"
        )
    signed = pair.releases_of(made.releases, choice.model)
    known = signed[choice.release][0].hardware if choice.release in signed else ("any",)
    salt = choice.salt or pair.new_salt()
    name = choice.rollout or f"{choice.model[:40]}-{choice.release}-{salt[:8]}"
    whole = replace(choice, salt=salt, rollout=name)
    try:
        waves = [_wave(made, whole, hardware) for hardware in choice.hardware or known]
        for wave in waves:
            pair.set_wave(made, wave)
            if choice.base:
                version = wave.releases_version
                pair.set_base(made, Base(formats.SCHEMA, wave.model, wave.hardware, wave.release, version))
    except FormatError as error:
        raise ConfigError(str(error)) from None
    made.rollout.refresh()
    return waves


def _wave(made: Pair, choice: Choice, hardware: str) -> Wave:
    return Wave(
        schema=formats.SCHEMA,
        rollout=choice.rollout,
        model=choice.model,
        hardware=hardware,
        release=choice.release,
        salt=choice.salt,
        ppm=choice.ppm,
        state=choice.state,
        deadline_s=choice.deadline_s,
        releases_version=made.releases.version("timestamp"),
        attempt=choice.attempt,
        canaries=pair.marks(choice.salt, _checked(choice.devices)),
    )


def _checked(devices: Iterable[str]) -> list[str]:
    found = list(devices)
    for device in found:
        formats.check_name(device)
    return found


def again(home: Home, wave: Wave, ask: Ask, **changes: Any) -> dict[str, Any]:
    """Sign a wave with other values: a larger ppm, another state, a higher attempt. Its salt stays."""
    made = home.open_clean()
    refuse_expired(home, made)
    wider = replace(wave, releases_version=made.releases.version("timestamp"), **changes)
    try:
        pair.set_wave(made, wider)
    except FormatError as error:
        raise ConfigError(str(error)) from None
    made.rollout.refresh()
    return home.finish(made, ask) | {"waves": [wider]}


def current(home: Home, model: str) -> list[Wave]:
    """What is chosen of a model now, by hardware."""
    return [wave for wave in pair.waves(home.open().rollout) if wave.model == model]
