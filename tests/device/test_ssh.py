"""SSH against a real OpenSSH server: trust, keys, the config file, jump hosts, and a link that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.device.connect import open_transport, trust
from edgekd.device.deploy import deploy, device_status
from edgekd.device.ssh import SshTransport, plan_route, trust_host
from edgekd.device.transport import LinkCutError, parse_address
from edgekd.errors import ConfigError, DeviceError, EdgekdError, MissingDependencyError, VerifyError
from edgekd.target import load_target
from tests.device.support import Sshd, free_port, proxy_to, script

TARGETS = [Path(__file__).resolve().parents[2] / "targets"]
pytestmark = pytest.mark.needs("sshd")


def one_sentence(error: pytest.ExceptionInfo[EdgekdError]) -> str:
    """The message, held to be one line without a traceback."""
    text = str(error.value)
    assert text and "\n" not in text and "Traceback" not in text
    return text


def fingerprint(public_key: Path) -> str:
    """What ssh-keygen says about a key."""
    listing = subprocess.run(["ssh-keygen", "-lf", public_key], check=True, capture_output=True, text=True)
    return listing.stdout.split()[1]


def test_a_host_that_is_away(sshd: Sshd) -> None:
    with pytest.raises(DeviceError) as error:
        sshd.connect(free_port())
    assert "refuses connections" in one_sentence(error)


def test_a_host_that_does_not_answer(sshd: Sshd) -> None:
    begin = time.monotonic()
    with pytest.raises(DeviceError) as error:
        sshd.connect(22, host="192.0.2.1", timeout_s=0.5)  # reserved: nobody answers, or no route
    assert "192.0.2.1 port 22" in one_sentence(error)
    assert time.monotonic() - begin < 5


def test_a_host_without_a_name(sshd: Sshd) -> None:
    with pytest.raises(DeviceError, match="not a known name"):
        sshd.connect(host="no-such-host.invalid")


def test_a_port_where_something_else_answers_nothing(sshd: Sshd) -> None:
    with proxy_to(sshd.port) as proxy:
        proxy.freeze_after = 0
        begin = time.monotonic()
        with pytest.raises(DeviceError) as error:
            sshd.connect(proxy.port, timeout_s=0.5)
        assert time.monotonic() - begin < 6
    one_sentence(error)


def test_login_refused(sshd: Sshd) -> None:
    with pytest.raises(DeviceError) as error:
        sshd.connect(key_file=sshd.folder / "other_key")
    text = one_sentence(error)
    assert "refuses the login" in text and "other_key" in text and "ssh-copy-id" in text


def test_a_key_file_that_is_missing_or_none(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        sshd.connect(key_file=tmp_path / "absent")
    (tmp_path / "noise").write_text("not a key\n")
    with pytest.raises(ConfigError, match="noise"):
        sshd.connect(key_file=tmp_path / "noise")


def test_a_key_with_a_passphrase_names_ssh_add_and_works_from_the_agent(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "locked_key"
    shutil.copy(sshd.key, key)
    shutil.copy(sshd.key.with_suffix(".pub"), tmp_path / "locked_key.pub")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True, stdout=subprocess.DEVNULL
    )
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(DeviceError, match="ssh-add"):
        sshd.connect(key_file=key)
    socket_path = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL)
    try:
        while not socket_path.exists():
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
        subprocess.run(["ssh-add", "-q", sshd.key], check=True, stderr=subprocess.DEVNULL)
        sshd.connect(key_file=key).close()
    finally:
        agent.terminate()
        agent.wait()


def test_an_unknown_host_key_is_refused_with_fingerprint_and_command(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(VerifyError) as error:
        sshd.connect(known_hosts=(tmp_path / "none",))
    text = one_sentence(error)
    assert fingerprint(sshd.folder / "host_key.pub") in text
    assert f"invoke trust --target rpi4 --to {sshd.user}@127.0.0.1:{sshd.port}" in text


def test_trusting_pins_the_key_once_and_never_replaces_one(sshd: Sshd, tmp_path: Path) -> None:
    own = tmp_path / "deep" / "known_hosts"
    options = sshd.options(known_hosts=(tmp_path / "none", own))
    first, second = trust_host(options), trust_host(options)
    assert (first.added, second.added) == (True, False)
    assert first.fingerprint == fingerprint(sshd.folder / "host_key.pub")
    SshTransport(options).close()
    assert len(own.read_text().splitlines()) == 1
    kind, blob = (sshd.folder / "other_key.pub").read_text().split()[:2]
    own.write_text(f"[127.0.0.1]:{sshd.port} {kind} {blob}\n")
    with pytest.raises(VerifyError, match="HAS CHANGED"):
        trust_host(options)
    assert blob in own.read_text()


def test_a_changed_host_key_is_refused_loudly(sshd: Sshd, tmp_path: Path) -> None:
    kind, blob = (sshd.folder / "other_key.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {kind} {blob}\n")
    with pytest.raises(VerifyError) as error:
        sshd.connect(known_hosts=(tmp_path / "known",))
    text = one_sentence(error)
    assert "HAS CHANGED" in text and fingerprint(sshd.folder / "host_key.pub") in text
    assert fingerprint(sshd.folder / "other_key.pub") in text and "ssh-keygen -R" in text


def test_a_broken_known_hosts_file_is_named(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("host ssh-ed25519 A\n")
    with pytest.raises(ConfigError, match="known"):
        sshd.connect(known_hosts=(tmp_path / "known",))


def test_the_config_file_gives_name_user_port_and_key(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host board\n HostName 127.0.0.1\n User {sshd.user}\n Port {sshd.port}\n IdentityFile {sshd.key}\n"
    )
    given = {"host": "board", "user": None, "key_file": None, "config_file": config}
    hop = plan_route(sshd.options(**given))[-1]
    assert (hop.host, hop.user, hop.key_files) == ("127.0.0.1", sshd.user, (sshd.key,))
    sshd.connect(**given).close()


def test_a_jump_host_leads_there_and_its_key_is_pinned_too(sshd: Sshd, tmp_path: Path) -> None:
    other = Sshd(tmp_path / "jump")
    try:
        config = tmp_path / "config"
        config.write_text(
            f"Host board\n Port {sshd.port}\n IdentityFile {sshd.key}\n ProxyJump gate\n"
            f"Host gate\n Port {other.port}\n IdentityFile {other.key}\n"
            f"Host *\n HostName 127.0.0.1\n User {sshd.user}\n"
        )
        given = {"host": "board", "user": None, "key_file": None, "config_file": config}
        both = {"known_hosts": (sshd.known_hosts, other.known_hosts)}
        with sshd.connect(**given, **both) as transport, pytest.raises(DeviceError, match="holds no release"):
            device_status(transport, str(tmp_path / "nowhere"))
        with pytest.raises(VerifyError, match=f":{other.port}"):
            sshd.connect(**given)
        other.stop()
        with pytest.raises(DeviceError, match=f"port {other.port} refuses"):
            sshd.connect(**given, **both)
    finally:
        other.stop()


def test_a_config_that_cannot_be_followed(sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    for text, word in (
        ("Host board\n ProxyCommand nc %h %p\n", "ProxyCommand"),
        ("Host board\n ProxyJump gate\nHost gate\n ProxyJump board\n", "circles"),
        ("Host board\n Port many\n", "Port"),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError, match=word):
            plan_route(sshd.options(host="board", port=None, config_file=config))


def test_a_login_shell_that_prints_text(tmp_path: Path, bundle: Path) -> None:
    profile = tmp_path / "profile"
    profile.write_text("echo Welcome to the board!\nprintf 'no newline, and a brace {'\necho oops >&2\n")
    server = Sshd(tmp_path / "sshd", f"SetEnv BASH_ENV={profile}")
    try:
        with server.connect() as transport:
            assert b"Welcome" in transport.start(["true"]).receive(5.0)
            result = deploy(transport, bundle, str(tmp_path / "root"))
        assert os.readlink(tmp_path / "root" / "current") == f"releases/{result.release}"
    finally:
        server.stop()


def test_a_python_that_is_missing_or_too_old(sshd: Sshd, tmp_path: Path, bundle: Path) -> None:
    with sshd.connect(python="no-such-python") as transport, pytest.raises(MissingDependencyError) as error:
        deploy(transport, bundle, str(tmp_path / "root"))
    assert "no-such-python" in one_sentence(error)
    # BOOT runs as it is, but sys.version_info says 3.9
    old = script(
        tmp_path / "old-python",
        f'shift; code=$1; shift; exec {sys.executable} -c "import sys;sys.version_info=(3,9);$code" "$@"',
    )
    with sshd.connect(python=str(old)) as transport, pytest.raises(DeviceError) as old_error:
        deploy(transport, bundle, str(tmp_path / "root"))
    assert "Python 3.9" in one_sentence(old_error)
    assert not (tmp_path / "root").exists()


def test_the_link_dies_while_a_program_starts(sshd: Sshd, tmp_path: Path) -> None:
    with proxy_to(sshd.port) as proxy:
        sshd.pin(proxy.port, "host_key")
        with sshd.connect(proxy.port, timeout_s=1.0) as transport:
            proxy.freeze_after = 0
            begin = time.monotonic()
            with pytest.raises(LinkCutError):
                device_status(transport, str(tmp_path))
            assert time.monotonic() - begin < 6


def test_target_profiles_lead_to_transports(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    files = {
        "known_hosts": tmp_path / "own",
        "ssh_config": tmp_path / "config",
        "user_known_hosts": tmp_path / "known_hosts",
        "key_file": sshd.key,
    }
    to = f"{sshd.user}@127.0.0.1:{sshd.port}"
    rpi4, local = load_target("rpi4", TARGETS), load_target("linux-local", TARGETS)
    with pytest.raises(VerifyError, match=f"invoke trust --target rpi4 --to {to}"):
        open_transport(rpi4, to, directory=tmp_path, **files)
    assert trust(rpi4, to, **files).added
    with open_transport(rpi4, to, directory=tmp_path, **files) as transport:
        assert transport.name == f"{sshd.user}@[127.0.0.1]:{sshd.port}"
    with open_transport(local, directory=tmp_path, **files) as transport:
        assert transport.name == "this machine"
    with pytest.raises(ConfigError, match="no address"):
        open_transport(rpi4, directory=tmp_path, **files)
    with pytest.raises(ConfigError, match="is this machine"):
        open_transport(local, to, directory=tmp_path, **files)
    with pytest.raises(ConfigError, match="no connection"):
        open_transport(load_target("mcu-sim", TARGETS), directory=tmp_path, **files)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pi@board", ("pi", "board", None)),
        ("board:2222", (None, "board", 2222)),
        ("pi@[::1]:22", ("pi", "::1", 22)),
        ("fe80::1", (None, "fe80::1", None)),
    ],
)
def test_addresses(text: str, parts: tuple[str | None, str, int | None]) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize(
    "text", ["", "@board", "pi@", "board:", "board:x", "board:70000", "-oProxy", "a b", "[::1]x"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)
