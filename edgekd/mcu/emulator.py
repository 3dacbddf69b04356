"""Runs a firmware image on an emulated core: checks first, then unicorn (counts) or QEMU (second opinion).

Deterministic: the same image and inputs give the same result. Times are never taken from the host.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekd.declaration import suggest
from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.elf import read_elf
from edgekd.mcu.engine import Bytes, EmulatorResult, Run
from edgekd.mcu.isa import check_isa
from edgekd.mcu.qemu import run_qemu
from edgekd.mcu.unicorn_engine import run_unicorn
from edgekd.progress import Progress, silent
from edgekd.target import Target

__all__ = ["ENGINES", "EmulatorResult", "run_image"]

ENGINES: dict[str, Callable[[Run], EmulatorResult]] = {"unicorn": run_unicorn, "qemu": run_qemu}

SAMPLE_TIMEOUT_S = 600.0  # one sample of a 130 M instruction model, watched, takes about a minute


def run_image(
    elf: Path,
    layers: Path,
    target: Target,
    inputs: Bytes,
    *,
    engine: str = "unicorn",
    counted: int,
    watched: int,
    progress: Progress = silent,
    timeout_s: float = SAMPLE_TIMEOUT_S,
) -> EmulatorResult:
    """Run every row of `inputs` (uint8 [N, MODEL_INPUT_BYTES]) through the image, in order, from one reset.

    layers: the generated layers.json. counted: the first so many samples have their instructions counted;
    watched: the first so many have every memory access checked, start-up included (20 to 40 times
    slower). timeout_s: the longest one sample may take.
    Raises VerifyError naming function and address where the image breaks a rule of its core or memory,
    DeviceError where the core hangs, faults or dies, ArtifactError for a broken image, layers file or input
    shape, ConfigError for an unknown engine, MissingDependencyError without the engine's package.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r} does not exist{suggest(engine, ENGINES)}")
    if target.core is None or target.memory is None:
        raise ConfigError(f"target {target.name} has no core to emulate; take one of kind mcu")
    if inputs.ndim != 2 or inputs.dtype.itemsize != 1 or not len(inputs):
        raise ArtifactError(
            f"the core takes rows of bytes, not {inputs.dtype} {list(inputs.shape)}; give [N, bytes]"
        )
    image = read_elf(elf)
    check_isa(image, target.core)
    with tempfile.TemporaryDirectory(prefix="edgekd-run-") as folder:
        run = Run(
            elf=elf,
            image=image,
            layers=_read_layers(layers),
            target=target,
            inputs=inputs.view("uint8"),
            counted=counted,
            watched=watched,
            timeout_s=timeout_s,
            progress=progress,
            folder=Path(folder),
        )
        return ENGINES[engine](run)


def _read_layers(path: Path) -> list[Mapping[str, Any]]:
    """The rows of layers.json: name, op, symbol, macs; kernel and the predicted cycles where they are."""
    try:
        rows = json.loads(path.read_text("utf-8"))
        more = ("kernel", "cycles")
        return [
            {key: row[key] for key in ("name", "op", "symbol", "macs")} | {key: row.get(key) for key in more}
            for row in rows
        ]
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; generate the C again") from None
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(
            f"{path}: not a list of layers (name, op, symbol, macs); generate the C again"
        ) from None
