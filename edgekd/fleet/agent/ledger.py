"""What the serving process counts about the release that answers, for the agent to read: `answered.json`.

The serving program (serve.py, or a user's own) makes a `Ledger` when it has loaded a slot, tells it every
answer, and closes it. The file is replaced whole, at most every few seconds. It says who answered last, how
often, with how many errors, and how the predictions are spread: a release that was installed and never
answered is seen. A ledger that was not closed before the next one begins was a crash.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
FILE = "answered.json"
MOST_BYTES = 1 << 18
MOST_MINUTES, MOST_CRASHES, MOST_DAYS, MOST_CLASSES = 60, 32, 8, 1000
EVERY_S = 5
MINUTE_S, DAY_S = 60, 86_400


@dataclass
class Account:
    """The file. sha256: the slot that answers; at: of its last answer, Unix seconds; minutes: [minute,
    answers, errors] of the last hour; crashes: when, the newest last; days: day -> how often each class was
    the answer; open: the ledger was begun and not closed."""

    sha256: str
    at: int = 0
    answers: int = 0
    errors: int = 0
    minutes: list[list[int]] = field(default_factory=list)
    crashes: list[int] = field(default_factory=list)
    days: dict[str, list[int]] = field(default_factory=dict)
    open: bool = False


def read(folder: Path) -> Account | None:
    """The account in a folder; None where there is none, or no sound one (the serving user writes it)."""
    try:
        handle = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            return parse(json.loads(stream.read(MOST_BYTES)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def parse(value: dict[str, Any]) -> Account:
    """An Account of what JSON gives; ValueError or TypeError for anything else."""
    if value.pop("schema") != SCHEMA:
        raise ValueError("another schema")
    found = Account(**value)
    numbers = [found.at, found.answers, found.errors, *found.crashes]
    numbers += [each for row in found.minutes for each in row]
    numbers += [each for counts in found.days.values() for each in counts]
    if not all(type(each) is int and each >= 0 for each in numbers) or type(found.sha256) is not str:
        raise ValueError("a number is none")
    if not all(len(row) == 3 for row in found.minutes) or not all(day.isdecimal() for day in found.days):
        raise ValueError("a row is none")
    return found


class Ledger:
    """Counts the answers of one loaded slot. Times are given by the caller, in Unix seconds."""

    def __init__(self, folder: Path, sha256: str, now_s: int) -> None:
        self._folder, self._written_s = folder, 0
        before = read(folder)
        self.account = before if before is not None and before.sha256 == sha256 else Account(sha256)
        if self.account.open:
            self.account.crashes = [*self.account.crashes, now_s][-MOST_CRASHES:]
        self.account.open = True
        self._write(now_s)

    def answered(self, now_s: int, top: int | None = None) -> None:
        """One answer; `top` is its class, where it has one."""
        self._count(now_s, 0)
        self.account.at = now_s
        if top is not None and 0 <= top < MOST_CLASSES:
            days = self.account.days
            counts = days.setdefault(str(now_s // DAY_S), [])
            counts += [0] * (top + 1 - len(counts))
            counts[top] += 1
            for day in sorted(days, key=int)[:-MOST_DAYS]:
                del days[day]
        self._write_now_and_then(now_s)

    def failed(self, now_s: int) -> None:
        """One request without an answer."""
        self._count(now_s, 1)
        self._write_now_and_then(now_s)

    def close(self, now_s: int) -> None:
        """The serving process ends in peace."""
        self.account.open = False
        self._write(now_s)

    def _count(self, now_s: int, errors: int) -> None:
        account, minute = self.account, now_s // MINUTE_S
        account.answers, account.errors = account.answers + 1 - errors, account.errors + errors
        if not account.minutes or account.minutes[-1][0] != minute:
            account.minutes = [*account.minutes, [minute, 0, 0]][-MOST_MINUTES:]
        account.minutes[-1][1 + errors] += 1

    def _write_now_and_then(self, now_s: int) -> None:
        if abs(now_s - self._written_s) >= EVERY_S:
            self._write(now_s)

    def _write(self, now_s: int) -> None:
        self._written_s = now_s
        fresh = self._folder / f"{FILE}.new"
        fresh.write_text(json.dumps({"schema": SCHEMA, **asdict(self.account)}))
        os.replace(fresh, self._folder / FILE)
