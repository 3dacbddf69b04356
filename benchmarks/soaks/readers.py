"""The processes that read damaged files, one a processor: what each tells, and a new one where one dies.

Reader number k of n takes the files k, k + n, k + 2n, ... A reader that dies, or says nothing for long, is a
finding about the file that it had in hand; the next one goes on behind it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.soaks.damage import Seed
from benchmarks.soaks.worker import Tally, read_range

SILENCE_S = 300.0  # a file takes at most HANG_S in a reader; the rest is for a busy machine
FEWEST_FILES = 1500  # of a reader: starting one takes a second or two


def read_all(sound: list[Seed], seed: int, count: int, each: int, end: float) -> Iterator[Tally]:
    """Tallies of all `count` files, in no order; those not read by `end` (monotonic seconds) are left out."""
    number = max(1, min(os.cpu_count() or 1, count // FEWEST_FILES))
    readers = [_Reader(sound, seed, range(first, count, number), each) for first in range(number)]
    try:
        while readers and time.monotonic() < end:
            ready = wait([reader.pipe for reader in readers], timeout=SILENCE_S)
            for reader in readers:
                yield from reader.news(reader.pipe in ready)
            readers = [reader for reader in readers if reader.is_busy]
    finally:
        for reader in readers:
            reader.stop()


class _Reader:
    """One process at a time, over its own range of files."""

    def __init__(self, sound: list[Seed], seed: int, files: range, each: int) -> None:
        self._work = (sound, seed, each)
        self._files = files
        self._context = multiprocessing.get_context("spawn")
        self._position = self._context.Value("q", files.start)
        self.is_busy = True
        self._start(files)

    def _start(self, files: range) -> None:
        self.pipe: Connection
        self.pipe, theirs = self._context.Pipe(duplex=False)
        sound, seed, each = self._work
        arguments: tuple[Any, ...] = (theirs, self._position, sound, seed, files, each)
        self._child = self._context.Process(target=read_range, args=arguments)
        self._child.start()
        theirs.close()
        self._heard_s = time.monotonic()

    def news(self, is_ready: bool) -> Iterator[Tally]:
        """What it says now; a tally of one failure where it has died or is silent."""
        if not is_ready:
            if time.monotonic() - self._heard_s > SILENCE_S:
                yield self._lost(f"the reader said nothing for {SILENCE_S:g} s")
            return
        self._heard_s = time.monotonic()
        try:
            tally = self.pipe.recv()
        except EOFError:
            self._child.join()
            yield self._lost(f"the reader's process died with status {self._child.exitcode}")
            return
        if tally is None:
            self.stop()
        else:
            yield tally

    def _lost(self, what: str) -> Tally:
        """The file in hand is a finding; go on behind it."""
        at = int(self._position.value)
        self.stop()
        rest = range(at + self._files.step, self._files.stop, self._files.step)
        if rest:
            self.is_busy = True
            self._start(rest)
        lost = Tally()
        lost.fail(at, what)
        return lost

    def stop(self) -> None:
        self._child.kill()
        self._child.join()
        self.pipe.close()
        self.is_busy = False
