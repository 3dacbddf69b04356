"""The agents of many devices over SSH: enrol, push, report. Each device in a thread, with its own deadline.

A device that is frozen, refuses or fails keeps nobody waiting (device/many.py); a link that drops is made
again, because every command of the agent may be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekd.device.connect import open_transport
from edgekd.device.inventory import Host
from edgekd.device.many import DEADLINE_S, Leash, Outcome, Tell, persist, run_on_all, worst_exit_code
from edgekd.device.transport import Transport
from edgekd.errors import ConfigError
from edgekd.fleet import devices, formats
from edgekd.fleet.agent.config import Config, dump
from edgekd.fleet.push import push
from edgekd.fleet.remote import ROOT, RemoteAgent
from edgekd.progress import Progress
from edgekd.target import Target

AT_ONCE = 32
Work = Callable[[RemoteAgent, Host], dict[str, Any]]


@dataclass(frozen=True)
class Way:
    """How devices are reached. targets: the profile of each host by its name; root: of the agent there."""

    targets: Mapping[str, Target]
    known_hosts: Path
    root: str = ROOT
    key_file: Path | None = None
    ssh_config: Path | None = None
    deadline_s: float = DEADLINE_S
    at_once: int = AT_ONCE

    def connect(self, host: Host) -> Transport:
        """A link to one device."""
        return open_transport(
            self.targets[host.name],
            host.address or None,
            directory=self.known_hosts.parent,
            known_hosts=self.known_hosts,
            ssh_config=self.ssh_config,
            key_file=self.key_file,
        )


def on_all(hosts: Sequence[Host], way: Way, what: str, work: Work, tell: Tell) -> dict[str, Any]:
    """`work` on each device: a row each ("host", "outcome", "error", "seconds"), "counts", "exit_code"."""

    def one(host: Host, leash: Leash, progress: Progress) -> dict[str, Any]:
        def at(transport: Transport, attempt: int) -> dict[str, Any]:
            progress(what, 0, 1)
            return work(RemoteAgent(transport, way.root, way.deadline_s), host)

        return persist(lambda: way.connect(host), at, leash, progress)

    outcomes = run_on_all(hosts, one, tell, at_once=way.at_once, deadline_s=way.deadline_s)
    rows = [_row(outcome) for outcome in outcomes]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    return {"hosts": rows, "counts": counts, "exit_code": worst_exit_code(outcomes)}


def _row(outcome: Outcome[dict[str, Any]]) -> dict[str, Any]:
    error = str(outcome.error) if outcome.error else None
    row = {"host": outcome.host.name, "address": outcome.host.address, "outcome": "failed", "error": error}
    return row | {"seconds": round(outcome.seconds, 2)} | (outcome.result or {})


@dataclass(frozen=True)
class Terms:
    """What a device is enrolled with; empty: what the inventory says. url: of the static host, "" for push
    alone; restart: the program that is told of a new release; report_url: where it puts its reports."""

    hardware: str = ""
    models: tuple[str, ...] = ()
    url: str = ""
    clock: str = "synced"
    user: str = ""
    restart: tuple[str, ...] = ()
    report_url: str = ""


def settings_of(host: Host, terms: Terms) -> Config:
    """The agent.toml of one device. ConfigError where neither side says what it is or runs."""
    hardware, models = terms.hardware or host.target, terms.models or host.models
    if not hardware or not models:
        lacking = "--hardware" if not hardware else "--models"
        raise ConfigError(f"{host.name}: neither {lacking} nor the inventory says it; name it")
    try:
        for name in (host.name, hardware, *models):
            formats.check_name(name)
    except formats.FormatError as error:
        raise ConfigError(f"{host.name}: {error}") from None
    return Config(
        host.name,
        hardware,
        models,
        terms.url,
        terms.clock,
        user=terms.user,
        restart=terms.restart,
        report_url=terms.report_url,
    )


def enrol(
    hosts: Sequence[Host],
    way: Way,
    terms: Terms,
    fleet: Path,
    now: datetime,
    tell: Tell,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Put the agent on devices, make each one's key there, and keep its public half. As `on_all`."""
    roots = first_roots(fleet)
    settings = {host.name: settings_of(host, terms) for host in hosts}

    def work(agent: RemoteAgent, host: Host) -> dict[str, Any]:
        made = agent.enrol(dump(settings[host.name]), roots)
        key = " ".join(str(made["key"]).split()[:2])
        each = settings[host.name]
        found = devices.Enrolled(key, each.hardware, each.models, int(now.timestamp()))
        devices.add(fleet, host.name, found, again=again)
        return {"outcome": "enrolled", "hardware": each.hardware, "models": list(each.models), "key": key}

    return on_all(hosts, way, "enrolling", work, tell)


def first_roots(fleet: Path) -> tuple[bytes, bytes]:
    """The roots that a device is provisioned with: the first of each repository; it walks on by itself."""
    places = (formats.RELEASES_METADATA, formats.ROLLOUT_METADATA)
    paths = [fleet / "host" / place / "1.root.json" for place in places]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no fleet; begin one with keys.init")
    return paths[0].read_bytes(), paths[1].read_bytes()


def push_to(hosts: Sequence[Host], way: Way, fleet: Path, now: datetime, tell: Tell) -> dict[str, Any]:
    """Let devices install what is chosen for them. As `on_all`; "outcome" is the device's own word."""

    def work(agent: RemoteAgent, host: Host) -> dict[str, Any]:
        return told(push(agent, fleet / "host", now))

    return on_all(hosts, way, "installing", work, tell)


def report_of(hosts: Sequence[Host], way: Way, tell: Tell) -> dict[str, Any]:
    """What devices run. As `on_all`."""
    return on_all(hosts, way, "asking", lambda agent, host: told(agent.report()), tell)


def told(report: dict[str, Any]) -> dict[str, Any]:
    """A report as a row: the worst outcome of its models, the releases, and what was refused."""
    models = report["models"]
    outcomes = [str(each["outcome"] or each["phase"]) for each in models.values()]
    refused = report["refused"]
    reverted = any(each["phase"] == "reverted" for each in models.values())
    word = refused["reason"] if refused else "reverted" if reverted else ", ".join(dict.fromkeys(outcomes))
    return {
        "outcome": word,
        "device": report["device"],
        "releases": {model: each["release"] for model, each in models.items()},
        "reasons": {model: each["reason"] for model, each in models.items() if each["reason"]},
        "refused": refused,
        "report": report,
    }
