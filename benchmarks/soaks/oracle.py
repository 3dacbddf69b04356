"""TFLite Micro in a process of its own: a damaged file may kill it, and then only it.

`Oracle.outputs` gives bytes, or a word for what happened: "refused", "died" or "hung".
"""

from __future__ import annotations

import multiprocessing
import os
import resource
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ANSWER_S = 20.0
ARENA_BYTES = 4 << 20
MEMORY_BYTES = 4 << 30


class Oracle:
    """Starts its process when first asked, and again after each death."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def outputs(self, model: bytes, inputs: list[Array], count: int) -> Array | str:
        """The `count` outputs of all samples, as uint8 [N, bytes]; a word where there are none."""
        if self._process is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((model, inputs, count))
            if self._pipe.poll(ANSWER_S):
                answer: Array | str = self._pipe.recv()
                return answer
        except (EOFError, OSError):
            self._end()
            return "died"
        except BaseException:  # interrupted: an answer that comes later would pass for the next one's
            self._end()
            raise
        self._end()
        return "hung"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _serve(pipe: Connection) -> None:
    """Answer until the other side goes. TFLite Micro prints to the C library's stderr: nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tflite_micro import runtime

    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_run(runtime, *request))
        except (RuntimeError, ValueError, IndexError, MemoryError, SystemError):
            pipe.send("refused")


def _run(runtime: Any, model: bytes, inputs: list[Array], count: int) -> Array:
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=ARENA_BYTES)
    rows = []
    for sample in range(len(inputs[0])):
        for index, values in enumerate(inputs):
            interpreter.set_input(values[sample : sample + 1], index)
        interpreter.invoke()
        parts = [np.ascontiguousarray(interpreter.get_output(i)).view(np.uint8).ravel() for i in range(count)]
        rows.append(np.concatenate(parts))
    return np.stack(rows)
