"""Rollouts as a person runs them: draft a plan, sign what its state wants, read what devices report.

The decisions are rollout.py's and gate.py's. Here are the three edges of them: the signed releases and the
enrolled devices a plan is made of, the fleet's folder that is signed, and the signed reports that come back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.exceptions import LengthOrHashMismatchError

from edgekd.errors import ArtifactError, RolloutError, VerifyError
from edgekd.fleet import choosing, formats, pair
from edgekd.fleet.devices import Device, Enrolled
from edgekd.fleet.gate import ALPHA, Limits, least_failures, waves
from edgekd.fleet.home import Home
from edgekd.fleet.keyring import Ask
from edgekd.fleet.reports import verify_report
from edgekd.fleet.rollout import Plan, Rollout, ordered
from edgekd.fleet.watch import Report

REPORT, SIGNATURE = ".json", ".json.sig"
MOST_REPORT_BYTES = 1 << 20
ILL = ("crashes", "errors")  # how a state's reason begins where a confirmed release was unwell


@dataclass(frozen=True)
class Wish:
    """What a person asks for. deadline_s: None for the default; max_failed: see gate.Limits."""

    model: str
    release: int
    canaries: int | None = None
    max_failed: float | None = None
    deadline_s: int = choosing.DEADLINE_S
    all_at_once: bool = False


@dataclass(frozen=True)
class Draft:
    """A plan with what a person wants to know before it starts."""

    plan: Plan
    hardware: tuple[str, ...]
    payload_bytes: int

    def told(self) -> dict[str, Any]:
        """Who, in which waves, how many bytes, and what the gate can and cannot decide for so many."""
        limits, count = self.plan.limits, len(self.plan.devices)
        steps = waves(limits, count)
        least = least_failures(limits.tolerated)
        return {
            "rollout": self.plan.rollout,
            "model": self.plan.model,
            "release": self.plan.release,
            "hardware": list(self.hardware),
            "devices": count,
            "canaries": list(self.plan.devices[: limits.canaries]),
            "tolerated": limits.tolerated,
            "max_failed_devices": limits.max_failed_devices,
            "bytes_a_device": self.payload_bytes,
            "bytes_in_all": self.payload_bytes * count,
            "waves": [{"allowed": size, "bound": bound} for size, bound in steps],
            "asks_from": None if steps[-1][0] >= count else steps[-1][0],
            "least_failures_to_stop": least if least <= count else None,
            "false_stop_at_most": ALPHA,
        }


def draft(home: Home, wish: Wish, devices: Sequence[Device]) -> Draft:
    """The plan of a rollout to `devices`, those of them that run the model on hardware it is signed for.

    Raises RolloutError where nobody is left, where the release is not signed for what they are or is below
    the floor, and where everybody would go at once without `all_at_once`.
    """
    made = home.open_clean()
    ours = [each for each in devices if wish.model in each.models and each.enrolled]
    if not ours:
        raise RolloutError(
            f"{wish.model} {wish.release}: none of the {len(devices)} devices named is enrolled for this"
            " model; see fleet.devices, or enrol them"
        )
    hardware = tuple(sorted({each.hardware for each in ours}))
    for each in hardware:
        pair.chosen(made.releases, wish.model, each, wish.release)
    release = read_release(home, made, wish.model, wish.release)
    count = len(ours)
    canaries = min(wish.canaries or 10, count)
    limits = Limits.of(release.tolerated_failure_rate, count, canaries, wish.max_failed)
    if canaries >= count > 1 and not wish.all_at_once:
        raise RolloutError(
            f"{wish.model} {wish.release}: all {count} devices would go at once; say --canaries with a"
            " smaller number, or --all-at-once"
        )
    salt = pair.new_salt()
    name = f"{wish.model[:40]}-{wish.release}-{salt[:8]}"
    order = ordered(salt, (each.device for each in ours))
    plan = Plan(name, wish.model, wish.release, salt, order, limits, float(wish.deadline_s))
    return Draft(plan, hardware, release.payload_bytes)


def read_release(home: Home, made: pair.Pair, model: str, number: int) -> formats.Release:
    """A signed release's own file. ArtifactError where the host's folder does not hold it as signed."""
    path = formats.release_path(model, number)
    _, target = pair.releases_of(made.releases, model)[number]
    file = home.host / formats.RELEASES_TARGETS / formats.hashed_path(path, target.hashes["sha256"])
    try:
        data = file.read_bytes()
        target.verify_length_and_hashes(data)
    except (OSError, LengthOrHashMismatchError) as error:
        raise ArtifactError(f"{file}: is not the file that was signed ({error}); publish it again") from None
    return formats.parse_release(data, model, number)


@dataclass
class HomePublisher:
    """Signs a rollout's waves with the online key in the fleet's folder. `opened` gives it as it is now."""

    opened: Callable[[], Home]
    plan: Plan
    hardware: Sequence[str]
    ask: Ask

    def published(self) -> tuple[int, str, int] | None:
        """What every hardware's wave of this rollout says; None where they differ or there is none."""
        found = {
            (wave.ppm, wave.state, wave.attempt)
            for wave in choosing.current(self.opened(), self.plan.model)
            if wave.rollout == self.plan.rollout and wave.hardware in self.hardware
        }
        return next(iter(found)) if len(found) == 1 else None

    def publish(self, ppm: int, state: str, attempt: int) -> None:
        """Sign and publish one wave a hardware. Raises RolloutError where a signature lacks."""
        choice = choosing.Choice(
            self.plan.model,
            self.plan.release,
            hardware=tuple(self.hardware),
            devices=self.plan.devices[: self.plan.limits.canaries],
            ppm=ppm,
            state=state,
            salt=self.plan.salt,
            rollout=self.plan.rollout,
            attempt=attempt,
            deadline_s=math.ceil(self.plan.deadline_s),
        )
        done = choosing.choose(self.opened(), choice, self.ask)
        if done["lacking"]:
            raise RolloutError(f"{self.plan.rollout}: not published: {'; '.join(done['lacking'])}")


@dataclass
class Mailbox:
    """Signed reports in a folder, `DEVICE.json` and `DEVICE.json.sig`: where pulling devices put them.

    Forged, damaged, replayed and oversized ones are passed over and counted in `refused`, by reason; one
    device's flood is one file. `sequence` holds the last number of each device that was believed.
    """

    folder: Path
    keys: dict[str, Enrolled]
    sequence: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each file: mtime in ns, size

    def fresh(self) -> Iterator[dict[str, Any]]:
        """The reports that came since the last look, verified."""
        for device, enrolled in self.keys.items():
            path = self.folder / f"{device}{REPORT}"
            try:
                stat = path.stat()
                if self.seen.get(device) == (stat.st_mtime_ns, stat.st_size):
                    continue
                self.seen[device] = (stat.st_mtime_ns, stat.st_size)
                if stat.st_size > MOST_REPORT_BYTES:
                    self._refuse("too large")
                    continue
                data, signature = path.read_bytes(), (self.folder / f"{device}{SIGNATURE}").read_bytes()
            except OSError:
                continue
            report = self.opened(device, enrolled, data, signature)
            if report is not None:
                yield report

    def opened(self, device: str, enrolled: Enrolled, data: bytes, signature: bytes) -> dict[str, Any] | None:
        """One report, if it is this device's own and newer than the last."""
        try:
            verify_report(device, enrolled.public_key, data, signature)
            report: dict[str, Any] = json.loads(data)
            number, owner = int(report["sequence"]), report["device"]
        except VerifyError:
            self._refuse("not signed by its device")
            return None
        except (ValueError, KeyError, TypeError):
            self._refuse("damaged")
            return None
        if owner != device or number <= self.sequence.get(device, -1):
            self._refuse("replayed" if owner == device else "of another device")
            return None
        self.sequence[device] = number
        return report

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


def reported(plan: Plan, attempt: int, reports: Iterable[dict[str, Any]]) -> Iterator[Report]:
    """What devices' reports say of a rollout; those that say nothing of it yet are left out.

    Confirmed: the release is the one that the device confirmed and runs. Failed: it is in quarantine for this
    rollout at this attempt. Began: it is on its way there. Else it is on the release before, well or unwell.
    """
    for report in reports:
        said = report["models"].get(plan.model)
        if said is None:
            continue
        at_s, device = float(report["at"]), str(report["device"])
        bad = next((q for q in said["quarantined"] if _is_ours(q, plan, attempt)), None)
        if bad is not None:
            yield Report(device, "failed", at_s, str(bad["reason"]))
        elif said["release"] == plan.release:
            yield Report(device, "confirmed", at_s)
        elif said["candidate"]:
            yield Report(device, "began", at_s)
        else:
            is_ill = str(said.get("reason", "")).startswith(ILL)
            yield Report(device, "unwell" if is_ill else "well", at_s)


def _is_ours(entry: dict[str, Any], plan: Plan, attempt: int) -> bool:
    same = entry["rollout"] == plan.rollout and entry["release"] == plan.release
    return bool(same and entry["attempt"] >= attempt)


def status(rollout: Rollout) -> dict[str, Any]:
    """The state of a rollout as figures and words."""
    ledger, plan = rollout.ledger, rollout.plan
    return {
        "rollout": plan.rollout,
        "model": plan.model,
        "release": plan.release,
        "status": rollout.status,
        "why": rollout.why,
        "devices": len(plan.devices),
        "allowed": rollout.allowed,
        "admitted": ledger.admitted,
        "confirmed": ledger.confirmed,
        "failed": ledger.failed,
        "silent": ledger.silent,
        "waiting": ledger.open,
        "lost_canaries": list(rollout.lost_canaries),
        "attempt": rollout.attempt,
        "evidence": math.exp(min(700.0, ledger.log_evidence)),
        "evidence_to_stop": 1 / ALPHA,
    }
