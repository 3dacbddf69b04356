"""Deploy and bench from the command line against a real OpenSSH server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

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
    assert found["instructions"] is None and found["flash_bytes"] is None and found["bit_exact"] is None
    assert found["device"]["release"] == deployed["release"]
    kept = [json.loads(line) for line in (project / ".edgekd/records/bench.jsonl").read_text().splitlines()]
    assert kept[-1] == found


def test_a_second_deploy_sends_nothing(project: Path, there: list[str]) -> None:
    edgekd(project, "deploy", "--recipe", "quick", *there)
    done = json.loads(edgekd(project, "deploy", "--recipe", "quick", *there, "--json").stdout)
    assert done["uploaded_bytes"] == 0 and "nothing to do" in done["outcome"]


BAD = [
    (["--to", "127.0.0.1:1"], 6, "refuses connections"),
    (["--to", "not an address"], 2, "is no address"),
    (["--to", "127.0.0.1:99999"], 2, "is no address"),
    (["--to", ""], 2, "has no address"),
]


@pytest.mark.parametrize(("change", "code", "message"), BAD)
def test_a_device_that_cannot_be_reached(
    project: Path, there: list[str], change: list[str], code: int, message: str
) -> None:
    kept = there[:2] + (change if change[1] else []) + there[4:]
    done = edgekd(project, "deploy", "--recipe", "quick", *kept)
    assert (done.returncode, done.stdout) == (code, "") and message in done.stderr
    assert "Traceback" not in done.stderr
