"""Deploy and bench from the command line against a real OpenSSH server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.device.support import Sshd
from tests.spine.support import edgekd, make_project, record

pytestmark = pytest.mark.needs("torch", "sshd", "ssh")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    running = Sshd(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose target `pi` runs this interpreter, in a directory of its own, on the server."""
    project = make_project(tmp_path_factory.mktemp("deploy"))
    (project / "targets").mkdir()
    profile = (Path(__file__).parents[2] / "targets" / "rpi4.toml").read_text()
    changes = (
        ('"rpi4"', '"pi"'),
        ('root = "edgekd"', f'root = "{project / "device"}"'),
        ('python = "python3"', f'python = "{sys.executable}"'),
    )
    for old, new in changes:
        assert old in profile
        profile = profile.replace(old, new)
    (project / "targets" / "pi.toml").write_text(profile)
    return project


@pytest.fixture(scope="module")
def there(server: Sshd, project: Path) -> list[str]:
    """The options that reach the server, its key trusted by `edgekd trust` after one refusal."""
    options = server.options()
    to = f"{options.user}@{options.host}:{options.port}" if options.user else f"{options.host}:{options.port}"
    config = project / "ssh_config"
    config.write_text("")
    login = ["--target", "pi", "--to", to, "--key", str(options.key_file), "--ssh-config", str(config)]
    refused = edgekd(project, "deploy", "--recipe", "quick", *login)
    assert refused.returncode == 7 and "SHA256:" in refused.stderr and "trust" in refused.stderr
    assert not (project / "device").exists()
    trusted = edgekd(project, "trust", *login)
    assert trusted.returncode == 0 and "pinned" in trusted.stdout, trusted.stderr
    return login


def test_deploy_then_bench(project: Path, there: list[str]) -> None:
    done = edgekd(project, "deploy", "--recipe", "quick", *there, "--json")
    assert done.returncode == 0, done.stderr
    deployed = json.loads(done.stdout)
    device = project / "device"
    assert (device / "current").resolve() == (device / "releases" / deployed["release"]).resolve()
    assert deployed["outcome"] == "deployed" and deployed["uploaded_bytes"] > 10_000
    found = record(project, "--recipe", "quick", *there)
    assert found["samples_on_device"] == 360 and found["split"] == "test"
    assert found["latency_us"]["p50"] > 0 and found["load_us"] > 0 and found["peak_rss_bytes"] > 1_000_000
    assert found["agreement"] == 1.0 and found["accuracy"] > 0.3
    assert found["flash_bytes"] is None and found["variant"]["variant"] in (
        "float",
        "int8",
        "litert",
        "native",
    )
    assert [row["verdict"] for row in found["selection"]["candidates"]].count("kept") == 1
    assert found["device"]["release"] == deployed["release"]
    kept = [json.loads(line) for line in (project / ".edgekd/records/bench.jsonl").read_text().splitlines()]
    assert kept[-1] == found


def test_a_second_deploy_sends_nothing(project: Path, there: list[str]) -> None:
    edgekd(project, "deploy", "--recipe", "quick", *there)
    done = json.loads(edgekd(project, "deploy", "--recipe", "quick", *there, "--json").stdout)
    assert done["uploaded_bytes"] == 0 and "nothing to do" in done["outcome"]


def test_several_devices_by_inventory_then_back_and_the_journal(project: Path, there: list[str]) -> None:
    address, rest = there[3], [*there[:2], *there[4:]]
    (project / "inventory.toml").write_text(
        f'[hosts]\nhere = {{ address = "{address}", groups = ["all-of-it"] }}\n'
        f'gone = {{ address = "127.0.0.1:1", groups = ["all-of-it"] }}\n'
    )
    done = edgekd(project, "deploy", "--recipe", "quick", *rest, "--to", "@all-of-it", "--json")
    assert done.returncode == 6, done.stderr
    found = json.loads(done.stdout)
    assert [(row["host"], row["error"] is None) for row in found["hosts"]] == [
        ("here", True),
        ("gone", False),
    ]
    assert found["hosts"][0]["release"].startswith("quick-") and found["counts"]["failed"] == 1
    both = edgekd(project, "deploy", "--recipe", "quick", *rest, "--to", "here,gone")
    assert both.returncode == 6 and "edgekd: gone: 127.0.0.1 port 1 refuses connections" in both.stderr
    assert "1 failed" in both.stdout and "Traceback" not in both.stderr
    back = edgekd(project, "deploy", "--rollback", *rest, "--to", "here")
    assert back.returncode == 6 and "no release before" in back.stderr and back.stdout == ""
    told = edgekd(project, "logs", *rest, "--to", "here")
    assert told.returncode == 0 and "deployed" in told.stdout, told.stderr
    entries = json.loads(edgekd(project, "logs", *there, "--lines", "1", "--json").stdout)["journal"]
    assert [entry["event"] for entry in entries] == ["deployed"]


def test_one_inference_there_and_what_is_refused(project: Path, there: list[str]) -> None:
    image = np.zeros((8, 8), np.float32)
    image[1:7, 3:5] = 1.0
    np.save(project / "one.npy", image)
    done = edgekd(project, "run", "--recipe", "quick", *there, "--input", "one.npy", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["label"] == str(told["index"]) and len(told["output"]) == 10 and told["latency_us"] > 0
    shown = edgekd(project, "run", "--recipe", "quick", *there, "--input", "one.npy")
    assert "label" in shown.stdout and told["release"] in shown.stdout
    for task, options, code, message in (
        ("run", [], 2, "no sample is named; add --input"),
        ("run", ["--input", "gone.npy"], 3, "gone.npy: no such file"),
        ("deploy", ["--rollback", "--service"], 2, "leave one out"),
    ):
        refused = edgekd(project, task, "--recipe", "quick", *there, *options)
        assert (refused.returncode, refused.stdout) == (code, "") and message in refused.stderr


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_without_systemd_a_service_is_refused_and_the_release_stays(project: Path, there: list[str]) -> None:
    done = edgekd(project, "deploy", "--recipe", "quick", *there, "--service")
    assert done.returncode == 9 and "systemd does not run here" in done.stderr, done.stderr
    assert (project / "device" / "current").exists()


BAD = [
    (["--to", "127.0.0.1:1"], 6, "refuses connections"),
    (["--to", "not an address"], 2, "is no address"),
    (["--to", "127.0.0.1:99999"], 2, "is no address"),
    (["--to", ""], 2, "has no address"),
    (["--to", "@attic"], 2, "attic"),
    (["--to", "127.0.0.1:1", "--deadline", "soon"], 2, "--deadline is 'soon'"),
]


@pytest.mark.parametrize(("change", "code", "message"), BAD)
def test_a_device_that_cannot_be_reached(
    project: Path, there: list[str], change: list[str], code: int, message: str
) -> None:
    kept = there[:2] + (change if change[1] else []) + there[4:]
    done = edgekd(project, "deploy", "--recipe", "quick", *kept)
    assert (done.returncode, done.stdout) == (code, "") and message in done.stderr
    assert "Traceback" not in done.stderr
