"""What a device says of itself: one JSON object, signed with a key that was made on it and never leaves it.

The signature is OpenSSH's (`ssh-keygen -Y sign`), so a host verifies it with the public half that it read
when it enrolled the device, and nothing of ours is trusted with a secret key. `running` is what `current`
names; `answered` is what answered last: only the second is a success.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from edgekd.fleet.agent import slots
from edgekd.fleet.agent.config import Config
from edgekd.fleet.agent.installer import Installer
from edgekd.fleet.agent.ledger import Account
from edgekd.fleet.agent.refusals import Refused

SCHEMA = 1
KEY, NAMESPACE = "id_ed25519", "edgekd-report"
FILE, SIGNATURE = "report.json", "report.json.sig"
SIGN_S = 30


def of_model(
    installer: Installer, account: Account | None, outcome: str, look: dict[str, Any], trial: dict[str, Any]
) -> dict[str, Any]:
    """One model's part."""
    state, disk = installer.state, installer.disk
    current = slots.current(disk)
    answered = None
    if account is not None:
        answered = {"sha256": account.sha256, "at": account.at, "answers": account.answers}
        answered |= {"errors": account.errors, "crashes": len(account.crashes)}
    return {
        "running": current,
        "release": state.confirmed.release if state.confirmed and state.serves(current or "") else None,
        "answered": answered,
        "phase": state.phase,
        "outcome": outcome,
        "reason": state.reason,
        "candidate": state.candidate.sha256 if state.candidate else None,
        "previous": state.previous.release if state.previous else None,
        "quarantined": [
            {"release": each.release, "rollout": each.rollout, "attempt": each.attempt, "reason": each.reason}
            for each in state.quarantine.values()
        ],
        "floor": state.floor,
        "adopted": state.adopted,
        "trial": trial or None,
        **look,
    }


def compose(
    config: Config,
    now_s: int,
    sequence: int,
    models: dict[str, dict[str, Any]],
    versions: dict[str, int],
    refused: Refused | None,
    network: dict[str, int],
    peak_rss_bytes: int | None = None,
) -> dict[str, Any]:
    """The whole report. sequence rises with each, so a replayed one is known; peak_rss_bytes: the agent's."""
    return {
        "schema": SCHEMA,
        "device": config.device,
        "hardware": config.hardware,
        "sequence": sequence,
        "at": now_s,
        "models": models,
        "metadata": versions,
        "refused": {"reason": refused.reason, "message": str(refused)} if refused else None,
        "network": network,
        "peak_rss_bytes": peak_rss_bytes,
    }


def make_key(root: Path) -> str:
    """The device's key, made where it is absent; its public half as a line of text."""
    path = root / KEY
    if not path.exists():
        _keygen(["-q", "-t", "ed25519", "-N", "", "-C", "edgekd-agent", "-f", str(path)])
        path.chmod(0o600)
    return path.with_suffix(".pub").read_text("utf-8").strip()


def sign(root: Path, report: dict[str, Any]) -> None:
    """Write report.json and its signature beside it; without a key only the first."""
    fresh = root / f"{FILE}.new"
    fresh.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if (root / KEY).exists():
        (root / f"{FILE}.new.sig").unlink(missing_ok=True)
        _keygen(["-q", "-Y", "sign", "-f", str(root / KEY), "-n", NAMESPACE, str(fresh)])
        os.replace(root / f"{FILE}.new.sig", root / SIGNATURE)
    os.replace(fresh, root / FILE)


def _keygen(arguments: list[str]) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise Refused("not-set-up", "ssh-keygen is missing here; install openssh-client")
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=SIGN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refused("not-set-up", f"ssh-keygen could not make or use the device's key: {last}")
