"""Runs a .tflite on TFLite Micro's reference kernels, in a process of its own: it may abort."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, MissingDependencyError

Array = npt.NDArray[np.generic]
ARENA_BYTES = 64 << 20
LONGEST_S = 300.0

_CHILD = """
import io, sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
given = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
model, outputs = given["model"].tobytes(), int(given["outputs"])
inputs = [given[f"x{i}"] for i in range(int(given["inputs"]))]
interpreter = runtime.Interpreter.from_bytes(model, arena_size=int(given["arena"]))
rows = []
for sample in range(len(inputs[0])):
    for index, values in enumerate(inputs):
        interpreter.set_input(values[sample : sample + 1], index)
    interpreter.invoke()
    rows.append([interpreter.get_output(i) for i in range(outputs)])
kept = io.BytesIO()
np.savez(kept, **{f"y{i}": np.concatenate([row[i] for row in rows]) for i in range(outputs)})
sys.stdout.buffer.write(kept.getvalue())
"""


def run_tflm(model: bytes, inputs: list[Array], outputs: int) -> list[Array]:
    """The `outputs` outputs [N, ...] of `model` for inputs [N, ...] each.

    Raises MissingDependencyError without the package tflite-micro, ArtifactError where it refuses the model.
    """
    if find_spec("tflite_micro") is None:
        raise MissingDependencyError("TFLite Micro is missing; install it: pip install tflite-micro")
    given = io.BytesIO()
    numbers = {"outputs": outputs, "inputs": len(inputs), "arena": ARENA_BYTES}
    arrays: dict[str, Array] = {name: np.array(value) for name, value in numbers.items()}
    arrays["model"] = np.frombuffer(model, np.uint8)
    arrays |= {f"x{i}": x for i, x in enumerate(inputs)}
    np.savez(given, **arrays)  # type: ignore[arg-type]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=given.getvalue(),
        capture_output=True,
        timeout=LONGEST_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ArtifactError(
            f"TFLite Micro refuses the model: {said[-1] if said else 'it died without a word'}"
        )
    found = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return [found[f"y{i}"] for i in range(outputs)]
