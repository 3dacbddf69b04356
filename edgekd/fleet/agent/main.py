"""The command `edgekd-agent`, on the device: poll, install, receive, status, revert, setup, tuf.

    edgekd-agent poll                    ask the host that agent.toml names (a timer runs this)
    edgekd-agent install --metadata DIR  the same, from a folder: sent over SSH, or on a USB stick
    edgekd-agent receive                 the same, from standard input (fleet.push runs this)
    edgekd-agent status                  what this device runs, as JSON
    edgekd-agent revert --model M        back to the release before, without a network
    edgekd-agent setup                   the directories and the device's own key
    edgekd-agent tuf ...                 a plain TUF client of one repository (its own --help)

Results are JSON on standard output, one sentence on standard error; the exit status is 0, or 7 for a refusal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError
from edgekd.fleet import formats
from edgekd.fleet.agent import config, deliver, ledger, machine, report, slots, units, watch
from edgekd.fleet.agent.clock import SystemClock
from edgekd.fleet.agent.installer import Installer
from edgekd.fleet.agent.refusals import Refused
from edgekd.fleet.agent.trial import SandboxedTrial
from edgekd.fleet.agent.visit import MODELS, Found, Hands, Visit, write_memory

ROOT = Path("/var/lib/edgekd")
SERVING = "serving"
RESTART_S = 60


class Agent:
    """The agent on this machine: what a visit needs, made of agent.toml."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise Refused("not-set-up", f"{root} does not exist; enrol this device, or name its --root")
        self.root, self.config = root, config.read(root)
        self.clock = SystemClock(self.config.clock == "system", float(self.config.clock_wait_s))
        self.trials = {
            model: SandboxedTrial(root / MODELS / model, model, self.config) for model in self.config.models
        }
        hands = Hands(self.clock, self.trials.__getitem__, self.restart, self.look, _say)
        self.visit = Visit(root, self.config, hands)

    def run(self, fetcher: Any, base: str) -> dict[str, Any]:
        """One visit and its report; Refused where it was, behind the report."""
        return self.told(self.visit.run(fetcher, base))

    def told(self, found: Found) -> dict[str, Any]:
        """The report of a visit; it is printed here where the visit was refused."""
        told = self.report(found)
        if found.refused is not None:
            print(json.dumps(told))
            raise found.refused
        return told

    def report(self, found: Found) -> dict[str, Any]:
        """Compose, sign and keep the report."""
        models = {
            model: report.of_model(
                installer,
                self.account(model),
                found.outcome.get(model, ""),
                found.looks.get(model, {}),
                self.trials[model].last,
            )
            for model, installer in self.visit.installers.items()
        }
        memory = self.visit.memory
        memory.sequence += 1
        now_s = self.clock.now().system_s
        network = {"received_bytes": found.received_bytes, "requests": found.requests}
        told = report.compose(
            self.config,
            now_s,
            memory.sequence,
            models,
            found.versions,
            found.refused,
            network,
            peak_rss_bytes(),
        )
        with contextlib.suppress(OSError):  # a disk that is full or read-only: the report is printed anyway
            write_memory(self.visit.disk, memory)
            report.sign(self.root, told)
            self.deliver(told)
        return told

    def deliver(self, told: dict[str, Any]) -> None:
        """Put the report where the watcher reads it, if there is such a place and something to say."""
        memory, url = self.visit.memory, self.config.report_url
        if not url or not deliver.is_due(told, memory.sent, memory.sent_at_s):
            return
        try:
            deliver.deliver(self.root, self.config.device, url)
        except deliver.Undelivered as error:
            _say(f"{error}; the next visit tries again")
        else:
            memory.sent, memory.sent_at_s = deliver.news(told), told["at"]
            write_memory(self.visit.disk, memory)

    def account(self, model: str) -> ledger.Account | None:
        """What the serving process counted."""
        return ledger.read(self.root / SERVING / model)

    def look(self, model: str, installer: Installer) -> dict[str, Any]:
        """How the confirmed release fares: back where it is unwell; a restart where another one answers."""
        state, account = installer.state, self.account(model)
        if state.confirmed is None or not slots.is_whole(installer.disk, state.confirmed.sha256):
            return {}
        data = installer.disk.read(f"{slots.slot(state.confirmed.sha256)}/{slots.NOTE}")
        limits = formats.parse_release(data, model, state.confirmed.release).watch
        now_s = self.clock.now().system_s
        event = watch.unwell(state, account, limits, now_s)
        if event is not None:
            _say(f"{model}: release {state.confirmed.release} is unwell ({event.reason}); going back")
            installer.handle(event)
        elif account is not None and account.open and not state.serves(account.sha256):
            self.restart(model)
        return {"drift": watch.drift(account, limits, now_s)}

    def restart(self, model: str) -> None:
        """Tell the serving unit that `current` has changed. A program that fails is said, and no more."""
        if not self.config.restart:
            return
        command = [word.replace("{model}", model) for word in self.config.restart]
        try:
            done = subprocess.run(command, capture_output=True, timeout=RESTART_S, check=False)
            if done.returncode:
                _say(f"{shlex.join(command)} ended with status {done.returncode}")
        except (OSError, subprocess.TimeoutExpired) as error:
            _say(f"{shlex.join(command)}: {error}")


def peak_rss_bytes() -> int | None:
    """The most memory that this process has had; None where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return None


def poll(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask the static host."""
    from edgekd.fleet.agent.fetchers import HttpFetcher

    agent = Agent(arguments.root)
    url = arguments.url or agent.config.url
    if not url:
        raise Refused("not-set-up", "no host is named; set url in agent.toml, or give --url")
    return agent.run(HttpFetcher(), url)


def install(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take both repositories from a folder."""
    from edgekd.fleet.agent.fetchers import FolderFetcher

    folder = arguments.metadata
    if folder is None or not (folder / formats.ROLLOUT_METADATA).is_dir():
        raise Refused(
            "not-found", f"{folder}: there is no {formats.ROLLOUT_METADATA} in it; name the host's folder"
        )
    return Agent(arguments.root).run(FolderFetcher(folder), FolderFetcher.BASE)


def take(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take signed files over standard input, and install from them."""
    import shutil

    from edgekd.fleet.agent.receive import receive

    arguments.metadata = receive(arguments.root, sys.stdin.buffer)
    try:
        return install(arguments)
    finally:
        shutil.rmtree(arguments.metadata, ignore_errors=True)


def status(arguments: argparse.Namespace) -> dict[str, Any]:
    """What this device runs; nothing is asked for."""
    agent = Agent(arguments.root)
    found = agent.visit.run(None, "")
    return agent.report(found)


def revert(arguments: argparse.Namespace) -> dict[str, Any]:
    """Back to the release before; it is not tried again until the rollout says so."""
    agent = Agent(arguments.root)
    model = arguments.model or agent.config.models[0]
    if model not in agent.config.models:
        raise Refused(
            "not-set-up", f"this device has no model {model!r}; it has {', '.join(agent.config.models)}"
        )

    def back(visit: Visit) -> None:
        before = visit.installers[model].state
        after = visit.installers[model].handle(machine.RevertAsked("asked"))
        if after.confirmed == before.confirmed and before.candidate is None:
            raise Refused("not-found", f"{model}: there is no earlier release to go back to")

    return agent.told(agent.visit.run(None, "", back))


def setup(arguments: argparse.Namespace) -> dict[str, Any]:
    """Directories and the device's own key; its public half is in the answer."""
    settings = config.read(arguments.root)
    for name in ("roots", MODELS, SERVING, *(f"{SERVING}/{model}" for model in settings.models)):
        (arguments.root / name).mkdir(exist_ok=True)
    for name, text in units.texts(arguments.root.resolve(), sys.executable).items():
        (arguments.root / units.FOLDER).mkdir(exist_ok=True)
        (arguments.root / units.FOLDER / name).write_text(text)
    if settings.user:
        import shutil

        for model in settings.models:
            shutil.chown(arguments.root / SERVING / model, settings.user)
    return {"device": settings.device, "key": report.make_key(arguments.root)}


COMMANDS = {
    "poll": poll,
    "install": install,
    "receive": take,
    "status": status,
    "revert": revert,
    "setup": setup,
}


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments of one command."""
    parser = argparse.ArgumentParser(prog="edgekd-agent", description="edgekd's updates on this device")
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--root", type=Path, default=ROOT, help="the agent's directory")
    parser.add_argument("--url", default="", help="of poll: the static host, in place of agent.toml's")
    parser.add_argument("--metadata", type=Path, help="of install: the folder that holds both repositories")
    parser.add_argument("--model", default="", help="of revert: which (default: the first)")
    return parser.parse_args(argv)


def _say(line: str) -> None:
    print(f"edgekd-agent: {line}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run one command; a refusal is one sentence and its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["tuf"]:
        from edgekd.fleet.agent import tuf_cli

        return tuf_cli.main(argv[1:])
    arguments = parse(argv)
    try:
        print(json.dumps(COMMANDS[arguments.command](arguments)))
        return 0
    except EdgekdError as error:
        _say(f"{error.reason}: {error}" if isinstance(error, Refused) else str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
