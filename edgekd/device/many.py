"""One piece of work on many devices at once: each in a thread, each with its own deadline.

A device that is frozen, refuses or fails keeps nobody waiting. One whose link drops is reached again, for
a device that reboots comes back: the work must be such that doing it again finishes it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgekd.device.inventory import Host
from edgekd.device.transport import LinkCutError, Transport
from edgekd.errors import DeviceError, EdgekdError
from edgekd.progress import Progress

AT_ONCE = 16
DEADLINE_S = 600.0
RETURN_S = 90.0  # how long a device whose link was cut may stay away
PAUSE_S = 2.0
ATTEMPTS = 3

T = TypeVar("T")
Tell = Callable[[Host, str, int, int], None]  # host, what it does, done, total


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one host: a result or an error; `attempts` counts the links that it took."""

    host: Host
    result: T | None
    error: EdgekdError | None
    seconds: float
    attempts: int


class Leash:
    """A host's deadline: whatever link it holds is closed when the time is over."""

    def __init__(self, name: str, deadline_s: float) -> None:
        self._name, self._deadline_s = name, deadline_s
        self.attempts = 0
        self._over, self._lock = threading.Event(), threading.Lock()
        self._transport: Transport | None = None

    def hold(self, transport: Transport) -> None:
        """Let the deadline close this link; raises LinkCutError when it has passed already."""
        with self._lock:
            if not self._over.is_set():
                self._transport = transport
                return
        transport.close()
        raise self.late()

    def cut(self) -> None:
        """The deadline has passed."""
        with self._lock:
            self._over.set()
            if self._transport is not None:
                self._transport.close()

    def wait(self, pause_s: float) -> None:
        """Sleep; raises when the deadline passes first."""
        if self._over.wait(pause_s):
            raise self.late()

    def late(self) -> LinkCutError:
        """The error of a host that did not get done in time."""
        return LinkCutError(
            f"{self._name} was not done within its {self._deadline_s:g} s; check the link and run again"
        )


def persist(
    connect: Callable[[], Transport],
    work: Callable[[Transport, int], T],
    leash: Leash,
    tell: Progress,
    *,
    attempts: int = ATTEMPTS,
    return_s: float = RETURN_S,
) -> T:
    """`work(transport, attempt)`, again over a new link when one was cut, until it is done.

    A first link that does not come about is an error at once; later ones are waited for `return_s`.
    """
    for attempt in range(1, attempts + 1):
        leash.attempts = attempt
        transport = connect() if attempt == 1 else _reached_again(connect, leash, tell, return_s)
        with transport:
            leash.hold(transport)
            try:
                return work(transport, attempt)
            except LinkCutError:
                if attempt == attempts:
                    raise
    raise leash.late()


def _reached_again(
    connect: Callable[[], Transport], leash: Leash, tell: Progress, return_s: float
) -> Transport:
    end_s = time.monotonic() + return_s
    while True:
        tell("away, waiting", 0, 1)
        leash.wait(PAUSE_S)
        try:
            return connect()
        except DeviceError:
            if time.monotonic() >= end_s:
                raise


def run_on_all(
    hosts: Sequence[Host],
    work: Callable[[Host, Leash, Progress], T],
    tell: Tell,
    *,
    at_once: int = AT_ONCE,
    deadline_s: float = DEADLINE_S,
) -> list[Outcome[T]]:
    """`work` for each host, `at_once` side by side; the outcomes in the order of `hosts`.

    A host's time starts when its work does. One that is not done `deadline_s` later has its link closed and
    counts as failed; its thread is left behind and holds up nobody. EdgekdErrors become outcomes; any other
    exception is raised here.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome[T] | BaseException]] = queue.SimpleQueue()
    for index in range(len(hosts)):
        todo.put(index)
    room = threading.Semaphore(at_once)
    outcomes: dict[int, Outcome[T]] = {}
    threading.Thread(
        target=_feed, args=(hosts, work, tell, todo, done, room, deadline_s), daemon=True
    ).start()
    while len(outcomes) < len(hosts):
        index, outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        outcomes.setdefault(index, outcome)
    return [outcomes[index] for index in range(len(hosts))]


def _feed(
    hosts: Sequence[Host],
    work: Callable[..., Any],
    tell: Tell,
    todo: queue.SimpleQueue[int],
    done: queue.SimpleQueue[Any],
    room: threading.Semaphore,
    deadline_s: float,
) -> None:
    """Start a host's thread and its deadline as soon as there is room."""
    while not todo.empty():
        room.acquire()
        threading.Thread(
            target=_one, args=(todo.get(), hosts, work, tell, done, room, deadline_s), daemon=True
        ).start()


def _one(
    index: int,
    hosts: Sequence[Host],
    work: Callable[..., Any],
    tell: Tell,
    done: queue.SimpleQueue[Any],
    room: threading.Semaphore,
    deadline_s: float,
) -> None:
    host, leash, begin_s = hosts[index], Leash(hosts[index].name, deadline_s), time.monotonic()
    once = threading.Lock()  # taken for good by who is first: the work's end or the deadline

    def finish(result: Any, error: EdgekdError | None) -> None:
        if not once.acquire(blocking=False):
            return
        tell(host, f"failed: {error}" if error else "done", 1, 1)
        done.put((index, Outcome(host, result, error, time.monotonic() - begin_s, leash.attempts)))
        room.release()

    def late() -> None:
        leash.cut()
        finish(None, leash.late())

    timer = threading.Timer(deadline_s, late)
    timer.daemon = True
    timer.start()
    try:
        tell(host, "connecting", 0, 1)
        finish(work(host, leash, lambda label, count, total: tell(host, label, count, total)), None)
    except EdgekdError as error:
        finish(None, error)
    except BaseException as error:
        done.put((index, error))
    finally:
        timer.cancel()


def worst_exit_code(outcomes: Sequence[Outcome[Any]]) -> int:
    """0 where all is done; the code of what failed where that is of one kind; else DeviceError's."""
    codes = {outcome.error.exit_code for outcome in outcomes if outcome.error}
    if len(codes) <= 1:
        return codes.pop() if codes else 0
    return DeviceError.exit_code
