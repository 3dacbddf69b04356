"""A rollout's evidence in words and as a picture, and the table of who watches it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from edgekd.fleet.evidence import evidence, picture
from edgekd.fleet.gate import Limits
from edgekd.fleet.operate import status
from edgekd.fleet.rollout import Event, Plan, Rollout, advance
from edgekd.report.rollout_view import RolloutView

DEVICES = tuple(f"device-{i}" for i in range(400))


def rollout(failed: tuple[int, ...], admitted: int) -> Rollout:
    """Of 400 devices the first ones were admitted, and those at these places failed."""
    made = Rollout(Plan("digits-2", "digits", 2, "00" * 16, DEVICES, Limits.of(0.01, 400, 10), 600.0))
    made.apply(Event("started", 0.0, "ana"))
    made.apply(Event("admitted", 1.0, devices=DEVICES[:admitted]))
    lost = tuple(DEVICES[place] for place in failed)
    made.apply(Event("answered", 2.0, devices=lost, outcome="failed"))
    rest = tuple(each for each in DEVICES[:admitted] if each not in lost)
    made.apply(Event("answered", 2.0, devices=rest, outcome="confirmed"))
    return made


@pytest.mark.parametrize(
    ("failed", "admitted", "words"),
    [
        ((), 10, "0 failed of 10 admitted (10 confirmed, 0 failed): evidence 1.0 : 1 against 1 %"),
        ((0, 1, 2), 3, "3 failed of 3 admitted (0 confirmed, 3 failed): evidence 4,976 : 1 against 1 %"),
        ((5,), 10, "1 failed of 10 admitted (9 confirmed, 1 failed): evidence 4.9 : 1 against 1 %"),
    ],
)
def test_the_evidence_in_words(failed: tuple[int, ...], admitted: int, words: str) -> None:
    assert evidence(rollout(failed, admitted))["words"].startswith(words)


def test_the_picture_shows_each_failure_and_the_line_that_stops() -> None:
    made = rollout((3, 40, 41, 42, 43, 44), 212)
    advance(made, 3.0, [])
    found = evidence(made)
    assert found["status"] == "stopped" and found["why"].startswith("stopped after 6 of 212: evidence")
    assert [place for place, _ in found["path"]] == [4, 41, 42, 43, 44, 45]
    drawn = ET.fromstring(picture(found))
    circles = [each for each in drawn.iter() if each.tag.endswith("circle")]
    heights = [float(each.get("cy", "nan")) for each in circles]
    assert len(circles) == 6 and heights[5] < heights[4] < heights[1]
    (stops,) = [each for each in drawn.iter() if each.get("stroke-dasharray")]
    assert heights[5] < float(stops.get("y1", "nan")) < heights[1]
    assert "digits-2: digits release 2, stopped" in "".join(drawn.itertext())


def test_a_picture_of_nothing_yet_and_of_overwhelming_evidence() -> None:
    assert "<circle" not in picture(evidence(rollout((), 0)))
    assert "nan" not in picture(evidence(rollout(tuple(range(300)), 300)))


def test_the_live_table_has_a_bar_and_the_last_decisions() -> None:
    from rich.console import Console

    view, made = RolloutView(), rollout((0, 1, 2), 40)
    events: list[Event] = []
    advance(made, 3.0, events)
    view._live = object()  # as on a terminal: it draws, and prints no lines
    view(status(made) | {"watched_by": None}, events)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(view.table())
    shown = console.export_text()
    assert "stopped after 3 of 40" in shown and "evidence" in shown and "█" in shown and "37" in shown


def test_without_a_terminal_each_look_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with RolloutView() as view:
        view(status(rollout((), 10)) | {"watched_by": None}, [])
        view(status(rollout((), 10)) | {"watched_by": "ben@desk:1"}, [])
    lines = capsys.readouterr().err.splitlines()
    assert "running: 10 confirmed, 0 failed" in lines[0] and "ben@desk:1 watches it" in lines[1]
