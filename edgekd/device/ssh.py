"""A Linux device over SSH (paramiko): pinned host keys, keys or agent, ~/.ssh/config, jump hosts.

paramiko can wait for ever in places that have no timeout (a send into a full TCP window, the answer to a
channel request), so each wait has a watchdog that closes the link. Reads the files named in SshOptions,
the user's ssh-agent and nothing else. Imported only when a device is reached over SSH.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import paramiko
from paramiko.pkey import UnknownKeyType

from edgekd.device import hostkeys
from edgekd.device.transport import CHUNK_BYTES, Conversation, LinkCutError, parse_address
from edgekd.errors import ConfigError, DeviceError

MAX_JUMPS = 8
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints tracebacks on stderr


@dataclass(frozen=True)
class SshOptions:
    """Where and how to connect. Files that do not exist are skipped; None asks for none.

    Attributes:
        host: a name or address; `config_file` may know it as an alias.
        user, port, key_file: given ones win over the config file's.
        known_hosts: files whose keys are trusted; the last is the project's own, that `trust_host` writes.
        target: the target profile's name, for the command in the refusal of an unknown key.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key_file: Path | None = None
    config_file: Path | None = None
    known_hosts: tuple[Path, ...] = ()
    target: str = ""
    python: str = "python3"
    timeout_s: float = 20.0


@dataclass(frozen=True)
class Hop:
    """One SSH server on the way, after the config file had its say."""

    alias: str
    host: str
    user: str
    port: int
    key_files: tuple[Path, ...]


def plan_route(options: SshOptions) -> list[Hop]:
    """The hops to the device, jump hosts first. Raises ConfigError for what cannot be followed."""
    config = _read_config(options.config_file)
    first = _lookup(config, options.host)
    if first.get("proxycommand", "none").lower() != "none":
        raise ConfigError(
            f"{options.config_file}: ProxyCommand of {options.host} is not supported; use ProxyJump"
        )
    named = (options.key_file,) if options.key_file else ()
    hops = [_hop(options.host, first, options.user, options.port, named)]
    jumps = first.get("proxyjump", "none")
    while jumps.lower() != "none":
        ahead, _, nearest = jumps.rpartition(",")
        user, host, port = parse_address(nearest.strip().removeprefix("ssh://"))
        entry = _lookup(config, host)
        hops.insert(0, _hop(host, entry, user, port, ()))
        jumps = ahead or entry.get("proxyjump", "none")
        if len(hops) > MAX_JUMPS:
            raise ConfigError(f"{options.config_file}: ProxyJump of {options.host} goes in circles; mend it")
    return hops


def _read_config(path: Path | None) -> paramiko.SSHConfig:
    if path is None or not path.is_file():
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_path(str(path))
    except (paramiko.SSHException, OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; mend that line") from None


def _lookup(config: paramiko.SSHConfig, host: str) -> dict[str, str]:
    found = config.lookup(host)
    files: list[str] = list(found.get("identityfile", []))
    plain = {key: value for key, value in found.items() if isinstance(value, str)}
    return plain | {"identityfile": "\n".join(files)}


def _hop(
    alias: str, entry: dict[str, str], user: str | None, port: int | None, keys: tuple[Path, ...]
) -> Hop:
    text = entry.get("port", "22")
    if not text.isdecimal():
        raise ConfigError(f"~/.ssh/config: Port of {alias} is {text!r}; it must be a number")
    from_config = tuple(Path(name).expanduser() for name in entry["identityfile"].splitlines())
    return Hop(
        alias=alias,
        host=entry.get("hostname", alias),
        user=user or entry.get("user") or getpass.getuser(),
        port=port or int(text),
        key_files=keys or tuple(path for path in from_config if path.is_file()),
    )


class SshTransport:
    """A device reached over SSH. The constructor connects; every failure is a DeviceError or VerifyError."""

    def __init__(self, options: SshOptions) -> None:
        self.python, self.timeout_s = options.python, options.timeout_s
        self._options, self._route = options, plan_route(options)
        last = self._route[-1]
        self.name = f"{last.user}@{hostkeys.entry_name(last.host, last.port)}"
        self._links: list[paramiko.Transport] = []
        try:
            for hop in self._route:
                self._links.append(self._connect(hop))
        except BaseException:
            self.close()
            raise

    def start(self, argv: Sequence[str]) -> Conversation:
        """Start a program through the login shell, in the login's home."""
        with self._failures("starting a program", self._route[-1]), self.watchdog(self.timeout_s):
            channel = self._links[-1].open_session(timeout=self.timeout_s)
            channel.exec_command(shlex.join(argv))
        return SshConversation(self, channel)

    def close(self) -> None:
        """Close every link, the outermost first: closing never waits for the other side."""
        for link in self._links:
            link.close()

    def __enter__(self) -> SshTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def watchdog(self, timeout_s: float) -> Iterator[None]:
        """Close the links when the body takes longer: what waits inside then fails."""
        timer = threading.Timer(timeout_s, self.close)
        timer.daemon = True
        begin = time.monotonic()
        timer.start()
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError):
            if time.monotonic() - begin >= timeout_s:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def _connect(self, hop: Hop) -> paramiko.Transport:
        """One authenticated link, through the one before it where there is one."""
        with self._failures("connecting", hop):
            sock = self._socket(hop)
            link = paramiko.Transport(sock)
            link.banner_timeout = link.auth_timeout = link.channel_timeout = self.timeout_s
            self._links.append(link)  # so that a failure closes it
            with self.watchdog(3 * self.timeout_s):
                key = self._shake_hands(link, hop)
            self._check_key(hop, key)
            self._authenticate(link, hop)
            link.set_keepalive(30)  # for routers that forget silent connections; it detects nothing
            return self._links.pop()

    def _socket(self, hop: Hop) -> socket.socket | paramiko.Channel:
        if not self._links:
            return socket.create_connection((hop.host, hop.port), timeout=self.timeout_s)
        with self.watchdog(self.timeout_s):
            return self._links[-1].open_channel(
                "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=self.timeout_s
            )

    def _shake_hands(self, link: paramiko.Transport, hop: Hop) -> paramiko.PKey:
        """Exchange keys, asking first for the type of key that is pinned."""
        pinned = self._pinned(hop)
        if pinned:
            wanted = {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in pinned else set()
            wanted |= set(pinned)
            security = link.get_security_options()
            security.key_types = sorted(security.key_types, key=lambda name: name not in wanted)
        link.start_client(timeout=self.timeout_s)
        if link.initial_kex_done is False:  # it returns at its timeout as if nothing had happened
            raise TimeoutError
        return link.get_remote_server_key()

    def _pinned(self, hop: Hop) -> dict[str, paramiko.PKey]:
        known = hostkeys.load_known_hosts(self._options.known_hosts)
        return dict(known.lookup(hostkeys.entry_name(hop.host, hop.port)) or {})

    def _check_key(self, hop: Hop, key: paramiko.PKey) -> None:
        pinned = self._pinned(hop)
        if not pinned:
            target = self._options.target or "NAME"
            command = f"invoke trust --target {target} --to {hop.user}@{hop.host}:{hop.port}"
            raise hostkeys.unknown_key_error(hop.host, hop.port, key, command)
        if pinned.get(key.get_name()) != key:
            known = ", ".join(f"{k.get_name()} {k.fingerprint}" for k in pinned.values())
            raise hostkeys.changed_key_error(hop.host, hop.port, key, known)

    def _authenticate(self, link: paramiko.Transport, hop: Hop) -> None:
        """Try the named keys, or else those of the agent and the usual files; no passwords."""
        tried: list[str] = []
        for label, key in _identities(hop):
            tried.append(label)
            if key is None:
                continue
            try:
                with self.watchdog(self.timeout_s):
                    if not link.auth_publickey(hop.user, key):
                        return
                tried[-1] += " (accepted, but the host wants another factor too)"
            except paramiko.BadAuthenticationType as error:
                allowed = ", ".join(error.allowed_types)
                raise DeviceError(
                    f"{hop.host} refuses keys for {hop.user} and offers {allowed}; edgekd logs in with keys: "
                    f"put yours there with: ssh-copy-id -p {hop.port} {hop.user}@{hop.host}"
                ) from None
            except paramiko.AuthenticationException:
                if not link.is_active():
                    break
        offered = ", ".join(tried) or "no key at all (no agent, no key file)"
        mend = f"ssh-copy-id -p {hop.port} {hop.user}@{hop.host}"
        raise DeviceError(
            f"{hop.host} refuses the login {hop.user}; offered: {offered}; "
            f"put your key there with: {mend}, or name another user or key"
        )

    @contextlib.contextmanager
    def _failures(self, doing: str, hop: Hop) -> Iterator[None]:
        """Turn what paramiko and the sockets raise into one sentence."""
        where = f"{hop.host} port {hop.port}"
        try:
            yield
        except TimeoutError:
            raise LinkCutError(
                f"{where} did not answer within {self.timeout_s:g} s while {doing}; is it on and reachable?"
            ) from None
        except ConnectionRefusedError:
            raise DeviceError(
                f"{where} refuses connections; is its SSH server running on that port?"
            ) from None
        except socket.gaierror:
            raise DeviceError(f"{hop.host} is not a known name; check the address after --to") from None
        except paramiko.ChannelException as error:
            raise DeviceError(
                f"the way to {where} is refused ({error}) while {doing}; check the jump host"
            ) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "the link was cut"
            raise LinkCutError(
                f"{where}: {reason} while {doing}; check the link and run the command again"
            ) from None


def _identities(hop: Hop) -> Iterator[tuple[str, paramiko.PKey | None]]:
    """Keys to try, by label; None: it cannot be used. Where keys are named, no others are offered."""
    in_agent = _agent_keys()
    for path in hop.key_files:
        yield str(path), _load_key(path, in_agent)
    if hop.key_files:
        return
    yield from ((f"agent key {key.fingerprint}", key) for key in in_agent)
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        path = Path.home() / ".ssh" / name
        if path.is_file():
            try:
                yield str(path), _load_key(path, in_agent)
            except (DeviceError, ConfigError) as error:
                yield f"not {path} ({error})", None


def _agent_keys() -> list[paramiko.PKey]:
    try:
        return list(paramiko.Agent().get_keys())
    except (paramiko.SSHException, OSError):
        return []


def _load_key(path: Path, in_agent: list[paramiko.PKey]) -> paramiko.PKey:
    """A private key (an encrypted one from the agent); the error says what is wrong with the file."""
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        raise ConfigError(f"the key file {path} does not exist; name another") from None
    except (paramiko.PasswordRequiredException, TypeError):
        public = path.with_name(path.name + ".pub")
        blob = public.read_text().split()[1] if public.is_file() else ""
        for key in in_agent:
            if key.get_base64() == blob:
                return key
        raise DeviceError(f"the key {path} has a passphrase; load it with: ssh-add {path}") from None
    except (paramiko.SSHException, OSError, ValueError, IndexError, UnknownKeyType) as error:
        reason = getattr(error, "strerror", None) or "no private key that can be read"
        raise ConfigError(f"the key file {path}: {reason}; name another") from None


class SshConversation:
    """One program on the device, over one channel."""

    def __init__(self, transport: SshTransport, channel: paramiko.Channel) -> None:
        self._transport, self._channel, self._errors = transport, channel, b""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`, one piece at a time, each within `timeout_s`."""
        view = memoryview(data)
        while view:
            with self._failures(timeout_s), self._transport.watchdog(timeout_s + 1):
                self._channel.settimeout(timeout_s)
                view = view[self._channel.send(bytes(view[:CHUNK_BYTES])) :]

    def receive(self, timeout_s: float) -> bytes:
        """The next bytes of output; what the program says on standard error is kept aside."""
        with self._failures(timeout_s):
            self._drain_errors()
            self._channel.settimeout(timeout_s)
            return self._channel.recv(CHUNK_BYTES)

    def finish(self, timeout_s: float) -> tuple[int | None, str]:
        """Exit status, None when the link ended first, and the tail of standard error."""
        exited = self._channel.status_event.wait(timeout_s)
        self._drain_errors()
        status = self._channel.exit_status if exited else -1
        return None if status == -1 else status, self._errors.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the channel; the agent then sees the end of its input."""
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError), self._transport.watchdog(1.0):
            self._channel.close()

    def _drain_errors(self) -> None:
        while self._channel.recv_stderr_ready():
            self._errors = (self._errors + self._channel.recv_stderr(CHUNK_BYTES))[-2000:]

    @contextlib.contextmanager
    def _failures(self, timeout_s: float) -> Iterator[None]:
        name = self._transport.name
        try:
            yield
        except TimeoutError:
            raise LinkCutError(
                f"{name} was silent for {timeout_s:g} s; check the link and run again"
            ) from None
        except (paramiko.SSHException, OSError, EOFError):
            raise LinkCutError(f"the link to {name} was cut; run the same command again") from None


def trust_host(options: SshOptions) -> hostkeys.TrustedHost:
    """Fetch the host's key and pin it in the last of `options.known_hosts`, the project's own file.

    The caller shows the fingerprint. Raises VerifyError when another key is pinned, DeviceError when away.
    """
    if not options.known_hosts:
        raise ConfigError("no known_hosts file is named to write the host key into; name one")
    *others, own = options.known_hosts
    host, port, key = _KeyFetcher(options).fetched
    return hostkeys.remember(host, port, key, own, others)


class _KeyFetched(Exception):
    """Raised to leave the connection once the key is known."""


class _KeyFetcher(SshTransport):
    """Connects as far as the last host's key; jump hosts on the way must be trusted already."""

    fetched: tuple[str, int, paramiko.PKey]

    def __init__(self, options: SshOptions) -> None:
        with contextlib.suppress(_KeyFetched):
            super().__init__(options)

    def _check_key(self, hop: Hop, key: paramiko.PKey) -> None:
        if hop is not self._route[-1]:
            return super()._check_key(hop, key)
        self.fetched = hop.host, hop.port, key
        raise _KeyFetched
