"""The rollouts' append-only event log: SQLite (WAL) by default, PostgreSQL by URL, SQLAlchemy Core.

An event's number follows the last one's without a gap, and is the primary key: of two writers that both saw
event n as the last, one fails and looks again. A watcher holds a lease beside it, so that two do not race
all the time; a lease that ran out is anyone's. Answers come in batches: one event for all devices that
answered since the last look, never a row a device or a heartbeat.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from edgekd.errors import RolloutError
from edgekd.fleet.gate import Limits
from edgekd.fleet.rollout import ENDED, Event, Plan, Rollout, replay

LEASE_S = 60.0
MOST_AHEAD_S = 3600.0  # a lease beyond that was written by a clock that has stepped back since
BUSY_S = 30.0

_metadata = sa.MetaData()
_rollouts = sa.Table(
    "rollouts",
    _metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(64)),
    sa.Column("plan", sa.Text),
    sa.Column("created_at_s", sa.Float),
    sa.Column("created_by", sa.String(200)),
    sa.Column("is_open", sa.Boolean),
)
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("rollout", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_s", sa.Float),
    sa.Column("kind", sa.String(16)),
    sa.Column("who", sa.String(200)),
    sa.Column("body", sa.Text),
)
_leases = sa.Table(
    "leases",
    _metadata,
    sa.Column("rollout", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(200)),
    sa.Column("expires_at_s", sa.Float),
)


class Behind(Exception):
    """Somebody else has appended since: fold the new events and decide again."""


class EventLog:
    """All rollouts in one database. A method is a transaction; RolloutError where the database fails."""

    def __init__(self, url: str) -> None:
        """url: a SQLAlchemy URL, or a path of an SQLite file, which is made where it is absent.

        An older schema is brought up to date; a newer one is refused.
        """
        self.url = url if "://" in url else f"sqlite:///{url}"
        self._name = sa.engine.make_url(self.url).render_as_string(hide_password=True)
        with self._said():
            self._engine = sa.create_engine(self.url, **self._options())
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _on_sqlite_connect)
                sa.event.listen(self._engine, "begin", _on_sqlite_begin)
            self._upgrade()

    def _options(self) -> dict[str, Any]:
        if self.url.startswith("sqlite"):
            return {"connect_args": {"timeout": BUSY_S, "isolation_level": None}}
        return {"pool_pre_ping": True}

    def _upgrade(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":  # two that start at once: one builds, one waits
                connection.execute(sa.text("select pg_advisory_xact_lock(771001)"))
            script = ScriptDirectory.from_config(config)
            found = MigrationContext.configure(connection).get_current_revision()
            if found is not None and found not in {step.revision for step in script.walk_revisions()}:
                raise RolloutError(f"{self._name}: is of a newer edgekd (schema {found}); update edgekd")
            if found != script.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what the database says into one sentence."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
            raise RolloutError(f"{self._name}: {reason}; mend the database, then run this again") from error
        except SQLAlchemyError as error:
            raise RolloutError(f"{self._name}: {str(error).splitlines()[0]}; check the URL") from error

    # ---- rollouts ----

    def create(self, plan: Plan, by: str, now_s: float) -> None:
        """Put a planned rollout in. RolloutError: its id is taken, or its model has an open one."""
        row = {
            "id": plan.rollout,
            "model": plan.model,
            "plan": json.dumps(_plan_out(plan)),
            "created_at_s": now_s,
            "created_by": by,
            "is_open": True,
        }
        with self._said():
            try:
                with self._engine.begin() as connection:
                    connection.execute(_rollouts.insert(), row)
            except IntegrityError:
                raise RolloutError(
                    f"{plan.rollout}: that rollout exists, or {plan.model} has another one that has not"
                    " ended; recall or finish it first"
                ) from None

    def names(self) -> list[tuple[str, bool]]:
        """(id, whether it is open) of every rollout, oldest first."""
        with self._said(), self._engine.connect() as connection:
            query = sa.select(_rollouts.c.id, _rollouts.c.is_open).order_by(_rollouts.c.created_at_s)
            return [(row.id, row.is_open) for row in connection.execute(query)]

    def plan(self, rollout: str) -> Plan:
        """What was fixed for a rollout. RolloutError: there is none of that id."""
        with self._said(), self._engine.connect() as connection:
            text = connection.scalar(sa.select(_rollouts.c.plan).where(_rollouts.c.id == rollout))
        if text is None:
            known = ", ".join(name for name, _ in self.names()[-5:]) or "none"
            raise RolloutError(f"{rollout}: no such rollout (there are: {known})")
        return _plan_in(json.loads(text))

    # ---- events ----

    def events(self, rollout: str, after: int = 0) -> list[Event]:
        """The events behind number `after`, in order."""
        query = (
            sa.select(_events)
            .where(_events.c.rollout == rollout, _events.c.number > after)
            .order_by(_events.c.number)
        )
        with self._said(), self._engine.connect() as connection:
            return [_event_in(row.kind, row.at_s, row.who, row.body) for row in connection.execute(query)]

    def append(self, rollout: str, last: int, events: Sequence[Event]) -> int:
        """Append behind number `last`; the new last number. Behind: somebody else was first."""
        rows = [
            {
                "rollout": rollout,
                "number": last + i,
                "at_s": event.at_s,
                "kind": event.kind,
                "who": event.by,
                "body": _event_out(event),
            }
            for i, event in enumerate(events, 1)
        ]
        if not rows:
            return last
        with self._said():
            try:
                with self._engine.begin() as connection:
                    newest = sa.select(sa.func.max(_events.c.number)).where(_events.c.rollout == rollout)
                    if (connection.scalar(newest) or 0) != last:
                        raise Behind
                    connection.execute(_events.insert(), rows)
                    if any(event.kind in ENDED for event in events):
                        done = _rollouts.update().where(_rollouts.c.id == rollout)
                        connection.execute(done.values(is_open=False))
            except IntegrityError:
                raise Behind from None
        return last + len(rows)

    # ---- the lease ----

    def lease(self, rollout: str, owner: str, now_s: float) -> str | None:
        """Take or renew the right to watch; None if it is `owner`'s now, else who holds it."""
        with self._said(), self._engine.begin() as connection:
            row = connection.execute(
                sa.select(_leases).where(_leases.c.rollout == rollout).with_for_update()
            ).first()
            if row is not None and row.owner != owner and 0 < row.expires_at_s - now_s <= MOST_AHEAD_S:
                return str(row.owner)
            values = {"owner": owner, "expires_at_s": now_s + LEASE_S}
            if row is None:
                try:
                    connection.execute(_leases.insert(), {"rollout": rollout, **values})
                except IntegrityError:
                    return "another watcher that began just now"
            else:
                connection.execute(_leases.update().where(_leases.c.rollout == rollout).values(**values))
        return None

    def release(self, rollout: str, owner: str) -> None:
        """Let go of the lease, so that the next watcher need not wait."""
        mine = sa.and_(_leases.c.rollout == rollout, _leases.c.owner == owner)
        with self._said(), self._engine.begin() as connection:
            connection.execute(_leases.delete().where(mine))

    def close(self) -> None:
        self._engine.dispose()


class Follower:
    """A rollout's state, kept up with its log."""

    def __init__(self, log: EventLog, rollout: str) -> None:
        self.log, self.last = log, 0
        self.rollout = replay(log.plan(rollout), [])
        self.catch_up()

    @property
    def name(self) -> str:
        return self.rollout.plan.rollout

    def catch_up(self) -> list[Event]:
        """Fold what was appended since; the new events."""
        fresh = self.log.events(self.name, self.last)
        for event in fresh:
            self.rollout.apply(event)
        self.last += len(fresh)
        return fresh

    def write(self, decide: Callable[[Rollout], Sequence[Event]]) -> list[Event]:
        """Append what `decide` says of the state; where somebody was first, catch up and ask it again."""
        while True:
            events = list(decide(self.rollout))
            try:
                self.log.append(self.name, self.last, events)
            except Behind:
                self.catch_up()
                continue
            self.catch_up()
            return events


def _on_sqlite_connect(connection: Any, _: Any) -> None:
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}")


def _on_sqlite_begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # a reader that turns writer would meet SQLITE_BUSY


def _event_out(event: Event) -> str:
    rest: dict[str, Any] = {
        "devices": list(event.devices),
        "outcome": event.outcome,
        "allowed": event.allowed,
    }
    rest |= {"has_yes": event.has_yes, "afresh": event.afresh, "why": event.why}
    empty = Event(event.kind, event.at_s)
    return json.dumps(
        {k: v for k, v in rest.items() if v != getattr(empty, k) and v != []}, separators=(",", ":")
    )


def _event_in(kind: Any, at_s: float, who: str, body: str) -> Event:
    rest = json.loads(body)
    return Event(kind, at_s, who, **(rest | {"devices": tuple(rest.get("devices", ()))}))


def _plan_out(plan: Plan) -> dict[str, Any]:
    return dataclasses.asdict(plan)


def _plan_in(data: dict[str, Any]) -> Plan:
    return Plan(**(data | {"devices": tuple(data["devices"]), "limits": Limits(**data["limits"])}))
