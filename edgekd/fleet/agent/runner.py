"""A model of a slot, loaded and ready to answer: the engines of edgekd's bench, the trial's questions."""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

from edgekd.device.agent.arrays import Rows
from edgekd.device.agent.engines import file_of, import_runtime, installed, open_engine
from edgekd.device.agent.messages import AgentError
from edgekd.device.agent.scoring import compare_golden

# Which variant of a bundle is tried, the first that this device can run.
VARIANTS = ("int8", "native", "litert", "float")


class LoadError(Exception):
    """The runtime refuses the model, or a file of it is not what was signed."""


class NoRuntimeError(Exception):
    """This device can run no variant of the bundle: not the release's fault."""


class Slot:
    """A slot's bundle, each file held to its signed hash, and the variant that is tried here."""

    def __init__(self, directory: Path) -> None:
        release = json.loads((directory / "release.json").read_bytes())
        self.folder = directory / release["bundle"]
        for path, entry in release["files"].items():
            if hashlib.sha256((directory / path).read_bytes()).hexdigest() != entry["sha256"]:
                raise LoadError(f"{path} is not what was signed")
        try:
            self.bundle: dict[str, Any] = json.loads((self.folder / "bundle.json").read_bytes())
            variants: dict[str, Any] = self.bundle["variants"]
            able = [name for name in VARIANTS if name in variants and _runs_here(variants[name])]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(f"bundle.json cannot be read ({type(error).__name__})") from None
        if not able:
            raise NoRuntimeError(f"no variant of {', '.join(variants) or 'none'} runs on this device")
        self.variant = able[0]

    def import_runtime(self) -> None:
        """Import what runs it; NoRuntimeError where that fails."""
        engine = self.bundle["variants"][self.variant]["engine"]
        try:
            if engine != "native":
                import_runtime(engine)
        except AgentError as error:
            raise NoRuntimeError(str(error.args[1])) from None


def _runs_here(variant: dict[str, Any]) -> bool:
    try:
        file_of(variant)
    except AgentError:
        return False
    return installed()[variant["engine"]] is not None


class Loaded:
    """The model of a slot. Raises LoadError."""

    def __init__(self, slot: Slot) -> None:
        variant = slot.bundle["variants"][slot.variant]
        self._rule: dict[str, Any] = variant["golden"]
        try:
            self._engine = open_engine(slot.folder, slot.bundle, slot.variant)
            self._samples = Rows(slot.folder / slot.bundle["samples"]["x"])
            self._golden = Rows(slot.folder / self._rule["file"])
        except AgentError as error:
            raise LoadError(str(error.args[1])) from None
        self._width = math.prod(self._golden.shape[1:])

    def run(self, index: int) -> list[float]:
        """The answer to one sample, as real numbers; samples repeat."""
        return self._engine.floats(self._engine.run(self._prepared(index)))

    def time_ns(self, index: int) -> int:
        """Nanoseconds of one inference; taking the sample is left out."""
        sample = self._prepared(index)
        begin = time.perf_counter_ns()
        self._engine.run(sample)
        return time.perf_counter_ns() - begin

    def _prepared(self, index: int) -> Any:
        return self._engine.prepare(self._samples.row(index % len(self._samples)))

    def is_finite(self, answer: list[float]) -> bool:
        """Whether every number of an answer is one."""
        return all(map(math.isfinite, answer))

    def has_shape(self, answer: list[float]) -> bool:
        """Whether an answer has as many numbers as the golden ones."""
        return len(answer) == self._width

    def against_golden(self) -> tuple[bool, float | None, float]:
        """All shapes are right; the largest difference in steps, None: not finite; the top-1's share."""
        count = len(self._golden)
        answers = [
            self._integers(index) if self._rule["exact"] else self.run(index) for index in range(count)
        ]
        if not all(self.has_shape(each) for each in answers):
            return False, None, 0.0
        golden = [[float(value) for value in self._golden.row(index)] for index in range(count)]
        found = compare_golden(answers, golden, self._rule)
        return True, found["max_difference_steps"], found["agreement"]

    def _integers(self, index: int) -> list[float]:
        """The raw integers of an exact engine."""
        raw = self._engine.integers(self._samples.row(index % len(self._samples))) or b""
        code = self._golden.values.format
        return [float(value) for value in memoryview(raw).cast(code)]  # type: ignore[call-overload]
