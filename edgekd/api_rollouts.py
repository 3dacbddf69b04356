"""Rollouts for a program or a notebook: plan, start, watch, pause, resume, recall; for the command line, too.

Every function raises EdgekdError with one sentence; nothing prints. `folder` is the fleet's (None: `fleet/`
of the project); `database` a SQLAlchemy URL or a file (default: rollouts.db in the fleet's folder).
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.api_fleet import Ask, fleet_folder, need_packages, open_fleet
from edgekd.device.inventory import FILE, load_inventory
from edgekd.errors import RolloutError
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from edgekd.fleet.log import EventLog
    from edgekd.fleet.operate import Draft
    from edgekd.fleet.rollout import Event, Rollout
    from edgekd.fleet.watch import Report, Watcher

DATABASE = "rollouts.db"
MAILBOX = "reports"


@dataclass(frozen=True)
class Place:
    """Where a fleet's rollouts are kept and who is asking. reports: the folder of signed reports."""

    folder: Path
    database: str
    reports: Path
    by: str

    def log(self) -> EventLog:
        need_packages()
        from edgekd.fleet.log import EventLog

        return EventLog(self.database)


def place(folder: Path | None = None, *, database: str = "", reports: str = "") -> Place:
    """With the defaults filled in; `by` is user@machine."""
    at = fleet_folder(folder)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    return Place(at, database or str(at / DATABASE), Path(reports) if reports else at / MAILBOX, by)


def draft(
    where: Place, model: str, release: int, *, devices: str = "", inventory: str = "", **wish: Any
) -> Draft:
    """A rollout's plan; nothing is written. devices: terms of `fleet.devices --where`, "": every device.

    wish: canaries, max_failed, deadline_s, all_at_once (fleet/operate.py's Wish).
    """
    from edgekd.fleet import devices as known
    from edgekd.fleet import operate

    home = open_fleet(where.folder)
    path = Path(inventory) if inventory else where.folder.parent / FILE
    hosts = load_inventory(path) if inventory or path.is_file() else None
    found = known.where(known.all_devices(hosts, known.enrolled(where.folder)), devices)
    return operate.draft(home, operate.Wish(model, release, **wish), found)


def start(where: Place, made: Draft, ask: Ask) -> dict[str, Any]:
    """Write the plan and the start into the log, and let the canaries begin; the status."""
    from edgekd.fleet.rollout import Event

    log, now_s = where.log(), time.time()
    log.create(made.plan, where.by, now_s)
    log.append(made.plan.rollout, 0, [Event("started", now_s, where.by)])
    return watch(where, made.plan.rollout, ask, once=True)


def open_rollout(log: EventLog, name: str = "") -> str:
    """The rollout meant: `name`, else the only open one. RolloutError where that is none or several."""
    if name:
        return log.plan(name).rollout
    open_ones = [each for each, is_open in log.names() if is_open]
    if len(open_ones) != 1:
        told = f"there are {len(open_ones)}: {', '.join(open_ones)}" if open_ones else "there is none"
        raise RolloutError(f"which rollout? {told}; name it with --rollout")
    return open_ones[0]


def pause(where: Place, name: str, why: str, ask: Ask) -> dict[str, Any]:
    """Nobody else starts; who has the release keeps it. The status."""
    from edgekd.fleet.rollout import Event

    event = Event("paused", time.time(), where.by, why=why or "paused by hand")
    return _steer(where, name, lambda _: event, ask)


def resume(
    where: Place, name: str, why: str, ask: Ask, *, has_yes: bool = False, afresh: bool = False
) -> dict[str, Any]:
    """Go on: lost canaries are accepted. has_yes, afresh: see fleet/rollout.py's Event. The status."""
    from edgekd.fleet.rollout import Event

    def event(state: Rollout) -> Event:
        lost = state.lost_canaries
        return Event("resumed", time.time(), where.by, lost, has_yes=has_yes, afresh=afresh, why=why)

    return _steer(where, name, event, ask)


def _steer(where: Place, name: str, make: Callable[[Rollout], Event], ask: Ask) -> dict[str, Any]:
    """Append what a person decides (`make` sees the state), then sign what the state wants."""
    from edgekd.fleet.log import Follower

    log = where.log()
    follower = Follower(log, open_rollout(log, name))
    follower.write(lambda state: [make(state)])
    return watch(where, follower.name, ask, once=True, decides=False)


def recall(where: Place, name: str, release: int, why: str, ask: Ask) -> dict[str, Any]:
    """End a rollout and send everybody who took part to an older release; the status and what was signed."""
    from edgekd.fleet import choosing
    from edgekd.fleet.log import Follower
    from edgekd.fleet.operate import status
    from edgekd.fleet.rollout import Event

    log = where.log()
    follower = Follower(log, name or open_rollout(log))
    plan = follower.rollout.plan
    choice = choosing.Choice(plan.model, release, _hardware(where, plan.devices), ppm=1_000_000)
    done = choosing.choose(open_fleet(where.folder), choice, ask)
    follower.write(lambda _: [Event("recalled", time.time(), where.by, why=why or f"to release {release}")])
    return status(follower.rollout) | {"published": done["published"], "lacking": done["lacking"]}


def watch(
    where: Place,
    name: str,
    ask: Ask,
    *,
    once: bool = False,
    decides: bool = True,
    every_s: float = 30.0,
    push: Callable[[], Iterable[dict[str, Any]]] = list,
    tell: Callable[[dict[str, Any], list[Event]], None] = lambda status, events: None,
) -> dict[str, Any]:
    """Watch a rollout until it ends (`once`: one look); the status.

    It may be stopped and started again, by anybody, at any time. decides: False only signs what the state
    wants. push: called at each look; lets devices that are reached over SSH install what is chosen for
    them, and gives their reports, for which the pinned session vouches. tell: called after each look with
    the status and the events that were appended.
    """
    watcher = _watcher(where, name, ask, push)
    try:
        while True:
            events = watcher.step(time.time()) if decides else watcher.sign(time.time())
            found = _status(watcher)
            tell(found, events)
            if once or watcher.is_over:
                return found
            time.sleep(every_s)
    finally:
        watcher.close()


def _watcher(where: Place, name: str, ask: Ask, push: Callable[[], Iterable[dict[str, Any]]]) -> Watcher:
    from edgekd.fleet import devices as known
    from edgekd.fleet.operate import HomePublisher, Mailbox, reported
    from edgekd.fleet.watch import Watcher

    log = where.log()
    plan = log.plan(open_rollout(log, name))
    keys = known.enrolled(where.folder)
    mailbox = Mailbox(where.reports, {d: keys[d] for d in plan.devices if d in keys})
    publisher = HomePublisher(
        lambda: open_fleet(where.folder), plan, _hardware(where, plan.devices), remembered(ask)
    )
    owner = f"{where.by}:{os.getpid()}"

    def collect() -> Iterable[Report]:
        return reported(plan, watcher.rollout.attempt, [*mailbox.fresh(), *push()])

    watcher = Watcher(log, plan.rollout, owner, collect, publisher)
    return watcher


def _hardware(where: Place, devices: Iterable[str]) -> tuple[str, ...]:
    from edgekd.fleet import devices as known

    keys = known.enrolled(where.folder)
    return tuple(sorted({keys[device].hardware for device in devices if device in keys}))


def remembered(ask: Ask) -> Ask:
    """Ask for each key's passphrase once: a watcher signs all day."""
    known: dict[str, str] = {}

    def once(name: str) -> str:
        if name not in known:
            known[name] = ask(name)
        return known[name]

    return once


def _status(watcher: Watcher) -> dict[str, Any]:
    from edgekd.fleet.operate import status

    return status(watcher.rollout) | {"watched_by": watcher.holder}


def rollouts(where: Place) -> list[dict[str, Any]]:
    """The status of every rollout in the database, oldest first."""
    from edgekd.fleet.log import Follower
    from edgekd.fleet.operate import status

    log = where.log()
    return [status(Follower(log, name).rollout) for name, _ in log.names()]


def evidence(where: Place, name: str) -> dict[str, Any]:
    """A rollout's evidence in words, as figures, and as an SVG (`picture`): see fleet/evidence.py."""
    from edgekd.fleet import evidence as told
    from edgekd.fleet.log import Follower

    log = where.log()
    found = told.evidence(Follower(log, name or open_rollout(log)).rollout)
    return found | {"picture": told.picture(found)}


def events(where: Place, name: str) -> list[dict[str, Any]]:
    """The audit log of a rollout: who did what, when, and why."""
    from dataclasses import asdict

    log = where.log()
    return [asdict(event) for event in log.events(open_rollout(log, name))]


def simulate_rollouts(
    words: Mapping[str, str | bool], out: Path | None = None, *, progress: Progress = silent
) -> dict[str, Any]:
    """What rollouts under the shipped gate would cost a simulated fleet; `out`: where the picture goes (SVG).

    words: option texts (`devices`, `tolerated`, `rates`, ...: fleet/question.py). Raises ConfigError.
    """
    from edgekd.fleet.question import answer, picture, question

    found = answer(question(words), progress)
    if out is not None:
        out.write_text(picture(found), "utf-8")
    return found
