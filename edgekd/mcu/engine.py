"""What every emulator engine is given and gives back, and how a fault of the core becomes one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, DeviceError, EdgekdError, VerifyError
from edgekd.mcu.elf import Image
from edgekd.progress import Progress
from edgekd.target import Target

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EmulatorResult:
    """What one run on an emulated core measured; what an engine cannot measure is empty or None.

    outputs: uint8 [N, MODEL_OUTPUT_BYTES]. instructions: executed inside model_invoke, one figure a
    counted sample (unicorn: exact; QEMU: to ±40). cycles: estimated by the target's cost model, one a
    counted sample. by_layer: {name, op, kernel, instructions, cycles,
    predicted_cycles, macs} of the counted sample whose total is the
    (low) median: its instructions sum to that total, "(invoke)" being model_invoke's own row.
    peak_stack_bytes: the lowest stack byte written in the whole run, start-up and harness included.
    engine: name and version.
    """

    outputs: Bytes
    instructions: tuple[int, ...]
    by_layer: tuple[dict[str, Any], ...]
    cycles: tuple[int, ...]
    peak_stack_bytes: int | None
    engine: str


@dataclass(frozen=True)
class Run:
    """One image and the samples to run through it. `folder` is the run's own directory."""

    elf: Path
    image: Image
    layers: Sequence[Mapping[str, Any]]
    target: Target
    inputs: Bytes
    counted: int
    watched: int
    timeout_s: float
    progress: Progress
    folder: Path


def read_rows(run: Run) -> tuple[Bytes, npt.NDArray[np.uint32]]:
    """(outputs [N, bytes], ticks [N]) from the files that the image wrote; ArtifactError on a wrong count."""
    ticks: npt.NDArray[np.uint32] = np.fromfile(run.folder / "ticks.bin", "<u4")
    outputs = np.fromfile(run.folder / "outputs.bin", np.uint8)
    samples, row_bytes = run.inputs.shape
    if len(ticks) != samples or len(outputs) % samples:
        raise ArtifactError(
            f"the image ran {len(ticks)} samples where {samples} of {row_bytes} bytes were given; give "
            f"the input bytes that the model's header says"
        )
    return outputs.reshape(samples, -1), ticks.astype(np.uint32)


def fault_error(run: Run, facts: Mapping[str, Any]) -> EdgekdError:
    """The error that `facts` describe: kind, pc, lr, address, size, write, number, status, detail, sample."""
    where = run.image.locate(facts["pc"]) if "pc" in facts else "the core"
    if facts.get("output"):
        where = "model_invoke"  # the harness only noticed
    kind, sample = facts["kind"], facts.get("sample", 0)
    text = _MESSAGES[kind](run, facts)
    error = VerifyError if kind in MEMORY_RULES else DeviceError
    return error(f"{where}: {text} (sample {sample})")


MEMORY_RULES = ("unwritten", "outside", "unaligned", "write_flash", "fpu")


def _unwritten(run: Run, facts: Mapping[str, Any]) -> str:
    what = "an output byte that the model never wrote" if facts.get("output") else "memory that nothing wrote"
    return f"{what} was read at {_place(run, facts['address'])}; write it first"


def _outside(run: Run, facts: Mapping[str, Any]) -> str:
    address, verb = facts["address"], "write to" if facts["write"] else "read of"
    bottom = run.image.place("stack_bottom")
    if bottom - 0x10000 <= address < bottom:
        reserved = run.image.place("stack_top") - bottom
        return (
            f"the stack overflowed its {reserved} reserved bytes (0x{address:08x}); raise memory.stack_bytes"
        )
    return f"{verb} 0x{address:08x}, outside the image's own memory; keep the access inside its buffer"


def _place(run: Run, address: int) -> str:
    for symbol in run.image.objects:
        if symbol.address <= address < symbol.address + symbol.size_bytes:
            return f"{symbol.name}+0x{address - symbol.address:x} (0x{address:08x})"
    stack = run.image.place("stack_bottom") <= address < run.image.place("stack_top")
    return f"0x{address:08x}{' on the stack' if stack else ''}"


_EXCEPTIONS = {1: "an undefined instruction", 2: "a supervisor call", 3: "a fault of the instruction fetch"}
_EXCEPTIONS |= {4: "a fault of a data access", 7: "a breakpoint", 18: "an invalid state of the core"}
_STATUS = {1: "a fault handler ran", 2: "a file of the run could not be opened", 3: "an input row is cut off"}
_STATUS |= {4: "an output row could not be written"}


def _exception(run: Run, facts: Mapping[str, Any]) -> str:
    number = facts["number"]
    return f"HardFault by {_EXCEPTIONS.get(number, f'exception {number}')}; mend the function that it names"


def _exit(run: Run, facts: Mapping[str, Any]) -> str:
    return f"the image ended with status {facts['status']}: {_STATUS.get(facts['status'], 'unknown')}"


_MESSAGES: dict[str, Callable[[Run, Mapping[str, Any]], str]] = {
    "unwritten": _unwritten,
    "outside": _outside,
    "unaligned": lambda run, facts: (
        f"an access of several words at {_place(run, facts['address'])} is not word-aligned, which the core "
        f"forbids; align the buffer to 4 bytes"
    ),
    "write_flash": lambda run, facts: (
        f"write to flash at {_place(run, facts['address'])}; constants cannot be changed"
    ),
    "fpu": lambda run, facts: "the image uses the FPU but start-up never enabled it (CPACR)",
    "fetch": lambda run, facts: (
        f"jumped to 0x{facts['address']:08x}, which is no code of the image (return address in "
        f"{run.image.locate(facts['lr'] & ~1)})"
    ),
    "hang": lambda run, facts: f"still running after {run.timeout_s:g} s; look for an endless loop there",
    "exception": _exception,
    "hardfault": lambda run, facts: (
        f"HardFault (CFSR 0x{facts['cfsr']:08x}, address 0x{facts['bfar']:08x}, called from "
        f"{run.image.locate(facts['lr'] & ~1)}); mend the function that it names"
    ),
    "exit": _exit,
    "engine": lambda run, facts: f"the emulator stopped: {facts['detail']}",
    "model": lambda run, facts: f"{facts['detail']}; install another unicorn",
}
