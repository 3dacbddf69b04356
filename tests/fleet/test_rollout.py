"""The rollout: a fold over its log, killed anywhere; the simulated fleet under it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import soak
from edgekd.errors import ConfigError
from edgekd.fleet.formats import Wave, in_wave, wave_mark
from edgekd.fleet.gate import Limits
from edgekd.fleet.question import answer, picture, question
from edgekd.fleet.rollout import Event, Plan, Rollout, advance, ordered, ppm_of, replay
from edgekd.fleet.simulate import Fleet, simulate, sweep

SALT = "5a" * 16


def plan(devices: int = 40, canaries: int = 4, **limits: float) -> Plan:
    names = ordered(SALT, [f"device-{i}" for i in range(devices)])
    chosen = Limits.of(0.01, devices, canaries, limits.get("most"))
    return Plan("digits-2", "digits", 2, SALT, names, chosen, deadline_s=600.0)


def wave_for(made: Plan, allowed: int, canaries: int) -> Wave:
    marks = tuple(wave_mark(SALT, device) for device in made.devices[:canaries])
    ppm = ppm_of(made, allowed)
    return Wave(1, "digits-2", "digits", "rpi4", 2, SALT, ppm, "running", 600, 1, canaries=marks)


@pytest.mark.parametrize("allowed", [0, 1, 7, 39, 40])
def test_ppm_takes_exactly_the_first_devices(allowed: int) -> None:
    made = plan()
    assert [in_wave(wave_for(made, allowed, 0), device) for device in made.devices] == [
        i < allowed for i in range(40)
    ]


def good_answers(rollout: Rollout, now_s: float) -> list[Event]:
    fresh = tuple(d for d in rollout.plan.devices[: rollout.allowed] if rollout.ledger.outcome(d) is None)
    return [
        Event("admitted", now_s, devices=fresh),
        Event("answered", now_s, devices=fresh, outcome="confirmed"),
    ]


def whole_log(made: Plan) -> list[Event]:
    """The log of a release that fails nowhere."""
    rollout, log, now_s = Rollout(made), [Event("started", 0.0, "ana")], 0.0
    rollout.apply(log[0])
    while rollout.status == "running":
        for event in good_answers(rollout, now_s):
            rollout.apply(event)
            log.append(event)
        advance(rollout, now_s, log)
        now_s += 100
    return log


def test_a_good_release_reaches_all_in_waves() -> None:
    log = whole_log(plan())
    assert [event.allowed for event in log if event.kind == "widened"] == [8, 16, 32, 40]
    assert replay(plan(), log).status == "finished" and replay(plan(), log).wanted == (
        1_000_000,
        "running",
        1,
    )


def test_a_watcher_killed_at_any_event_comes_to_the_same_end() -> None:
    """Another one folds the log so far and goes on; what the host must say follows from the state."""
    log = whole_log(plan())
    for cut in range(1, len(log)):
        rollout, rest = replay(plan(), log[:cut]), []
        for event in log[cut:]:
            if event.by == "gate" and event.kind in ("widened", "finished"):
                continue
            advance(rollout, event.at_s, rest)
            rollout.apply(event)
        advance(rollout, 1e4, rest)
        assert (rollout.status, rollout.allowed, rollout.wanted) == (
            "finished",
            40,
            (1_000_000, "running", 1),
        )


def test_two_watchers_that_write_the_same_leave_the_same_state() -> None:
    log = whole_log(plan())
    twice = [event for event in log for _ in range(2)]
    one, two = replay(plan(), log), replay(plan(), twice)
    assert (one.status, one.allowed, one.ledger.confirmed) == (two.status, two.allowed, two.ledger.confirmed)


def started(made: Plan) -> Rollout:
    rollout = Rollout(made)
    rollout.apply(Event("started", 0.0, "ana"))
    return rollout


def test_silence_past_the_deadline_is_noted_and_a_silent_canary_pauses() -> None:
    rollout, log = started(plan()), list[Event]()
    rollout.apply(Event("admitted", 10.0, devices=rollout.plan.devices[:4]))
    rollout.apply(Event("answered", 20.0, devices=rollout.plan.devices[:3], outcome="confirmed"))
    advance(rollout, 609.0, log)
    assert log == []
    advance(rollout, 610.0, log)
    assert [event.kind for event in log] == ["answered", "paused"]
    assert rollout.lost_canaries == (rollout.plan.devices[3],)
    rollout.apply(Event("resumed", 700.0, "ana", devices=rollout.lost_canaries))
    advance(rollout, 700.0, log)
    assert rollout.status == "running" and rollout.allowed == 8


def test_a_late_answer_takes_the_place_of_silence() -> None:
    rollout = started(plan())
    rollout.apply(Event("admitted", 10.0, devices=rollout.plan.devices[:4]))
    advance(rollout, 1000.0, [])
    late = rollout.plan.devices[:4]
    rollout.apply(Event("answered", 1100.0, devices=late, outcome="confirmed"))
    assert rollout.lost_canaries == () and rollout.ledger.confirmed == 4


def test_nobody_begins_nothing_widens() -> None:
    rollout, log = started(plan()), list[Event]()
    for now_s in (100.0, 700.0, 7e5):
        advance(rollout, now_s, log)
    assert rollout.allowed <= 4 and rollout.status == "running"


def test_an_ended_rollout_can_only_be_recalled() -> None:
    rollout = replay(plan(), whole_log(plan()))
    rollout.apply(Event("paused", 1e5, "ana"))
    assert rollout.status == "finished"
    rollout.apply(Event("recalled", 1e5, "ana", why="release 1 again"))
    assert rollout.status == "recalled" and rollout.wanted[1] == "paused"


def test_an_environment_that_fails_everybody_pauses_and_is_tried_again_afresh() -> None:
    rollout, log = started(plan()), list[Event]()
    rollout.apply(Event("admitted", 1.0, devices=rollout.plan.devices[:4]))
    rollout.apply(Event("answered", 2.0, devices=rollout.plan.devices[:1], outcome="confirmed"))
    rollout.apply(Event("answered", 2.0, devices=rollout.plan.devices[1:4], outcome="failed"))
    rollout.apply(Event("control", 2.0, devices=("x", "y", "z"), outcome="failed"))
    advance(rollout, 3.0, log)
    assert rollout.status == "paused" and "environment" in rollout.why
    rollout.apply(Event("resumed", 9.0, "ana", afresh=True))
    advance(rollout, 9.0, log)
    assert rollout.status == "running" and rollout.wanted[2] == 2
    assert (rollout.ledger.confirmed, rollout.ledger.failed, rollout.lost_canaries) == (1, 0, ())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_no_random_log_widens_past_its_limits(seed: int) -> None:
    """Whatever answers come: a wave is at most what answered, doubled, and what it may lose is bounded."""
    rng = np.random.default_rng(seed)
    made = plan(200, 5, most=6.0)
    rollout, now_s = started(made), 0.0
    outcomes = ("confirmed", "confirmed", "confirmed", "failed")
    for _ in range(60):
        now_s += float(rng.integers(1, 400))
        fresh = [d for d in made.devices[: rollout.allowed] if rollout.ledger.outcome(d) is None]
        taken = tuple(fresh[: int(rng.integers(0, len(fresh) + 1))])
        rollout.apply(Event("admitted", now_s, devices=taken))
        for device in taken:
            if rng.random() < 0.9:
                chosen = outcomes[int(rng.integers(len(outcomes)))]
                rollout.apply(Event("answered", now_s, devices=(device,), outcome=chosen))  # type: ignore[arg-type]
        before, answered = rollout.allowed, rollout.ledger.answered
        log: list[Event] = []
        advance(rollout, now_s, log)
        if rollout.allowed > before:
            now = max(answered, rollout.ledger.answered)
            assert rollout.allowed - now <= max(now, 5)
        if rollout.status == "paused":
            rollout.apply(Event("resumed", now_s, "ana", devices=rollout.lost_canaries))


def test_a_slice_of_the_simulation() -> None:
    """Of 2,000 devices: good releases are not stopped, bad ones do not finish, few are lost."""
    fleet, limits = Fleet(devices=2000, silent=0.05), Limits.of(0.01, 2000, 10)
    for seed in (1, 99):
        found = sweep(fleet, limits, [0.005, 0.1, 1.0], 60, seed, resumes=True)
        assert found[0.005].shares == {"finished": 1.0}
        assert found[0.1].shares == found[1.0].shares == {"stopped": 1.0}
        assert found[0.1].lost_median <= 10 and found[1.0].lost_most <= 10
    alone = sweep(fleet, limits, [0.1], 60, 1)
    assert alone[0.1].lost_median <= 3 and alone[0.1].lost_p95 <= 18


@pytest.mark.parametrize("name", ["fleet-gate", "fleet-gate-seed-1"])
def test_the_committed_rollouts_keep_the_gates_promises(name: str) -> None:
    """10,000 devices, 1,000 rollouts a rate, two seeds: good releases pass, bad ones stop on few losses."""
    found = json.loads((soak.RESULTS / f"{name}.json").read_text())
    result = found["result"]
    assert found["count"] >= 1000 and result["devices"] == 10_000 and result["silent"] == 0.05
    alone, resumed = result["operator absent"], result["operator resumes"]
    for rate in ("0.005", "0.01"):
        assert alone[rate]["shares"].get("stopped", 0) == 0
        assert resumed[rate]["shares"].get("stopped", 0) <= 0.002
    for rate in ("0.03", "0.05", "0.1", "0.3", "1"):
        assert resumed[rate]["shares"]["stopped"] >= 0.999 and alone[rate]["shares"].get("finished", 0) == 0
    assert alone["0.1"]["lost_median"] <= 3 and alone["0.1"]["lost_p95"] <= 18
    assert resumed["0.1"]["lost_p95"] <= 18
    assert result["convicted in an outage of the network"] == 0 and result["rollouts in an outage"] >= 100
    assert len(result["other rules"]) == 3


def test_an_outage_of_the_network_convicts_nothing() -> None:
    limits = Limits.of(0.01, 500, 10)
    for seed in range(20):
        fleet = Fleet(devices=500, outage_from_s=1000.0, outage_s=4 * 86_400.0)
        ending = simulate(fleet, limits, np.random.default_rng(seed), resumes=True)
        assert ending.status == "finished" and ending.lost == 0, ending


def test_where_everything_fails_because_of_the_environment_the_rollout_pauses() -> None:
    limits = Limits.of(0.01, 500, 10)
    for seed in range(20):
        fleet = Fleet(devices=500, environment=3000.0, control=50)
        ending = simulate(fleet, limits, np.random.default_rng(seed))
        assert ending.status == "paused" and "environment" in ending.why, ending


def test_the_question_is_answered_with_a_table_and_a_picture() -> None:
    asked = question({"devices": "300", "tolerated": "1%", "rates": "1%,10%", "runs": "20", "canaries": "5"})
    found = answer(asked)
    assert found["simulated"] is True and [row["failing"] for row in found["rates"]] == [0.01, 0.1]
    assert answer(asked) == found
    assert picture(found).count("<rect") > 10 and "simulated" in picture(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"devices": "0"}, "--devices 0: give a number from 1 to 1e"),
        ({"devices": "2.5"}, "whole number"),
        ({"tolerated": "60%"}, "--tolerated 60%"),
        ({"rates": "1%,x"}, "--rates x"),
        ({"devices": "5", "canaries": "6"}, "--canaries 6"),
        ({"silent": "-1"}, "--silent -1"),
    ],
)
def test_a_bad_question_is_one_sentence(words: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        question(words)
