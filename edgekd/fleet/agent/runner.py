"""A model of a slot, loaded and ready to answer: the runner of edgekd's bench, with the trial's questions."""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from pathlib import Path
from typing import Any

from edgekd.device.agent.engines import import_runtime
from edgekd.device.agent.scoring import compare_golden

VARIANT = "int8"  # what a Linux bundle is served by


class LoadError(Exception):
    """The runtime refuses the model, or a file of it is not what was signed."""


class Loaded:
    """One model. directory: the slot; release: what its release.json says.

    The bytes that the runtime gets are those whose hash was taken: nobody can change the file in between.
    """

    def __init__(self, directory: Path, release: dict[str, Any]) -> None:
        runtime = import_runtime("onnxruntime")
        self._numpy = importlib.import_module("numpy")
        self._directory, self._files = directory, release["files"]
        bundle = json.loads(self._signed(f"{release['bundle']}/bundle.json"))
        self._folder = release["bundle"]
        self.rule: dict[str, Any] = bundle["variants"][VARIANT]["golden"]
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
        options.log_severity_level = 4
        model = self._signed(f"{self._folder}/{bundle['variants'][VARIANT]['files']['any']}")
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.samples = self._array(bundle["samples"]["x"])
        self.golden = self._array(self.rule["file"])

    def _signed(self, path: str) -> bytes:
        data = (self._directory / path).read_bytes()
        if hashlib.sha256(data).hexdigest() != self._files[path]["sha256"]:
            raise LoadError(f"{path} is not what was signed")
        return data

    def _array(self, name: str) -> Any:
        path = f"{self._folder}/{name}"
        if path not in self._files:
            raise LoadError(f"{path} is not among the signed files")
        return self._numpy.load(self._directory / path, mmap_mode="r", allow_pickle=False)

    def run(self, index: int) -> Any:
        """The answer to one sample, of whatever shape; samples repeat."""
        place = index % len(self.samples)
        sample = self._numpy.ascontiguousarray(self.samples[place : place + 1])
        return self._session.run(None, {self._input: sample})[0]

    def time_ns(self, index: int) -> int:
        """Nanoseconds of one inference; taking the sample is left out."""
        place = index % len(self.samples)
        sample = {self._input: self._numpy.ascontiguousarray(self.samples[place : place + 1])}
        begin = time.perf_counter_ns()
        self._session.run(None, sample)
        return time.perf_counter_ns() - begin

    def is_finite(self, answer: Any) -> bool:
        """Whether every number of an answer is one."""
        return bool(self._numpy.isfinite(answer).all())

    def has_shape(self, answer: Any) -> bool:
        """Whether an answer has the shape of the golden ones."""
        return tuple(answer.shape[1:]) == tuple(self.golden.shape[1:]) and len(answer) == 1

    def against_golden(self) -> tuple[bool, float | None, float]:
        """All shapes are right; the largest difference in steps, None: not finite; the top-1's share."""
        answers = [self.run(index) for index in range(len(self.golden))]
        if not all(self.has_shape(each) for each in answers):
            return False, None, 0.0
        rows = [each.astype("float64").ravel().tolist() for each in answers]
        golden = [each.astype("float64").ravel().tolist() for each in self.golden]
        found = compare_golden(rows, golden, self.rule)
        return True, found["max_difference_steps"], found["agreement"]
