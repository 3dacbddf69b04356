"""The QEMU engine: the same image on another emulator, as a second opinion.

Under -icount shift=0 an instruction takes 1 ns of virtual time, so a board's timer ticks once in 40
instructions (25 MHz; an AN505's 20 MHz: in 50): a sample's instructions are known to one tick. Looks for
qemu-system-arm on PATH.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time

from edgekd.errors import ConfigError, DeviceError, MissingDependencyError
from edgekd.mcu.engine import EmulatorResult, Run, fault_error, read_rows
from edgekd.mcu.machines import MACHINES

QEMU = "qemu-system-arm"
INSTALL = "apt-get install qemu-system-arm"
POLL_S = 0.05
FAULT_RECORD = struct.Struct("<8I")  # struct fault_record in firmware_stubs/boards/cortex-m/startup.c


def run_qemu(run: Run) -> EmulatorResult:
    """Run the image on QEMU. Raises DeviceError where the core hangs or faults, and
    MissingDependencyError without QEMU. Layers, cycles and stack are not measured."""
    path = shutil.which(QEMU)
    if path is None:
        raise MissingDependencyError(f"{QEMU} is not on PATH; install it: {INSTALL}")
    _hold_link_map(run)
    run.inputs.tofile(run.folder / "samples.bin")
    status, said = _supervise(path, run)
    _raise_fault(run, status, said)
    outputs, ticks = read_rows(run)
    assert run.target.emulator is not None
    tick = MACHINES[run.target.emulator.machine].tick_ns
    instructions = tuple(int(ticked) * tick for ticked in ticks[: run.counted])
    return EmulatorResult(outputs, instructions, (), (), None, _version(path))


def _hold_link_map(run: Run) -> None:
    """QEMU's machine has its own memory: a profile with another link map runs on unicorn only."""
    memory, emulator = run.target.memory, run.target.emulator
    assert memory is not None and emulator is not None
    machine = MACHINES[emulator.machine]
    if run.target.core is not None and run.target.core.cpu != machine.cpu:
        raise ConfigError(
            f"target {run.target.name} has a {run.target.core.cpu}, QEMU's {emulator.machine} a "
            f"{machine.cpu}; correct emulator.machine in the profile"
        )
    if (memory.flash_origin, memory.ram_origin) != (machine.flash_origin, machine.ram_origin):
        raise ConfigError(
            f"target {run.target.name} has flash at 0x{memory.flash_origin:08x}, where QEMU's "
            f"{emulator.machine} has none; take --engine unicorn"
        )


def _command(path: str, run: Run) -> list[str]:
    assert run.target.emulator is not None
    return [
        path,
        *("-M", run.target.emulator.machine, "-display", "none", "-serial", "none", "-monitor", "stdio"),
        *("-semihosting-config", "enable=on,target=native", "-icount", "shift=0"),
        *("-kernel", str(run.elf.resolve())),
    ]


def _supervise(path: str, run: Run) -> tuple[int, str]:
    """(exit status, what QEMU said); DeviceError naming the function when a sample takes too long."""
    with (run.folder / "qemu.log").open("wb") as log:
        child = subprocess.Popen(
            _command(path, run), cwd=run.folder, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            return _follow(child, run), _log(run)
        finally:
            child.kill()
            child.wait()
            if child.stdin:
                child.stdin.close()


def _follow(child: subprocess.Popen[bytes], run: Run) -> int:
    """Wait for the end, passing on progress: the rows of outputs that have reached the disk."""
    ticks = run.folder / "ticks.bin"
    done, since = 0, time.monotonic()
    while True:
        try:
            return child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            now = ticks.stat().st_size // 4 if ticks.exists() else 0
        if now != done:
            done, since = now, time.monotonic()
            run.progress("emulate", done, len(run.inputs))
        elif time.monotonic() - since > run.timeout_s:
            raise fault_error(run, {"kind": "hang", "sample": done, **_ask_position(child, run)})


def _ask_position(child: subprocess.Popen[bytes], run: Run) -> dict[str, int]:
    """Where the hung core is, from QEMU's monitor; empty when it does not answer."""
    try:
        child.communicate(b"stop\ninfo registers\nquit\n", timeout=10)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        return {}
    found = re.findall(r"R15=([0-9a-f]{8})", _log(run))
    return {"pc": int(found[-1], 16)} if found else {}


def _raise_fault(run: Run, status: int, said: str) -> None:
    record = run.folder / "fault.bin"
    if record.exists() and record.stat().st_size == FAULT_RECORD.size:
        pc, lr, _, cfsr, _, mmfar, bfar, sp = FAULT_RECORD.unpack(record.read_bytes())
        facts = {"kind": "hardfault", "lr": lr, "cfsr": cfsr, "bfar": bfar if cfsr & 0x8000 else mmfar}
        if pc:
            facts["pc"] = pc
        elif sp < run.image.place("stack_bottom"):
            facts = {"kind": "outside", "address": sp, "write": True}
        raise fault_error(run, facts)
    if status < 0 or "fatal" in said or (status and not (run.folder / "ticks.bin").exists()):
        last = [line for line in said.splitlines() if line.strip()][-1:] or [f"exit status {status}"]
        raise DeviceError(f"QEMU died: {last[0]}; run it again")
    if status:
        raise fault_error(run, {"kind": "exit", "status": status})


def _log(run: Run) -> str:
    return (run.folder / "qemu.log").read_text("utf-8", "replace")


def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\S+)", said)
    return f"qemu {found[1] if found else 'unknown'}"
