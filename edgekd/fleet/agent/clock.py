"""What time it is, on a device that has no clock of its own (a Pi has none): a pure rule, and the real clock.

The time that expiry is checked with is the largest of the system's, the newest signed time seen, and the
time that this agent was built. A signed time (`at`, in every signed part) is believed up to AHEAD_S beyond
the system's or the build's, so that one value far ahead does not bar updates for ever; it is forgotten when
the keys rotate. While the system's clock is not set, nothing is installed: the agent checks, and serves on.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Protocol

BUILT_AT_S = 1_795_478_400  # 2026-11-24: no device that runs this is earlier
AHEAD_S = 14 * 86_400
UNSET = 5  # adjtimex(2): TIME_ERROR, the clock is not synchronized
TIMEX_BYTES = 512  # more than struct timex has on any architecture


@dataclass(frozen=True)
class Now:
    """The system's clock: Unix seconds, and whether somebody has set it."""

    system_s: int
    is_set: bool = True

    def trusted_s(self, seen_s: int = 0) -> int:
        """The time to check expiry with; `seen_s` is the newest signed time."""
        return max(self.system_s, min(seen_s, self.newest_believed_s), BUILT_AT_S)

    @property
    def newest_believed_s(self) -> int:
        """A signed time beyond this one is refused."""
        return max(self.system_s, BUILT_AT_S) + AHEAD_S


class Clock(Protocol):
    """Where `Now` comes from."""

    def now(self) -> Now:
        """The time now."""


class SystemClock:
    """The device's clock. trusted: take it as set whatever the kernel says (air-gapped devices).

    wait_s: how long to wait for somebody to set it, as at boot.
    """

    def __init__(self, trusted: bool = False, wait_s: float = 0.0) -> None:
        self._trusted, self._wait_s = trusted, wait_s

    def now(self) -> Now:
        """The time now, after the wait where it is not set."""
        end_s = time.monotonic() + self._wait_s
        while not (is_set := self._trusted or kernel_says_set()) and time.monotonic() < end_s:
            time.sleep(1.0)
        return Now(int(time.time()), is_set)


def kernel_says_set() -> bool:
    """Whether a time service (timesyncd, chrony, ntpd) has set the clock, by adjtimex(2)."""
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    state: int = ctypes.CDLL(None).adjtimex(buffer)
    return 0 <= state < UNSET
