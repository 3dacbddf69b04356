"""The tasks of a fleet against real SSH servers: enrolled, led, watched; a frozen one keeps nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import passphrases
from edgekd.evaluate.record import new_record
from edgekd.fleet import formats, keys, releasing
from edgekd.fleet.home import open_home
from edgekd.fleet.releasing import Parts, Wish
from tests.device.support import Sshd
from tests.fleet.field import releasing_bom
from tests.fleet.made import MODEL
from tests.fleet.test_commands import PASSPHRASE, edgekd
from tests.fleet.test_releasing import DIGEST

pytestmark = [pytest.mark.needs("sshd", "ssh", "ziglang")]
COUNT, BOARD = 2, "rpi4"


@dataclass
class Project:
    """A project whose inventory names two devices. `run` gives a task's exit code and its JSON."""

    folder: Path
    servers: list[Sshd]
    capsys: pytest.CaptureFixture[str]

    def run(self, task: str, *options: str) -> tuple[int, Any]:
        code = edgekd(task, *options, "--json")
        told = self.capsys.readouterr()
        return code, json.loads(told.out) if told.out.strip().startswith(("{", "[")) else told.err

    @property
    def reach(self) -> tuple[str, ...]:
        return ("--to", "@all", "--key", str(self.folder / "login_key"))


@pytest.fixture
def project(
    fast_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    native: dict[str, Mapping[str, bytes]],
) -> Iterator[Project]:
    (fast_path / ".edgekd").mkdir()
    monkeypatch.chdir(fast_path)
    monkeypatch.setenv(passphrases.VARIABLE, PASSPHRASE)
    keys.init(fast_path / "fleet", "plant", datetime.now(UTC), passphrases.ask_new, rounds=1)
    parts = Parts(
        model=MODEL,
        kind="linux",
        contents={path: data for path, data in native["good"].items() if path.startswith("bundle/")},
        golden=("bundle/golden_native.npy",),
        record=new_record(target=BOARD, artifact={"digest": DIGEST}),
        bom=releasing_bom(),
        steps=0,
        made_from=formats.MadeFrom("export", "0123", DIGEST),
    )
    home = open_home(fast_path / "fleet", datetime.now(UTC))
    releasing.propose(home, parts, Wish((BOARD,)))
    releasing.sign(home, passphrases.ask)
    releasing.publish(home)
    with contextlib.ExitStack() as running:
        servers, lines = [], ["[hosts]"]
        for number in range(COUNT):
            folder = fast_path / f"device-{number}"
            (folder / "home").mkdir(parents=True)
            command = f'ForceCommand cd {folder / "home"} && eval "$SSH_ORIGINAL_COMMAND"'
            server = Sshd(folder, command)
            running.callback(server.cut_power)
            servers.append(server)
            address = f"{server.user}@127.0.0.1:{server.port}"
            lines.append(
                f'device-{number} = {{ address = "{address}", target = "{BOARD}", models = ["{MODEL}"] }}'
            )
            with (fast_path / ".edgekd" / "known_hosts").open("a") as stream:
                stream.write(server.known_hosts.read_text())
            with (folder / "authorized_keys").open("a") as stream:
                stream.write((fast_path / "device-0" / "login_key.pub").read_text())
        (fast_path / "inventory.toml").write_text("\n".join(lines) + "\n")
        (fast_path / "login_key").write_bytes((fast_path / "device-0" / "login_key").read_bytes())
        (fast_path / "login_key").chmod(0o600)
        yield Project(fast_path, servers, capsys)


def test_enrolled_started_and_watched_over_ssh(project: Project) -> None:
    """Three commands behind a signed release: the devices decide, the sessions carry what they say."""
    code, found = project.run("fleet.enrol", *project.reach)
    assert (code, found["counts"]) == (0, {"enrolled": COUNT})
    code, found = project.run("fleet.start", "--name", MODEL, "--number", "1", "--canaries", "1")
    assert (code, found["status"], found["allowed"]) == (0, "running", 1)
    picture = project.folder / "evidence.svg"
    code, found = project.run("fleet.watch", *project.reach, "--every", "1", "--out", str(picture))
    assert (code, found["status"], found["confirmed"]) == (0, "finished", COUNT)
    assert "0 failed of 2 admitted" in picture.read_text()
    code, found = project.run("fleet.evidence", "--rollout", found["rollout"])
    assert code == 0 and found["path"] == [] and found["status"] == "finished"
    code, found = project.run("fleet.status", *project.reach)
    assert [row["releases"] for row in found["hosts"]] == [{MODEL: 1}] * COUNT


def test_one_command_enrols_leads_and_watches(project: Project) -> None:
    options = ("--name", MODEL, "--number", "1", "--canaries", "1", "--every", "1")
    code, found = project.run("fleet.start", *options, *project.reach)
    assert (code, found["status"], found["confirmed"]) == (0, "finished", COUNT)


def test_a_frozen_device_costs_its_deadline_and_no_more(project: Project) -> None:
    project.run("fleet.enrol", *project.reach)
    os.kill(project.servers[1].process.pid, signal.SIGSTOP)
    try:
        code, found = project.run("fleet.status", *project.reach, "--deadline", "8")
    finally:
        os.kill(project.servers[1].process.pid, signal.SIGCONT)
    rows = {row["host"]: row for row in found["hosts"]}
    assert code != 0 and rows["device-0"]["error"] is None
    assert rows["device-1"]["error"] and rows["device-1"]["seconds"] < 20


MISTAKES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("fleet.enrol", ("--to", "@all", "--clock", "sundial"), "it must be synced or system"),
    ("fleet.watch", (), "which rollout? there is none"),
    ("fleet.evidence", (), "which rollout? there is none"),
    ("fleet.push", ("--to", "nobody.invalid:22"), "its target '' is unknown; name one with --target"),
    ("fleet.start", ("--name", MODEL), "which release? name it with --name MODEL --number N"),
)


def test_a_mistake_is_one_sentence(project: Project) -> None:
    for task, options, said in MISTAKES:
        code, told = project.run(task, *options)
        assert code != 0 and said in told and "Traceback" not in told, told
