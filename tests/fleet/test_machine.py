"""The agent's state machine: each transition by name, and its promises under any order of events."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from edgekd.fleet.agent import machine as m
from edgekd.fleet.agent.state import AT_REST, PHASES, Candidate, DamagedStateError, State, dump, parse

A, B, C = (Candidate(letter * 64, number, "r", 1) for number, letter in enumerate("abc", 1))
SERVING = State(phase="confirmed", confirmed=A)


def run(state: State, *events: m.Event) -> tuple[State, tuple[m.Action, ...]]:
    """The state after the events, and the last one's actions."""
    actions: tuple[m.Action, ...] = ()
    for event in events:
        state, actions = m.step(state, event)
    return state, actions


def test_the_way_of_a_good_release() -> None:
    state, actions = run(SERVING, m.Fetched(B, 7))
    assert (state.phase, state.installed_at_s, actions) == ("fetched", 7, (m.Stage(B.sha256),))
    state, actions = run(state, m.Staged())
    assert (state.phase, actions) == ("staged", (m.Raise(m.TrialBegins()),))
    state, actions = run(state, m.TrialBegins())
    assert (state.phase, state.trials) == ("trying", 1)
    assert actions == (m.RunTrial(B.sha256, A.sha256),)
    state, actions = run(state, m.TrialPassed())
    assert (state.phase, state.confirmed, state.previous, state.candidate) == ("confirmed", B, A, None)
    assert actions == (m.Point(B.sha256), m.Restart(), m.Clean())


def test_the_way_of_a_bad_one_never_touches_what_serves() -> None:
    state, actions = run(SERVING, m.Fetched(B), m.Staged(), m.TrialBegins(), m.TrialFailed("golden"))
    assert (state.phase, state.reason, state.confirmed) == ("reverted", "golden", A)
    assert state.quarantine[B.sha256].reason == "golden"
    assert actions == (m.Point(A.sha256), m.Clean())


def test_a_reverted_hash_waits_for_a_new_rollout_or_attempt() -> None:
    state, _ = run(SERVING, m.Fetched(B), m.Staged(), m.TrialBegins(), m.TrialFailed("slow"))
    assert run(state, m.Fetched(B)) == (state, ())
    for again in (replace(B, attempt=2), replace(B, rollout="other")):
        assert run(state, m.Fetched(again))[0].phase == "fetched"


def test_a_trial_that_is_cut_is_begun_three_times() -> None:
    state, _ = run(SERVING, m.Fetched(B), m.Staged(), m.TrialBegins())
    for trial in (2, 3):
        state, actions = run(state, m.Started())
        assert m.Raise(m.TrialBegins()) in actions
        state, _ = run(state, m.TrialBegins())
        assert (state.phase, state.trials) == ("trying", trial)
    state, _ = run(state, m.Started(), m.TrialBegins())
    assert (state.phase, state.reason) == ("reverted", "trial-cut") and B.sha256 in state.quarantine


def test_a_disturbed_trial_is_repeated_and_then_put_off() -> None:
    state, _ = run(SERVING, m.Fetched(B), m.Staged())
    for _ in range(m.MOST_DISTURBED - 1):
        state, actions = run(state, m.TrialBegins(), m.TrialDisturbed("throttled"))
        assert actions == (m.Raise(m.TrialBegins()),)
    state, actions = run(state, m.TrialBegins(), m.TrialDisturbed("throttled"))
    assert (state.phase, actions) == ("staged", ())
    assert run(state, m.Started(), m.TrialBegins())[0].phase == "trying"


def test_no_order_of_cuts_makes_a_loop() -> None:
    state, _ = run(SERVING, m.Fetched(B))
    for _ in range(m.MOST_BOOTS):
        state, actions = run(state, m.Started())
        assert m.Stage(B.sha256) in actions
    assert run(state, m.Started())[0].reason == "loop"


def test_staging_that_fails_frees_the_way_or_convicts() -> None:
    fetched, _ = run(SERVING, m.Fetched(B))
    free, _ = run(fetched, m.StagingFailed("disk-full"))
    assert (free.phase, free.quarantine, free.confirmed) == ("confirmed", {}, A)
    assert run(free, m.Fetched(B))[0].phase == "fetched"
    assert B.sha256 in run(fetched, m.StagingFailed("malformed", permanent=True))[0].quarantine


def test_an_unwell_release_goes_back_once() -> None:
    two = replace(SERVING, confirmed=B, previous=A)
    state, actions = run(two, m.Unwell(B.sha256, "crashed"))
    assert (state.phase, state.confirmed, state.previous) == ("reverted", A, None)
    assert actions == (m.Point(A.sha256), m.Restart(), m.Clean())
    assert run(state, m.Unwell(B.sha256, "crashed")) == (state, ())  # doubled and late: nothing
    alone, actions = run(state, m.Unwell(A.sha256, "crashed"))
    assert alone.confirmed == A and "nothing to go back to" in alone.reason and actions == ()


def test_nothing_goes_back_below_the_floor() -> None:
    two = replace(SERVING, confirmed=B, previous=A)
    state, _ = run(two, m.FloorSeen(2), m.FloorSeen(1), m.RevertAsked("asked"))
    assert (state.floor, state.confirmed) == (2, B)
    assert run(state, m.Fetched(A)) == (state, ())


def test_a_damaged_slot_goes_back_without_a_conviction_or_is_fetched_anew() -> None:
    two = replace(SERVING, confirmed=B, previous=A)
    state, actions = run(two, m.SlotDamaged(B.sha256))
    assert (state.confirmed, state.quarantine) == (A, {}) and m.Point(A.sha256) in actions
    alone, _ = run(SERVING, m.SlotDamaged(A.sha256))
    assert alone.damaged and alone.confirmed == A
    state, actions = run(alone, m.Fetched(A), m.Staged(), m.TrialBegins())
    assert actions == (m.RunTrial(A.sha256, None),)
    state, _ = run(state, m.TrialPassed())
    assert (state.confirmed, state.previous, state.damaged) == (A, None, False)


@pytest.mark.parametrize("seed", range(200))
def test_promises_under_any_order_of_events(seed: int) -> None:
    rng = random.Random(seed)
    state = SERVING if seed % 2 else State()
    passed: set[str] = {A.sha256}
    for _ in range(60):
        before = state
        event = rng.choice(_events(rng))
        state, actions = m.step(state, event)
        if isinstance(event, m.TrialPassed) and before.phase == "trying" and before.candidate:
            passed.add(before.candidate.sha256)
        assert state.phase in PHASES and (state.candidate is None) == (state.phase in AT_REST)
        assert state.floor >= before.floor and state.trials - state.disturbed <= m.MOST_TRIALS
        assert state.confirmed is None or state.confirmed.sha256 in passed
        assert state.confirmed is not None or before.confirmed is None
        points = [each for each in actions if isinstance(each, m.Point)]
        assert all(state.serves(each.sha256) for each in points)
        if state.confirmed != before.confirmed:
            assert points and (
                m.Clean() not in actions or actions.index(m.Clean()) > actions.index(points[0])
            )
        assert parse(dump(state)) == state


def _events(rng: random.Random) -> list[m.Event]:
    offer = rng.choice((A, B, C))
    return [
        m.Started(),
        m.Fetched(replace(offer, attempt=rng.choice((1, 1, 2)))),
        m.Staged(),
        m.StagingFailed("disk-full", rng.random() < 0.2),
        m.TrialBegins(),
        m.TrialPassed(),
        m.TrialFailed("golden"),
        m.TrialDisturbed("throttled"),
        m.Unwell(offer.sha256, "crashed"),
        m.RevertAsked("asked"),
        m.SlotDamaged(offer.sha256),
        m.FloorSeen(rng.choice((0, 1, 2))),
    ]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"state": {}}', b"\xff\x00", b"null"])
def test_a_state_file_of_something_else_is_refused(damage: bytes) -> None:
    with pytest.raises(DamagedStateError):
        parse(damage)


def test_every_flipped_bit_of_a_state_file_is_noticed() -> None:
    good = dump(replace(SERVING, previous=B, quarantine={}))
    for place in range(len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        try:
            assert parse(bytes(bad)) == parse(good)  # a space became another
        except DamagedStateError:
            continue
