"""The event log on SQLite and PostgreSQL: writers that race, watchers that die, databases that fail."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgekd.errors import RolloutError
from edgekd.fleet.gate import Limits
from edgekd.fleet.log import LEASE_S, Behind, EventLog, Follower
from edgekd.fleet.rollout import Event, Plan, ordered, replay
from edgekd.fleet.watch import Report, Watcher, answers
from tests.fleet.postgres import server

SALT = "5a" * 16


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a file, or a database of its own on the server."""
    if request.param == "sqlite":
        return str(tmp_path / "fleet.db")
    base = request.getfixturevalue("postgres")
    name = f"t{abs(hash(tmp_path)):x}"
    engine = sa.create_engine(base, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    engine.dispose()
    return str(base).replace("/postgres?", f"/{name}?")


def plan(name: str = "digits-2", devices: int = 40) -> Plan:
    everybody = ordered(SALT, [f"device-{i}" for i in range(devices)])
    return Plan(name, "digits", 2, SALT, everybody, Limits.of(0.01, devices, 4), deadline_s=600.0)


class Host:
    """A static host in memory, and devices that take what it says: real events, no network."""

    def __init__(self, made: Plan) -> None:
        self.made, self.said, self.times = made, None, 0

    def published(self) -> tuple[int, str, int] | None:
        return self.said

    def publish(self, ppm: int, state: str, attempt: int) -> None:
        self.said, self.times = (ppm, state, attempt), self.times + 1

    def reports(self) -> list[Report]:
        """Every device that is in says again and again that it confirmed: duplicates are the rule."""
        if self.said is None or self.said[1] != "running":
            return []
        share, canaries = self.said[0], self.made.limits.canaries
        count = max(canaries, sum(1 for i in range(1, 41) if _ppm(self.made, i) <= share))
        return [Report(device, "confirmed", 1.0) for device in self.made.devices[:count]]


def _ppm(made: Plan, allowed: int) -> int:
    from edgekd.fleet.rollout import ppm_of

    return ppm_of(made, allowed)


def started(url: str) -> tuple[EventLog, Host]:
    log = EventLog(url)
    log.create(plan(), "ana", 0.0)
    log.append("digits-2", 0, [Event("started", 1.0, "ana")])
    return log, Host(plan())


def watcher(log: EventLog, host: Host, owner: str = "ana@desk:1") -> Watcher:
    return Watcher(log, "digits-2", owner, host.reports, host)


def test_a_rollout_is_watched_to_its_end(url: str) -> None:
    log, host = started(url)
    mine = watcher(log, host)
    for now_s in range(2, 40):
        mine.step(float(now_s))
    assert mine.rollout.status == "finished" and host.said == (1_000_000, "running", 1)
    assert [event.allowed for event in log.events("digits-2") if event.kind == "widened"] == [8, 16, 32, 40]
    assert log.names() == [("digits-2", False)]
    assert replay(log.plan("digits-2"), log.events("digits-2")).ledger.confirmed == 40


class Died(Exception):
    """A watcher was killed at this point."""


def test_a_watcher_killed_at_every_call_and_replaced_comes_to_the_same_end(url: str) -> None:
    """Each database write, each signing: dead before it, dead behind it; another operator goes on."""
    log, host = started(url)
    reference = run_whole()
    now_s, deaths = 2.0, 0
    for limit in range(1, 400):
        mine = watcher(log, host, f"operator-{limit}")
        calls = _dying(mine, host, limit)
        try:
            mine.step(now_s)
        except Died:
            deaths += 1
        _revive(mine, host, calls)
        log.release("digits-2", f"operator-{limit}")
        now_s += 1.0
        if replay(log.plan("digits-2"), log.events("digits-2")).status == "finished":
            break
    last = watcher(log, host, "last")
    last.step(now_s + 1)
    events = log.events("digits-2")
    assert last.rollout.status == "finished" and host.said == (1_000_000, "running", 1) and deaths > 3
    assert steered(events) == reference


def steered(events: list[Event]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(event.kind, event.allowed, event.devices) for event in events]


def run_whole() -> list[tuple[str, int, tuple[str, ...]]]:
    """The events of a watcher that nothing happens to."""
    log, host = started("sqlite://")
    mine = watcher(log, host)
    for now_s in range(2, 40):
        mine.step(float(now_s))
    return steered(log.events("digits-2"))


def _dying(mine: Watcher, host: Host, limit: int) -> tuple[object, object]:
    """Let the watcher die at its `limit` % 6-th call of the log or the host."""
    left = [limit % 6]
    append, publish = mine.log.append, host.publish

    def dying_append(*arguments: object) -> int:
        left[0] -= 1
        if left[0] == 0:
            raise Died
        found = append(*arguments)  # type: ignore[arg-type]
        left[0] -= 1
        if left[0] == 0:
            raise Died
        return found

    def dying_publish(ppm: int, state: str, attempt: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Died
        publish(ppm, state, attempt)

    mine.log.append, host.publish = dying_append, dying_publish  # type: ignore[method-assign]
    return append, publish


def _revive(mine: Watcher, host: Host, calls: tuple[object, object]) -> None:
    mine.log.append, host.publish = calls  # type: ignore[method-assign, assignment]


def test_of_two_watchers_one_works_and_one_waits(url: str) -> None:
    log, host = started(url)
    one, two = watcher(log, host, "ana"), watcher(EventLog(url), host, "ben")
    assert one.step(2.0) == [] and one.holder is None
    assert two.step(3.0) == [] and two.holder == "ana"
    assert two.step(3.0 + LEASE_S) != [] and two.holder is None
    assert one.step(4.0 + LEASE_S) == [] and one.holder == "ben"
    two.close()
    one.step(5.0 + LEASE_S)
    assert one.holder is None


def test_writers_that_race_lose_no_event(url: str) -> None:
    log, _ = started(url)
    rows = [f"device-{i}" for i in range(24)]

    def write(part: list[str]) -> None:
        follower = Follower(EventLog(url), "digits-2")
        for device in part:
            follower.write(lambda _, device=device: [Event("admitted", 2.0, devices=(device,))])  # type: ignore[misc]

    threads = [threading.Thread(target=write, args=(rows[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = log.events("digits-2")
    assert sorted(event.devices[0] for event in events[1:]) == sorted(rows)
    with pytest.raises(Behind):
        log.append("digits-2", 3, [Event("paused", 9.0, "ana")])


def test_events_come_back_as_they_were(url: str) -> None:
    log, _ = started(url)
    events = [
        Event("answered", 2.5, "gate", ("device-1", "device-2"), "failed", why="golden vectors differ"),
        Event("resumed", 3.5, "ben", ("device-1",), has_yes=True, afresh=True, why="looked at"),
        Event("widened", 4.5, allowed=17, why="so"),
    ]
    log.append("digits-2", 1, events)
    assert log.events("digits-2", after=1) == events
    assert log.plan("digits-2") == plan()


def test_two_rollouts_of_one_model_are_refused(url: str) -> None:
    log, _ = started(url)
    for name in ("digits-2", "digits-3"):
        with pytest.raises(RolloutError, match="has another one that has not ended"):
            log.create(plan(name), "ben", 2.0)
    log.append("digits-2", 1, [Event("recalled", 2.0, "ana")])
    log.create(plan("digits-3"), "ben", 3.0)
    with pytest.raises(RolloutError, match=r"digits-9: no such rollout \(there are: digits-2, digits-3\)"):
        log.plan("digits-9")


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    log, _ = started(url)
    with log._engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(RolloutError, match="is of a newer edgekd"):
        EventLog(url)


def test_a_database_without_tables_is_brought_up_to_date(url: str) -> None:
    EventLog(url).close()
    assert EventLog(url).names() == []


def one_sentence(error: pytest.ExceptionInfo[RolloutError]) -> str:
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def test_a_broken_file_a_missing_folder_and_a_read_only_place_are_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(RolloutError) as error:
        EventLog(str(broken))
    assert "not a database" in one_sentence(error)
    with pytest.raises(RolloutError) as error:
        EventLog(str(tmp_path / "nowhere" / "fleet.db"))
    assert "unable to open" in one_sentence(error)
    EventLog(str(tmp_path / "fleet.db")).close()
    locked = f"sqlite:///file:{tmp_path / 'fleet.db'}?mode=ro&uri=true"
    with pytest.raises(RolloutError) as error:
        EventLog(locked).create(plan(), "ana", 1.0)
    assert "readonly" in one_sentence(error)


def test_a_full_database_loses_nothing(tmp_path: Path) -> None:
    log, _ = started(str(tmp_path / "fleet.db"))

    def full(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=12")

    log.close()
    sa.event.listen(log._engine, "connect", full)
    with pytest.raises(RolloutError, match="full"):
        for number in range(1, 400):
            log.append("digits-2", number, [Event("paused", 1.0, "ana", why="x" * 1000)])
    kept = EventLog(str(tmp_path / "fleet.db")).events("digits-2")
    assert kept[0].kind == "started" and all(event.why == "x" * 1000 for event in kept[1:])


def test_a_database_restored_from_yesterday_is_folded_again(tmp_path: Path) -> None:
    """Devices go on saying what they run, so the lost answers come back; what is signed follows."""
    log, host = started(str(tmp_path / "fleet.db"))
    mine = watcher(log, host)
    for now_s in (2.0, 3.0):
        mine.step(now_s)
    yesterday = tmp_path / "yesterday.db"
    with sqlite3.connect(tmp_path / "fleet.db") as source, sqlite3.connect(yesterday) as copy:
        source.backup(copy)
    for now_s in (4.0, 5.0, 6.0):
        mine.step(now_s)
    again = watcher(EventLog(str(yesterday)), host, "ana@desk:2")
    for now_s in range(200, 240):
        again.step(float(now_s))
    assert again.rollout.status == "finished" and host.said == (1_000_000, "running", 1)


def test_reports_become_as_few_events_as_can_be(url: str) -> None:
    """Who begins is admitted, a failure wins over a confirmation, strangers and repetitions are nothing."""
    log, host = started(url)
    state = watcher(log, host).rollout
    one, two, three = state.plan.devices[:3]
    reports = [
        Report(one, "confirmed", 3.0),
        Report(two, "failed", 2.0, "leaks"),
        Report(two, "confirmed", 4.0),
        Report(three, "began", 1.0),
        Report("stranger", "failed", 1.0),
    ]
    events = answers(state, reports * 2, 9.0)
    assert [(event.kind, event.outcome, event.devices, event.why) for event in events] == [
        ("admitted", "open", (three, two, one), ""),
        ("answered", "confirmed", (one,), ""),
        ("answered", "failed", (two,), "leaks"),
    ]
    for event in events:
        state.apply(event)
    assert answers(state, reports, 10.0) == []


def test_devices_on_the_release_before_are_the_control(url: str) -> None:
    """Who is well joins it, who then falls ill fails in it; who was ill before says nothing."""
    log, host = started(url)
    state = watcher(log, host).rollout
    one, two, three = state.plan.devices[-3:]
    first = answers(
        state, [Report(one, "well", 1.0), Report(two, "well", 1.0), Report(three, "unwell", 1.0)], 2.0
    )
    assert first == [Event("control", 2.0, devices=(one, two), outcome="confirmed")]
    log.append("digits-2", 1, first)
    mine = watcher(log, host)
    reports = [Report(one, "unwell", 3.0), Report(two, "well", 3.0), Report(three, "unwell", 3.0)]
    second = answers(mine.rollout, reports, 4.0)
    assert second == [Event("control", 4.0, devices=(one,), outcome="failed")]
    state = replay(log.plan("digits-2"), [*log.events("digits-2"), *second])
    assert (state.control.admitted, state.control.failed) == (2, 1)
    state.apply(Event("admitted", 5.0, devices=(two,)))
    assert answers(state, [Report(two, "unwell", 6.0), Report("stranger", "well", 6.0)], 6.0) == []


def test_a_locked_database_is_said_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = started(str(tmp_path / "fleet.db"))
    log.close()
    monkeypatch.setattr("edgekd.fleet.log.BUSY_S", 0.1)
    log = EventLog(str(tmp_path / "fleet.db"))
    with sqlite3.connect(tmp_path / "fleet.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RolloutError) as error:
            log.append("digits-2", 1, [Event("paused", 2.0, "ana")])
        assert "locked" in one_sentence(error)
        other.execute("ROLLBACK")
    assert log.append("digits-2", 1, [Event("paused", 2.0, "ana")]) == 2


@pytest.mark.parametrize("jump_s", [73 * 365 * 86_400.0, -50 * 365 * 86_400.0])
def test_a_watchers_clock_that_steps_ends_in_the_same_state(url: str, jump_s: float) -> None:
    """It steps, the watcher dies there, and another one goes on with a clock that is right."""
    log, host = started(url)
    mine = watcher(log, host, "ana")
    for now_s in (1e9, 1e9 + 1, 1e9 + jump_s):
        mine.step(now_s)
    other = watcher(EventLog(url), host, "ben")
    for look in range(80):
        other.step(1e9 + 10 + 30 * look)
    assert other.holder is None and other.rollout.status == "finished"
    assert host.said == (1_000_000, "running", 1) and other.rollout.ledger.failed == 0


def test_a_device_that_was_admitted_in_the_future_is_not_waited_for(url: str) -> None:
    log, host = started(url)
    silent = Report(watcher(log, host).rollout.plan.devices[0], "began", 1.0)
    mine = Watcher(log, "digits-2", "ana", lambda: [silent], host)
    mine.step(4e9)
    later = Watcher(log, "digits-2", "ana", list, host)
    later.step(1e9)
    assert (later.rollout.ledger.silent, later.rollout.status) == (1, "paused")
