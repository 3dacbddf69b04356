"""From parts to a published release: refused while something lacks, signed by whom it must, then whole."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError, EdgekdError, RolloutError, VerifyError
from edgekd.evaluate.record import new_record
from edgekd.fleet import choosing, formats, keys, pair, payload, releasing, repository
from edgekd.fleet.bom import Facts, Origin, check_bom, write_bom
from edgekd.fleet.choosing import Choice
from edgekd.fleet.drill_fleet import Time, enrol
from edgekd.fleet.formats import MadeFrom
from edgekd.fleet.home import Home, open_home
from edgekd.fleet.listing import releases
from edgekd.fleet.releasing import Parts, Wish

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = "ab" * 32
MODEL, BOARD = "drill-model", "drill-board"  # what the drill's devices run and are


def ask(name: str) -> str:
    return f"a long passphrase of {name}"


def npy(*values: float) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(values, np.float32))
    return stream.getvalue()


FACTS = Facts(
    name=MODEL,
    version="1",
    model=Origin(MODEL, DIGEST),
    data=(Origin("digits", "cd" * 32, {"rows": "1189"}),),
    teachers=(Origin("teacher", "ef" * 32),),
    tools={"torch": "2.13.0", "onnxruntime": "1.32.0"},
    licence="Apache-2.0",
)


def parts(number: int = 1, **changes: Any) -> Parts:
    made = Parts(
        model=MODEL,
        kind="linux",
        contents={
            "bundle/bundle.json": b"{}",
            "bundle/int8.onnx": b"model %d" % number,
            "bundle/golden_int8.npy": npy(1.0, 2.0),
        },
        golden=("bundle/golden_int8.npy",),
        record=new_record(target=BOARD, peak_rss_bytes=60 << 20, artifact={"digest": DIGEST}),
        bom=write_bom(FACTS),
        steps=3,
        made_from=MadeFrom("export", "0123", DIGEST),
    )
    return replace(made, **changes)


WISH = Wish((BOARD,))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet") / "fleet"
    keys.init(folder, "plant", NOW, ask, rounds=1)
    return folder


@pytest.fixture
def home(begun: Path, tmp_path: Path) -> Home:
    shutil.copytree(begun, tmp_path / "fleet")
    return open_home(tmp_path / "fleet", NOW)


def released(home: Home, count: int = 1, **changes: Any) -> None:
    for number in range(1, count + 1):
        releasing.propose(home, parts(number, **changes), WISH)
        releasing.sign(home, ask)
        releasing.publish(home)


def test_a_release_is_created_signed_and_published(home: Home, tmp_path: Path) -> None:
    made = releasing.propose(home, parts(), replace(WISH, label="first", slot_bytes=1 << 20))
    assert (made.release, made.health.golden_steps, made.health.max_peak_rss_bytes) == (1, 3, 120 << 20)
    assert not (home.host / "releases/targets").exists()  # nothing of it is public yet
    with pytest.raises(VerifyError, match="targets has 0 of 1 signatures"):
        releasing.publish(home)
    signed = releasing.sign(home, ask)
    assert signed["signed_by"] == ["targets-1"] and signed["lacking"] == []
    size = f"{made.payload_bytes:,}"
    assert signed["changes"] == [f"new: {MODEL} release 1, {size} bytes for {BOARD}"]
    done = releasing.publish(home)
    assert done["published"][-1] == "releases/timestamp.json"
    assert payload.missing(home.host, [made]) == []
    repository.verify_folder(home.open().releases)
    assert not home.proposed.exists()
    row = {"model": MODEL, "release": 1, "label": "first", "kind": "linux", "hardware": [BOARD]}
    row |= {"payload_bytes": made.payload_bytes, "floor": 1, "chosen": {}}
    assert releases(home) == [row]
    choosing.choose(home, Choice(MODEL, 1, devices=["drill-1"]), ask)
    device = enrol(tmp_path / "device", Time(NOW + timedelta(hours=1)), home.host)
    assert device.visit(home.host) == "runs 1"


def lacking() -> dict[str, tuple[Callable[[Parts], Parts], str]]:
    def contents(**changes: bytes | None) -> Callable[[Parts], Parts]:
        def change(made: Parts) -> Parts:
            table = {**made.contents, **{f"bundle/{k}.npy": v for k, v in changes.items()}}
            return replace(made, contents={k: v for k, v in table.items() if v is not None})

        return change

    bom = json.loads(write_bom(FACTS))
    without = {key: value for key, value in bom.items() if key != "components"}
    unlicensed = json.loads(json.dumps(bom))
    unlicensed["metadata"]["component"].pop("licenses")
    bare = json.loads(json.dumps(bom))
    bare["metadata"]["component"].pop("hashes")

    def with_bom(value: Any) -> Callable[[Parts], Parts]:
        return lambda made: replace(made, bom=json.dumps(value).encode())

    return {
        "no golden vectors": (lambda made: replace(made, golden=()), "golden names no vectors"),
        "golden vectors that are not there": (contents(golden_int8=None), "golden_int8.npy is not among"),
        "golden vectors that are no array": (contents(golden_int8=b"x"), "golden vectors are no array"),
        "golden vectors that are not finite": (contents(golden_int8=npy(float("nan"))), "not finite"),
        "no golden vector in the array": (contents(golden_int8=npy()), "are empty"),
        "no bench record": (lambda made: replace(made, record={}), "a bench record of schema None"),
        "another board's bench record": (
            lambda made: replace(made, record={**made.record, "target": "rpi4"}),
            f"was benched on rpi4, and is for {BOARD}; bench it there",
        ),
        "a bench record cut short": (
            lambda made: replace(made, record={"schema": 1, "target": BOARD}),
            "the bench record has no key accuracy",
        ),
        "no BOM": (lambda made: replace(made, bom=b""), "the ML-BOM is damaged"),
        "a BOM of something else": (with_bom({"bomFormat": "SPDX"}), "the ML-BOM is damaged"),
        "a BOM without data": (with_bom(without), "names no data with their SHA-256"),
        "a BOM without a licence": (with_bom(unlicensed), "names no licence"),
        "a BOM without the model's hash": (with_bom(bare), "no model with its SHA-256"),
        "an old BOM": (with_bom(bom | {"specVersion": "1.4"}), "no CycloneDX of 1.5 or later"),
    }


LACKING = lacking()


@pytest.mark.parametrize("case", LACKING)
def test_a_release_that_lacks_something_is_refused(home: Home, case: str) -> None:
    change, message = LACKING[case]
    with pytest.raises(ArtifactError, match=message) as caught:
        releasing.propose(home, change(parts()), WISH)
    assert "\n" not in str(caught.value)
    assert not home.proposed.exists()


REFUSED: dict[str, tuple[Wish, type[EdgekdError], str]] = {
    "a number that is taken": (replace(WISH, number=2), RolloutError, "is there already; take number 3"),
    "a number below": (replace(WISH, number=1), RolloutError, "release 2 is there already"),
    "larger than the slot": (replace(WISH, slot_bytes=100), RolloutError, "a slot has 100"),
    "a slot of nothing": (replace(WISH, slot_bytes=-1), ConfigError, "slot_bytes: is -1"),
    "a board without a name": (replace(WISH, hardware=("rpi 4", BOARD)), ArtifactError, "'rpi 4'"),
    "the same board twice": (replace(WISH, hardware=(BOARD, BOARD)), ArtifactError, "names something twice"),
    "a label that breaks lines": (replace(WISH, label="a\nb"), ArtifactError, "label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_release_that_does_not_fit_is_refused(home: Home, case: str) -> None:
    released(home, 2)
    wish, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        releasing.propose(home, parts(3), wish)
    assert [row["release"] for row in releases(home)] == [1, 2]


def test_what_waits_is_changed_by_nobody_unseen(home: Home) -> None:
    """A file that was changed between signing and publishing stops the publication."""
    made = releasing.propose(home, parts(), WISH)
    releasing.sign(home, ask)
    entry = made.files["bundle/int8.onnx"]
    file = payload.place(home.proposed, formats.payload_path(MODEL, "bundle/int8.onnx"), entry.sha256)
    file.write_bytes(b"model 9")
    with pytest.raises(VerifyError, match="its bytes are not those that are signed"):
        releasing.publish(home)
    assert releases(home) == []


def test_a_signature_of_before_a_change_does_not_count(home: Home) -> None:
    releasing.propose(home, parts(1), WISH)
    releasing.sign(home, ask)
    releasing.propose(home, parts(2), WISH)  # a second one enters the same change
    with pytest.raises(VerifyError, match="has 0 of 1"):
        releasing.publish(home)
    assert len(releasing.sign(home, ask)["changes"]) == 2
    releasing.publish(home)
    assert [row["release"] for row in releases(home)] == [1, 2]


RENAMES = 10  # six files, three roles, the timestamp


@pytest.mark.parametrize("cut_after", range(RENAMES + 1))
def test_a_publish_cut_anywhere_is_finished_by_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut_after: int
) -> None:
    """Cut after each rename into the host's folder: a device sees nothing, or the whole release."""
    releasing.propose(home, parts(), WISH)
    releasing.sign(home, ask)
    whole, count = os.replace, [0]

    def cut(old: Any, new: Any) -> None:
        if count[0] == cut_after:
            raise KeyboardInterrupt
        whole(old, new)
        count[0] += 1

    def cut_at_the_end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut)
    monkeypatch.setattr(shutil, "rmtree", cut_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        releasing.publish(home)
    monkeypatch.undo()
    assert count[0] == cut_after
    assert [row["release"] for row in releases(home)] == ([1] if cut_after == RENAMES else [])
    repository.verify_folder(pair.Pair(home.host, NOW).releases)
    releasing.publish(home)
    assert [row["release"] for row in releases(home)] == [1]
    made = releasing.propose(home, parts(2), WISH)
    assert made.release == 2


def test_of_two_operators_the_second_to_publish_is_told(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.folder, tmp_path / "other")
    other = open_home(tmp_path / "other", NOW)
    for each, number in ((home, 1), (other, 2)):
        releasing.propose(each, parts(number), WISH)
        releasing.sign(each, ask)
    releasing.publish(home)
    shutil.rmtree(other.host)
    shutil.copytree(home.host, other.host)  # both work on the same host folder
    with pytest.raises(RolloutError, match="another operator has published"):
        releasing.publish(other)


def test_nothing_waits(home: Home) -> None:
    for work in (lambda: releasing.publish(home), lambda: releasing.sign(home, ask)):
        with pytest.raises(RolloutError, match="nothing waits"):
            work()


# ---- floor, withdrawing, choosing -----------------------------------------------------------------------


def choose(home: Home, number: int, **changes: Any) -> dict[str, Any]:
    return choosing.choose(home, replace(Choice(MODEL, number, ppm=formats.PPM), **changes), ask)


def test_the_floor_rises_behind_the_fleet_never_before_it(home: Home) -> None:
    released(home, 2)
    choose(home, 1)
    with pytest.raises(RolloutError, match="led to release 1, which would be below the floor"):
        releasing.raise_floor(home, MODEL, 2)
    with pytest.raises(RolloutError, match="there is no release 7"):
        releasing.raise_floor(home, MODEL, 7)
    choose(home, 2)
    releasing.raise_floor(home, MODEL, 2)
    assert releasing.sign(home, ask)["changes"] == [
        f"policy of {MODEL}: floor 1 -> 2, slot 67,108,864 -> 67,108,864 bytes"
    ]
    releasing.publish(home)
    with pytest.raises(RolloutError, match="below the floor, release 2"):
        choose(home, 1)
    with pytest.raises(RolloutError, match="no device lowers the one"):
        releasing.raise_floor(home, MODEL, 1)


def test_a_release_in_use_is_not_withdrawn(home: Home) -> None:
    released(home, 2)
    choose(home, 1)
    with pytest.raises(RolloutError, match="led to release 1; choose another one first"):
        releasing.withdraw(home, MODEL, 1)
    choose(home, 2)
    releasing.withdraw(home, MODEL, 1)
    assert releasing.sign(home, ask)["changes"] == [f"withdrawn: {MODEL} release 1"]
    releasing.publish(home)
    assert [row["release"] for row in releases(home)] == [2]


def test_named_devices_and_a_share_are_chosen_with_one_salt(home: Home) -> None:
    released(home)
    wave = choose(home, 1, ppm=250_000, devices=["pi-1", "pi-2"])["waves"][0]
    assert formats.in_wave(wave, "pi-1") and formats.in_wave(wave, "pi-2")
    assert choosing.current(home, MODEL) == [wave]
    assert releases(home)[0]["chosen"] == {BOARD: 250_000}
    wider = choosing.again(home, wave, ask, ppm=500_000, state="paused")["waves"][0]
    assert (wider.salt, wider.canaries, wider.state) == (wave.salt, wave.canaries, "paused")


BAD_CHOICES: dict[str, tuple[dict[str, Any], type[EdgekdError], str]] = {
    "nobody": ({"ppm": 0}, RolloutError, "nobody is chosen; name devices or a share"),
    "not signed": ({"release": 5}, RolloutError, "release 5 is not signed; signed are 1"),
    "other hardware": ({"hardware": ("rpi4",)}, RolloutError, f"signed for {BOARD}, not for rpi4"),
    "more than all": ({"ppm": 1_000_001}, ConfigError, "ppm: is 1000001"),
    "a crowd by name": ({"devices": ["x"] * 5000}, RolloutError, "5000 devices are named"),
    "a device without a name": ({"devices": ["pi 1"]}, ConfigError, "'pi 1' is no name"),
    "a deadline of nothing": ({"deadline_s": 0}, ConfigError, "deadline_s: is 0"),
}


@pytest.mark.parametrize("case", BAD_CHOICES)
def test_a_choice_that_cannot_be_is_refused(home: Home, case: str) -> None:
    released(home)
    changes, kind, message = BAD_CHOICES[case]
    before = (home.host / "rollout/metadata/timestamp.json").read_bytes()
    with pytest.raises(kind, match=message):
        choose(home, 1, **changes)
    assert (home.host / "rollout/metadata/timestamp.json").read_bytes() == before


def test_nothing_is_chosen_once_the_offline_part_has_expired(home: Home) -> None:
    released(home)
    late = open_home(home.folder, NOW + timedelta(days=181))
    with pytest.raises(RolloutError, match=r"has expired.*keys\.refresh --offline"):
        choose(late, 1)


# ---- limits and the BOM ---------------------------------------------------------------------------------


def test_limits_are_read_from_a_file(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        "tolerated_failure_rate = 0.02\n[health]\nsoak_inferences = 5000\n[watch]\nmax_crashes = 1\n"
    )
    made = releasing.propose(home, parts(), replace(WISH, limits=releasing.read_limits(file)))
    assert (made.tolerated_failure_rate, made.health.soak_inferences, made.watch.max_crashes) == (
        0.02,
        5000,
        1,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[helth]\n", "unknown key helth; did you mean health"),
        ("[health]\nsoak = 1\n", "unknown key soak"),
        ("[health]\ntrial_s = -1\n", "trial_s: is -1"),
        ("health = 3\n", "must be a table"),
        ("[health\n", "not valid TOML"),
    ],
)
def test_bad_limits_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        releasing.read_limits(file)


def test_the_bom_says_model_data_teacher_tools_and_licence_and_is_the_same_each_time() -> None:
    data = write_bom(FACTS)
    assert data == write_bom(FACTS)
    table = json.loads(data)
    subject = table["metadata"]["component"]
    assert (table["bomFormat"], table["specVersion"]) == ("CycloneDX", "1.6")
    assert subject["type"] == "machine-learning-model" and subject["hashes"][0]["content"] == DIGEST
    assert subject["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    kinds = {each["type"]: each for each in table["components"]}
    assert kinds["data"]["hashes"][0]["content"] == "cd" * 32
    assert kinds["machine-learning-model"]["name"] == "teacher"
    tools = {each["name"]: each["version"] for each in table["metadata"]["tools"]["components"]}
    assert tools == FACTS.tools
    depends = {each["ref"]: each.get("dependsOn", []) for each in table["dependencies"]}
    assert len(depends[subject["bom-ref"]]) == 2
    check_bom(data, "here")


def test_a_bom_needs_a_licence_and_data() -> None:
    with pytest.raises(ConfigError, match="no licence is named for the model; add --licence"):
        write_bom(replace(FACTS, licence=""))
    with pytest.raises(ArtifactError, match="are not known here; add --bom"):
        write_bom(replace(FACTS, data=()))
