"""Workers as processes: two at once, one killed, all killed, and what is left then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgekd import api
from edgekd.pipeline import searching
from tests.search.projects import project

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; sys.argv[0] = 'edgekd'; from edgekd.cli import main; main()"
SLOW = "epochs = 8\nmargin = 0.0"


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "search", "--recipe", "small", "--target", "mcu-sim", *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def trials_in(root: Path) -> list[dict[str, Any]]:
    """The trials that the journal of the one search in `root` holds as begun: {"trained", "worker", ...}."""
    import optuna

    (folder,) = (root / ".edgekd" / "search").glob("*")
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    (study,) = storage.get_all_studies()
    every = storage.get_all_trials(study._study_id)
    return [
        {"state": t.state.name, "values": t.values, **t.user_attrs}
        for t in every
        if "trained" in t.user_attrs
    ]


def wait_for(condition: Any, seconds: float = 900) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = condition()
        except (ValueError, OSError):
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def workers_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "edgekd.search.worker" in line]


def test_kill_9_in_the_middle_loses_at_most_the_running_trials(tmp_path: Path) -> None:
    root = project(tmp_path, SLOW)
    first = start(root, "--workers", "2", "--trials", "5")
    done = wait_for(lambda: [t for t in trials_in(root) if t["state"] == "COMPLETE"])
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = trials_in(root)
    second = start(root, "--workers", "2", "--trials", "5", "--json")
    out, said = second.communicate(timeout=900)
    assert second.returncode == 0, said
    found, after = json.loads(out), trials_in(root)
    assert found["trials"] == 5
    for trial in (t for t in before if t["state"] == "COMPLETE"):
        assert trial in after  # nothing that was trained is lost
    finished = [t["candidate"] for t in after if t["state"] in ("COMPLETE", "PRUNED")]
    for trial in (t for t in before if t["state"] == "RUNNING"):
        assert trial["candidate"] in finished  # and what was running has been run again
    was_running = any(trial["state"] == "RUNNING" for trial in before)  # else it fell between two trials
    assert done and ("had no process any more: run again" in said) == was_running
    assert len({t["worker"] for t in after}) > 1


def test_a_worker_that_dies_is_replaced_and_said_so(tmp_path: Path) -> None:
    root = project(tmp_path, SLOW)
    request = api.request(recipe="small", target="mcu-sim", start=root)
    searching.prepare(request, searching.Wanted())  # knowledge first: then the process has only to search
    process = start(root, "--trials", "2", "--json")
    wait_for(lambda: [t for t in trials_in(root) if t["state"] == "RUNNING"])
    (worker,) = workers_of(process.pid)
    os.kill(worker, signal.SIGKILL)
    out, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert "a search worker died (signal 9); its trial is run again by another" in said
    assert json.loads(out)["trials"] == 2
    assert "Traceback" not in said
