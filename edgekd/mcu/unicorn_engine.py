"""The unicorn engine: prepares a run for the child script, watches over it, and reads its counts.

The child is a subprocess (unicorn is GPL-2.0; see unicorn_child.py) that talks by files in the run's
directory and one line a sample on its standard output.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from edgekd.errors import ArtifactError, DeviceError, MissingDependencyError
from edgekd.mcu.cycles import Costs
from edgekd.mcu.engine import EmulatorResult, Run, fault_error, read_rows
from edgekd.mcu.isa import aligned_accesses, uses_fpu
from edgekd.mcu.machines import MACHINES

CHILD = Path(__file__).with_name("unicorn_child.py")
STARTUP_S = 60.0  # beyond a sample's own limit: the interpreter's start, hooks, the last files
FAULTED = 3  # the child's exit status when it left fault.json


def run_unicorn(run: Run) -> EmulatorResult:
    """Run the image on unicorn. Raises VerifyError where the image breaks a memory rule, DeviceError
    where the core hangs or faults or the child dies, MissingDependencyError without unicorn."""
    if importlib.util.find_spec("unicorn") is None:
        raise MissingDependencyError("the emulated core needs unicorn; install it: pip install unicorn")
    counts = count(run)
    outputs, _ = read_rows(run)
    instructions, cycles, by_layer = _account(run, counts)
    return EmulatorResult(
        outputs, instructions, by_layer, cycles, counts["peak_stack_bytes"], counts["engine"]
    )


def count(run: Run) -> dict[str, Any]:
    """Run the image; the child's report: {"samples": [{layer: [[from, to, times]]}],
    "sizes": [{block: bytes}], "peak_stack_bytes", "engine"}, layer -1 being model_invoke's own row."""
    _write_job(run)
    _supervise(run)
    found: dict[str, Any] = json.loads((run.folder / "counts.json").read_text("utf-8"))
    return found


def _write_job(run: Run) -> None:
    image, target = run.image, run.target
    assert target.core is not None and target.memory is not None and target.emulator is not None
    prefix = run.layers[0]["symbol"].partition("_layer_")[0] if run.layers else "model"
    invoke = image.function(f"{prefix}_invoke")
    job = {
        "cpu": target.core.cpu,
        "timer": MACHINES[target.emulator.machine].timer,
        "flash_origin": target.memory.flash_origin,
        "ram_origin": target.memory.ram_origin,
        "ram_end": image.place("ram_end"),
        "more_ram": _more_ram(run),
        "more_flash": _more_flash(run),
        "stack_bottom": image.place("stack_bottom"),
        "stack_top": image.place("stack_top"),
        "invoke": invoke.address,
        "invoke_end": invoke.address + invoke.size_bytes,
        "layers": [image.function(layer["symbol"]).address for layer in run.layers],
        "aligned": aligned_accesses(image) if run.watched else [],
        "fpu_used": uses_fpu(image),
        "counted": run.counted,
        "watched": run.watched,
        "timeout_s": run.timeout_s,
    }
    (run.folder / "job.json").write_text(json.dumps(job), "utf-8")
    (run.folder / "flash.bin").write_bytes(flash_contents(_first_flash(run), target.memory.flash_origin))
    run.inputs.tofile(run.folder / "samples.bin")


def _more_ram(run: Run) -> list[list[int]]:
    """[begin, end] of what the image has in slow RAM."""
    memory = run.target.memory
    section = run.image.sections.get(memory.slow_ram.section) if memory and memory.slow_ram else None
    return [[section.address, section.address + section.size_bytes]] if section and section.size_bytes else []


def _outside_of(run: Run) -> range:
    """The addresses of external flash."""
    region = run.target.memory.external_flash if run.target.memory else None
    return range(region.origin, region.origin + region.size_bytes) if region else range(0)


def _first_flash(run: Run) -> list[tuple[int, bytes]]:
    return [(address, data) for address, data in run.image.load if address not in _outside_of(run)]


def _more_flash(run: Run) -> list[list[Any]]:
    """[address, file] of what is programmed into external flash; writes the files."""
    found: list[list[Any]] = []
    for address, data in run.image.load:
        if address in _outside_of(run):
            found.append([address, f"flash-{address:08x}.bin"])
            (run.folder / found[-1][1]).write_bytes(data)
    return found


def flash_contents(load: Iterable[tuple[int, bytes]], origin: int) -> bytes:
    """What is programmed from `origin` on: the loaded parts (address, bytes), gaps as erased flash."""
    parts = list(load)
    end = max((address + len(data) for address, data in parts), default=origin)
    contents = bytearray(b"\xff" * (end - origin))
    for address, data in parts:
        if address < origin:
            raise ArtifactError(
                f"the image loads to 0x{address:08x}, below the target's flash; build it for this target"
            )
        contents[address - origin : address - origin + len(data)] = data
    return bytes(contents)


def _supervise(run: Run) -> None:
    """Start the child, pass its progress on, and turn what it left into an error."""
    log = run.folder / "child.log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            cwd=run.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        )
    try:
        _follow(child, run)
        status = child.wait(STARTUP_S)
    except subprocess.TimeoutExpired:
        raise DeviceError("the emulator did not end after its last sample; run it again") from None
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
    if status == FAULTED and (run.folder / "fault.json").exists():
        raise fault_error(run, json.loads((run.folder / "fault.json").read_text("utf-8")))
    said = log.read_text("utf-8", "replace").strip().splitlines()
    if status != 0 or said:  # what a hook raises is only printed: no count may be trusted then
        last = said[-1] if said else f"exit status {status}"
        raise DeviceError(f"the emulator died in sample {_samples_done(run)}: {last}; run it again")


def _follow(child: subprocess.Popen[str], run: Run) -> None:
    """Read the child's lines until it ends; DeviceError when none comes in time."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert child.stdout is not None
    threading.Thread(target=_pump, args=(child.stdout, lines), daemon=True).start()
    total = len(run.inputs)
    while True:
        try:
            line = lines.get(timeout=run.timeout_s + STARTUP_S)
        except queue.Empty:
            raise DeviceError(
                f"the emulator said nothing for {run.timeout_s + STARTUP_S:g} s in sample "
                f"{_samples_done(run)}; run it again, or allow more time"
            ) from None
        if line is None:
            return
        if line.startswith("sample "):
            run.progress("emulate", int(line.split()[1]), total)


def _pump(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _samples_done(run: Run) -> int:
    path = run.folder / "ticks.bin"
    return path.stat().st_size // 4 if path.exists() else 0


def _account(
    run: Run, counts: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[dict[str, Any], ...]]:
    """(instructions, estimated cycles) a counted sample, and the layers of the median sample."""
    costs = Costs(run.image, run.target.cost)
    instructions, cycles, rows = [], [], []
    for sample, blocks in zip(counts["samples"], counts["sizes"], strict=True):
        sizes = {int(address): size for address, size in blocks.items()}
        parts = {int(layer): costs.total(edges, sizes) for layer, edges in sample.items()}
        instructions.append(sum(part[0] for part in parts.values()))
        cycles.append(sum(part[1] for part in parts.values()))
        rows.append(parts)
    if not instructions:
        return (), (), ()
    median = rows[instructions.index(statistics.median_low(instructions))]
    by_layer = [
        {
            "name": layer["name"],
            "op": layer["op"],
            "kernel": layer.get("kernel"),
            "instructions": median.get(index, (0, 0))[0],
            "cycles": median.get(index, (0, 0))[1],
            "predicted_cycles": layer.get("cycles"),
            "macs": layer["macs"],
        }
        for index, layer in enumerate(run.layers)
    ]
    instructions_of, cycles_of = median.get(-1, (0, 0))
    own = {"kernel": None, "instructions": instructions_of, "cycles": cycles_of, "predicted_cycles": None}
    by_layer.append({"name": "(invoke)", "op": "", **own, "macs": 0})
    return tuple(instructions), tuple(cycles), tuple(by_layer)
