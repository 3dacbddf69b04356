"""Why the agent says no: one exception with a reason that programs can count on, and one sentence for people.

docs/fleet.md lists the reasons; a report carries them. A refusal never stops what serves.
"""

from __future__ import annotations

from edgekd.errors import VerifyError

# Reason -> what it means. Nothing else is ever reported as a refusal.
REASONS = {
    "bad-signature": "too few valid signatures, or of the wrong keys",
    "rolled-back": "a version lower than one that was verified before",
    "mix-and-match": "files of one repository that do not belong together",
    "expired": "metadata whose time is over: a freeze, or an operator who is late",
    "too-far-ahead": "an expiry or a signing time farther ahead than this device believes",
    "malformed": "not what the format says, or not JSON at all (a captive portal's page)",
    "not-found": "the host does not have it",
    "unreachable": "no connection, no name, or an answer that breaks off",
    "too-slow": "fewer bytes a second than the least, or past the deadline",
    "too-long": "more bytes than were signed",
    "wrong-hash": "other bytes than were signed",
    "unsigned": "one repository names it and the other does not, or names other bytes",
    "wrong-hardware": "signed for other hardware",
    "below-floor": "a release below the least that may run",
    "too-big": "more than a slot, or the free space, holds",
    "quarantined": "reverted here before, and nobody has asked anew",
    "too-soon": "the last installation is too short ago",
    "no-clock": "the time is not known, so nothing is installed",
    "disk-full": "no space to write",
    "disk-error": "the disk refuses: read-only, or failing",
    "busy": "another agent is at work",
    "not-set-up": "the device was not enrolled, or its configuration is wrong",
}


class Refused(VerifyError):
    """reason: a key of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"{reason!r} has no line in REASONS")
        super().__init__(message)
        self.reason = reason
