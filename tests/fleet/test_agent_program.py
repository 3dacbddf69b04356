"""`edgekd-agent` as a program: its commands, its file, its reports; and the same over a transport."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgekd.device.transport import LocalTransport
from edgekd.errors import DeviceError, VerifyError
from edgekd.fleet.agent import config, deliver, ledger, machine, receive, slots, watch
from edgekd.fleet.agent.clock import AHEAD_S, BUILT_AT_S, Now
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.ledger import Account, Ledger
from edgekd.fleet.agent.main import main
from edgekd.fleet.agent.refusals import REASONS, Refused
from edgekd.fleet.agent.state import Candidate, State
from edgekd.fleet.agent.trial import SandboxedTrial
from edgekd.fleet.formats import Watch
from edgekd.fleet.push import push
from edgekd.fleet.remote import RemoteAgent
from edgekd.fleet.reports import verify_report
from edgekd.fleet.shipping import FILE, agent_archive
from tests.fleet.hosts import TestDevice, serving
from tests.fleet.made import CONTENTS, HARDWARE, MODEL, Fleet

DAY_S = 86_400
pytestmark = [pytest.mark.needs("ssh")]


@pytest.fixture
def fleet(fast_path: Path) -> Fleet:
    made = Fleet(fast_path / "host")
    made.release(1)
    made.choose(1)
    return made


@pytest.fixture
def device(fast_path: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> TestDevice:
    """An enrolled device whose trials all pass: its models are not real ones."""
    monkeypatch.setattr(SandboxedTrial, "__call__", lambda self, new, old: machine.TrialPassed())
    return TestDevice(fast_path / "device", fleet)


def run(
    device: TestDevice, capsys: pytest.CaptureFixture[str], *argv: str
) -> tuple[int, dict[str, Any], str]:
    """Exit status, the JSON on standard output, standard error."""
    code = main([*argv, "--root", str(device.root)])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else {}, told.err


def install(device: TestDevice, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    return run(device, capsys, "install", "--metadata", str(device.fleet.host))


def forget_the_last_time(device: TestDevice) -> None:
    """Let the device install again at once: its last installation was long ago."""
    path = device.root / "models" / MODEL / "state.json"
    from edgekd.fleet.agent import state

    path.write_bytes(state.dump(replace(state.parse(path.read_bytes()), installed_at_s=0)))


def test_setup_install_status_revert(device: TestDevice, capsys: pytest.CaptureFixture[str]) -> None:
    code, made, _ = run(device, capsys, "setup")
    assert code == 0 and made["key"].startswith("ssh-ed25519 ")
    code, report, _ = install(device, capsys)
    assert (code, report["models"][MODEL]["outcome"], report["models"][MODEL]["release"]) == (
        0,
        "confirmed",
        1,
    )
    device.fleet.release(2, CONTENTS | {"bundle/int8.onnx": b"2"})
    device.fleet.choose(2)
    code, report, said = install(device, capsys)
    assert code == 7 and report["refused"]["reason"] == "too-soon" and said.count("\n") >= 1
    forget_the_last_time(device)
    assert install(device, capsys)[1]["models"][MODEL]["release"] == 2
    code, report, _ = run(device, capsys, "revert")
    assert (code, report["models"][MODEL]["release"]) == (0, 1)
    assert report["models"][MODEL]["quarantined"][0]["reason"] == "asked"
    assert run(device, capsys, "revert", "--model", MODEL)[0] == 7  # nothing before that
    code, report, _ = run(device, capsys, "status")
    assert code == 0 and report["sequence"] == 6 and report["models"][MODEL]["running"] == device.running
    assert install(device, capsys)[1]["models"][MODEL]["release"] == 1  # not tried again


def test_a_report_is_signed_by_the_devices_own_key(
    device: TestDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    key = run(device, capsys, "setup")[1]["key"]
    install(device, capsys)
    report, signature = ((device.root / name).read_bytes() for name in ("report.json", "report.json.sig"))
    verify_report("pi-1", key, report, signature)
    assert (device.root / "id_ed25519").stat().st_mode & 0o777 == 0o600
    with pytest.raises(VerifyError, match="pi-1"):
        verify_report("pi-1", key, report.replace(b'"release": 1', b'"release": 2'), signature)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("poll",), "not-set-up"),
        (("install", "--metadata", "/nonexistent"), "not-found"),
        (("revert", "--model", "other"), "not-set-up"),
    ],
)
def test_bad_calls_are_one_sentence(
    device: TestDevice, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], reason: str
) -> None:
    code, _, said = run(device, capsys, *argv)
    assert code == 7 and said.startswith(f"edgekd-agent: {reason}: ") and "Traceback" not in said


@pytest.mark.parametrize(
    "text",
    [
        "device = ",
        'device = "pi"\nhardware = "rpi4"',
        'device = "pi"\nhardware = "rpi4"\nmodels = ["a"]\ncolour = 1',
        'device = "Pi 1"\nhardware = "rpi4"\nmodels = ["a"]',
        'device = "pi"\nhardware = "rpi4"\nmodels = "a"',
        'device = "pi"\nhardware = "rpi4"\nmodels = ["a"]\nurl = "ftp://x"',
        'device = "pi"\nhardware = "rpi4"\nmodels = ["a"]\nclock = "sundial"',
        'device = "pi"\nhardware = "rpi4"\nmodels = ["a"]\nreport_url = "file:relative"',
        'device = "pi"\nhardware = "rpi4"\nmodels = ["a"]\nmemory_bytes = -1',
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / config.FILE).write_text(text)
    with pytest.raises(Refused) as refused:
        config.read(tmp_path)
    assert refused.value.reason == "not-set-up" and str(tmp_path) in str(refused.value)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    made = Config("pi-1", "rpi4", ("a", "b"), url='http://x/"y', restart=("systemctl", "restart"), user="s")
    (tmp_path / config.FILE).write_text(config.dump(made))
    assert config.read(tmp_path) == made


def test_a_reason_must_be_a_known_one() -> None:
    assert Refused("expired", "x").exit_code == 7 and len(REASONS) > 20
    with pytest.raises(ValueError, match="no line"):
        Refused("because", "x")


# ---- over a transport -----------------------------------------------------------------------------------


@pytest.fixture
def far(fast_path: Path) -> RemoteAgent:
    """This machine as the device, its home in memory."""
    return RemoteAgent(LocalTransport(fast_path / "home", sys.executable), "agent")


SETTINGS = config.dump(Config("pi-1", HARDWARE, (MODEL,), clock="system"))


def test_enrol_push_and_status_with_the_one_file(fast_path: Path, fleet: Fleet, far: RemoteAgent) -> None:
    """The shipped file alone, in an isolated Python: it finds its own libraries, and refuses by itself."""
    made = far.enrol(SETTINGS, fleet.roots)
    assert made["device"] == "pi-1" and made["key"].startswith("ssh-ed25519 ")
    report = push(far, fleet.host, datetime.now(UTC))
    told = report["models"][MODEL]
    assert (told["outcome"], told["reason"]) == ("reverted", "does-not-load")  # its model is no real one
    assert told["trial"]["walls"] and not (fast_path / "home" / "agent" / "inbox").exists()
    again = push(far, fleet.host, datetime.now(UTC))
    assert again["sequence"] == report["sequence"] + 2 and again["models"][MODEL]["phase"] == "reverted"


def test_what_a_device_has_is_not_sent(fleet: Fleet, device: TestDevice, capsys: Any) -> None:
    from edgekd.fleet.push import files_for

    install(device, capsys)
    device.fleet.release(2, CONTENTS | {"bundle/int8.onnx": b"the second"})
    device.fleet.choose(2)
    report = run(device, capsys, "status")[1]
    sent = dict(files_for(fleet.pair(), report))
    payload = [path for path in sent if "targets/" in path]
    assert len(payload) == 2 and sum("int8.onnx" in path for path in payload) == 1


def test_a_device_without_an_agent_is_told(far: RemoteAgent) -> None:
    far._transport.start(["true"]).close()  # the home exists
    with pytest.raises(DeviceError, match="enrol the device first"):
        far.report()


def test_the_archive_is_the_same_everywhere_and_light() -> None:
    first = agent_archive()
    agent_archive.cache_clear()
    assert agent_archive() == first and len(first) < 3 << 20 and FILE.endswith(".pyz")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "malformed"),
        (b"[]\n", "malformed"),
        (b'{"files": [["../x", 1]]}\n', "malformed"),
        (b'{"files": [["/etc/x", 1]]}\n', "malformed"),
        (b'{"files": [["a", -1]]}\n', "malformed"),
        (b'{"files": [["a", 5]]}\nabc', "unreachable"),
        (b'{"files": [["a", 9000000000000000]]}\n', "too-big"),
    ],
)
def test_what_is_sent_wrong_is_refused(tmp_path: Path, line: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        receive.receive(tmp_path, io.BytesIO(line))
    assert refused.value.reason == reason and not (tmp_path / "x").exists()


# ---- after it is confirmed ------------------------------------------------------------------------------

SERVING = State("confirmed", Candidate("b" * 64, 2), Candidate("a" * 64, 1))
NOW_S = 1_800_000_000


def test_a_ledger_counts_answers_errors_and_crashes(tmp_path: Path) -> None:
    for crash in range(3):
        book = Ledger(tmp_path, "b" * 64, NOW_S + crash)
    for answer in range(150):
        book.answered(NOW_S + 10, answer % 3)
    book.failed(NOW_S + 10)
    book.close(NOW_S + 11)
    found = ledger.read(tmp_path)
    assert found is not None and (found.answers, found.errors, len(found.crashes)) == (150, 1, 2)
    assert found.days == {str(NOW_S // DAY_S): [50, 50, 50]} and not found.open
    assert ledger.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema":1,"sha256":5}', "nonsense"])
def test_a_ledger_of_nonsense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ledger.FILE).write_text(text)
    assert ledger.read(tmp_path) is None


def test_crashes_and_errors_revert_and_old_ones_do_not() -> None:
    limits = Watch(max_crashes=3, max_error_rate=0.01, within_s=3600)
    crashed = Account("b" * 64, crashes=[NOW_S - 5000, NOW_S - 30, NOW_S - 20])
    assert watch.unwell(SERVING, crashed, limits, NOW_S) is None
    crashed.crashes.append(NOW_S - 10)
    assert watch.unwell(SERVING, crashed, limits, NOW_S) == machine.Unwell("b" * 64, "crashes")
    erring = Account("b" * 64, minutes=[[NOW_S // 60, 98, 2]])
    assert watch.unwell(SERVING, erring, limits, NOW_S) == machine.Unwell("b" * 64, "errors")
    assert watch.unwell(SERVING, Account("b" * 64, minutes=[[NOW_S // 60, 9, 2]]), limits, NOW_S) is None
    assert watch.unwell(SERVING, Account("a" * 64, crashes=[NOW_S] * 9), limits, NOW_S) is None


def test_drift_is_an_alarm_only() -> None:
    today = NOW_S // DAY_S
    account = Account("b" * 64, days={str(today - 1): [500, 500], str(today): [490, 510]})
    assert watch.drift(account, Watch(), NOW_S) == {"psi": 0.0004, "alarm": False}
    account.days[str(today)] = [950, 50]
    told = watch.drift(account, Watch(), NOW_S)
    assert told is not None and told["alarm"] and watch.unwell(SERVING, account, Watch(), NOW_S) is None
    assert watch.drift(Account("b" * 64), Watch(), NOW_S) is None


def test_an_unwell_release_goes_back_at_the_next_visit(
    device: TestDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    run(device, capsys, "setup")
    install(device, capsys)
    device.fleet.release(2, CONTENTS | {"bundle/int8.onnx": b"2"})
    device.fleet.choose(2)
    forget_the_last_time(device)
    install(device, capsys)
    assert device.release == 2
    import time

    for _ in range(5):  # the serving process is begun again and again, and never ends in peace
        Ledger(device.root / "serving" / MODEL, str(slots.current(device.disk)), int(time.time()))
    report = run(device, capsys, "status")[1]["models"][MODEL]
    assert (report["release"], report["phase"], report["reason"]) == (1, "reverted", "crashes")
    assert report["answered"]["sha256"] != report["running"]


# ---- clocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system_s", "seen_s", "trusted_s"),
    [
        (0, 0, BUILT_AT_S),  # 1970: the agent was built later
        (0, BUILT_AT_S + DAY_S, BUILT_AT_S + DAY_S),  # a signed time is newer
        (0, BUILT_AT_S + 99 * DAY_S, BUILT_AT_S + AHEAD_S),  # and believed so far
        (BUILT_AT_S + 5 * DAY_S, BUILT_AT_S, BUILT_AT_S + 5 * DAY_S),
        (4_070_908_800, BUILT_AT_S, 4_070_908_800),  # 2099
    ],
)
def test_the_time_that_expiry_is_checked_with(system_s: int, seen_s: int, trusted_s: int) -> None:
    assert Now(system_s).trusted_s(seen_s) == trusted_s


def test_the_archive_runs_without_this_environment(tmp_path: Path) -> None:
    """A bare interpreter, no site-packages: what it imports is in the file."""
    path = tmp_path / FILE
    path.write_bytes(agent_archive())
    python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    if subprocess.run(
        [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False
    ).returncode:
        python = sys.executable
    command = [python, "-I", "-S", str(path), "status", "--root", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7 and "not-set-up" in done.stderr, done.stderr
    code = f"import sys; sys.path.insert(0, {str(path)!r}); from edgekd.fleet.agent import metadata"
    done = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- as a plain TUF client ------------------------------------------------------------------------------


def test_a_plain_client_of_one_repository(fast_path: Path, fleet: Fleet, capsys: Any) -> None:
    """The options and the files of the TUF project's conformance suite: only roles end in .json."""
    kept, got = fast_path / "kept", fast_path / "got"
    kept.mkdir()
    got.mkdir()
    root = fleet.host / "releases" / "metadata" / "1.root.json"
    with serving(fleet.host) as host:
        where = ["--metadata-dir", str(kept), "--metadata-url", f"{host.url}/releases/metadata"]
        assert main(["tuf", "--metadata-dir", str(kept), "init", str(root)]) == 0 and host.requests == []
        assert main(["tuf", *where, "refresh"]) == 0
        roles = {path.stem for path in kept.glob("*.json")}
        assert roles == {"root", "timestamp", "snapshot", "targets"}
        assert host.requests[0].endswith("2.root.json") and host.requests[1].endswith("timestamp.json")
        target = ["--target-name", f"{MODEL}/1.json", "--target-dir", str(got)]
        target += ["--target-base-url", f"{host.url}/releases/targets"]
        for _ in range(2):  # what is there is not asked for again
            assert main(["tuf", *where, *target, "download"]) == 0
        assert sum(path.endswith(".1.json") for path in host.requests) == 1
        assert (got / f"{MODEL}%2F1.json").is_file()
        assert main(["tuf", *where, "--target-name", "no", *target[2:], "download"]) == 1
        host.everything = b"<html>"
        assert main(["tuf", *where, "refresh"]) == 1
    assert "malformed" in capsys.readouterr().err
    assert {path.stem for path in kept.glob("*.json")} == {*roles, f"model-{MODEL}"}


# ---- reports that a device brings -----------------------------------------------------------------------


def with_report_url(device: TestDevice, url: str) -> None:
    settings = config.read(device.root)
    (device.root / config.FILE).write_text(config.dump(replace(settings, report_url=url)))


def test_a_device_puts_its_report_where_the_watcher_reads_it_and_only_news(
    device: TestDevice, fast_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = run(device, capsys, "setup")[1]["key"]
    box = fast_path / "box"
    with_report_url(device, f"file://{box}")
    code, _, said = install(device, capsys)
    assert code == 0 and "the report was not taken" in said  # no such folder: it serves, and tries again
    box.mkdir()
    run(device, capsys, "status")
    report, signature = ((box / f"pi-1.json{end}").read_bytes() for end in ("", ".sig"))
    verify_report("pi-1", key, report, signature)
    assert json.loads(report)["models"][MODEL]["release"] == 1
    run(device, capsys, "status")
    assert (box / "pi-1.json").read_bytes() == report  # nothing new
    run(device, capsys, "install", "--metadata", str(device.fleet.host))
    run(device, capsys, "revert")  # refused, and that is news
    assert json.loads((box / "pi-1.json").read_bytes())["refused"]["reason"] == "not-found"
    assert not list(box.glob("*.new"))


def test_a_report_is_due_for_news_and_once_a_day() -> None:
    model = dict.fromkeys(deliver.NEWS) | {"answered": 5}
    told = {"models": {"m": model}, "refused": None, "at": NOW_S}
    sent = deliver.news(told)
    assert not deliver.is_due(told, sent, NOW_S - 100) and deliver.is_due(told, sent, NOW_S - DAY_S)
    assert deliver.is_due(told, sent, NOW_S + 5) and deliver.is_due(told, "", 0)
    other = told | {"models": {"m": model | {"phase": "reverted"}}}
    assert deliver.news(other) != sent
    assert deliver.news(told | {"models": {"m": model | {"answered": 6}}}) == sent
