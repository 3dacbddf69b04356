# SPDX-License-Identifier: MIT
"""Runs one firmware image on unicorn's Cortex-M; a program of its own, started as a subprocess.

Usage: python unicorn_child.py, in a directory that holds job.json, flash.bin and samples.bin.
unicorn is under GPL-2.0, so this script stands apart: it needs only the standard library and unicorn,
imports nothing of edgekd, and talks by files (job.json in; counts.json or fault.json, and what the image
writes, out) and one line "sample N" on stdout after each sample. Exit status: 0, and 3 after fault.json.

Samples pass through three stages: watched (every access to memory is checked, and counted), counted
(every basic block), plain. Hooks are put straight on unicorn's C interface: its Python wrapper of a
callback costs as much again.
"""

import ctypes
import hashlib
import json
import os
import struct
import sys
import threading
import time
from typing import Any, BinaryIO

import unicorn
from unicorn import arm_const as arm
from unicorn import unicorn_const as uc_const
from unicorn.unicorn_py3.unicorn import uclib

PAGE = 1024
SYSTEM = 0xE000E000  # SysTick to FPU control
CPUID = 0xE000ED00
CPACR = 0xE000ED88
FPU_ON = 0xF << 20
BKPT_SEMIHOSTING = b"\xab\xbe"
EXCEPTION_UNDEFINED = 1
EXCEPTION_BKPT = 7
INVOKE = -1  # the row of model_invoke itself among the layers
NO_BLOCK = 0xFFFFFFFF
FAULTED = 3
BLOCKWISE = ("unwritten", "outside", "write_flash")  # faults that unicorn places to a basic block
MODELS = {
    "cortex-m4": (arm.UC_CPU_ARM_CORTEX_M4, 0x410FC241),
    "cortex-m7": (arm.UC_CPU_ARM_CORTEX_M7, 0x411FC272),
    "cortex-m33": (arm.UC_CPU_ARM_CORTEX_M33, 0x410FD213),
}
BOTH = uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE
FILES = ("samples.bin", "outputs.bin", "ticks.bin", "fault.bin")
REGISTERS = [getattr(arm, f"UC_ARM_REG_R{n}") for n in range(13)]

BLOCK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
ACCESS = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
)


class Fault(Exception):
    """The run is over: `facts` goes to fault.json."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.facts: dict[str, Any] = {"kind": kind, **facts}


class Machine:
    """One core with the image's flash and RAM, semihosting files, and the hooks of the stage it is in."""

    def __init__(self, job: dict[str, Any], suspect: int | None = None) -> None:
        """`suspect`: the basic block that a first run found guilty; its instructions are told apart."""
        self.job = job
        self.suspect = suspect
        self.last_seen = 0  # the last instruction executed near the suspect
        self.fault: Fault | None = None
        self.exit_status: int | None = None
        self.files: dict[int, BinaryIO] = {}
        self.ticks: int | None = None  # the handle of ticks.bin
        self.sample = 0  # samples invoked so far
        self.hooks: list[tuple[int, Any]] = []  # (handle, callback): ctypes must keep the callback alive
        self.deadline: float | None = None
        self.counts: list[dict[int, dict[int, int]]] = []  # a sample: layer -> edge -> times
        self.sizes: list[dict[int, int]] = []  # a sample: basic block -> bytes
        self.shadows: list[bytearray] = []  # a RAM; empty while nothing is watched
        self.open_core()
        self.map_memory()
        self.emulator.hook_add(uc_const.UC_HOOK_INTR, self.on_exception)
        self.emulator.hook_add(uc_const.UC_HOOK_MEM_INVALID, self.on_invalid)

    def open_core(self) -> None:
        """UC_MODE_MCLASS would silently make every core a Cortex-M33: left out, and the model checked."""
        model, cpuid = MODELS[self.job["cpu"]]
        self.emulator = unicorn.Uc(uc_const.UC_ARCH_ARM, uc_const.UC_MODE_THUMB)
        self.emulator.ctl_set_cpu_model(model)
        if self.emulator.ctl_get_cpu_model() != model:
            raise Fault("model", detail="unicorn runs another core than " + self.job["cpu"])
        self.cpuid = cpuid

    def map_memory(self) -> None:
        """Only what the image owns is mapped: flash to read and execute, RAM to read and write."""
        job, emulator = self.job, self.emulator
        with open("flash.bin", "rb") as stream:
            flash = stream.read()
        self.flash, self.flash_end = job["flash_origin"], job["flash_origin"] + len(flash)
        self.ram, self.ram_end = job["ram_origin"], job["ram_end"]
        emulator.mem_map(self.flash, up(len(flash)), uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC)
        emulator.mem_write(self.flash, flash)
        emulator.mem_map(
            self.ram, up(self.ram_end - self.ram), uc_const.UC_PROT_READ | uc_const.UC_PROT_WRITE
        )
        # Fresh SRAM holds anything: a fixed noise, so that what depends on it shows.
        self.noise = hashlib.shake_128(b"fresh SRAM").digest(self.ram_end - self.ram)
        emulator.mem_write(self.ram, self.noise)
        self.areas = [(self.ram, self.ram_end), *((begin, end) for begin, end in job.get("more_ram", []))]
        for begin, end in self.areas[1:]:
            page = begin // PAGE * PAGE
            emulator.mem_map(page, up(end - page), uc_const.UC_PROT_READ | uc_const.UC_PROT_WRITE)
            emulator.mem_write(begin, hashlib.shake_128(b"slow SRAM").digest(end - begin))
        self.flashes = [(self.flash, self.flash_end)]
        for address, name in job.get("more_flash", []):
            with open(name, "rb") as stream:
                self.map_flash(address, stream.read())
        for address in (job["timer"], SYSTEM):
            emulator.mem_map(address, 4 * PAGE, uc_const.UC_PROT_READ | uc_const.UC_PROT_WRITE)
        emulator.mem_write(CPUID, struct.pack("<I", self.cpuid))

    def map_flash(self, address: int, contents: bytes) -> None:
        """External flash: read, never executed."""
        page = address // PAGE * PAGE
        self.emulator.mem_map(page, up(address + len(contents) - page), uc_const.UC_PROT_READ)
        self.emulator.mem_write(address, contents)
        self.flashes.append((address, address + len(contents)))

    # --- hooks ---------------------------------------------------------------------------------------

    def add(self, kind: int, prototype: Any, function: Any, begin: int = 1, end: int = 0) -> None:
        """A hook on [begin, end], straight on the C interface; begin > end means everywhere."""
        callback, handle = prototype(function), ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self.emulator._uch,
            ctypes.byref(handle),
            kind,
            ctypes.cast(callback, ctypes.c_void_p),
            None,
            begin,
            end,
        )
        if status != uc_const.UC_ERR_OK:
            raise Fault("engine", detail=f"unicorn refuses a hook (error {status})")
        self.hooks.append((handle.value, callback))

    def set_stage(self, counted: bool, watched: bool) -> None:
        """Replace the hooks. What was translated before knows nothing of them: flush it."""
        for handle, _ in self.hooks:
            uclib.uc_hook_del(self.emulator._uch, handle)
        self.emulator.ctl_flush_tb()
        self.hooks = []
        if watched:
            self.add_watch()
        else:
            self.shadows = []
        self.add(uc_const.UC_HOOK_BLOCK, BLOCK, self.on_invoke, self.job["invoke"], self.job["invoke"])
        if counted:
            self.add_counter()
        if self.suspect is not None:
            self.add(uc_const.UC_HOOK_CODE, BLOCK, self.on_suspect, self.suspect, self.suspect + 4 * PAGE)

    def on_invoke(self, u: Any, address: int, size: int, x: Any) -> None:
        if self.job["fpu_used"] and self.word(CPACR) & FPU_ON != FPU_ON:
            self.stop("fpu", address)

    def add_counter(self) -> None:
        """Count edges between basic blocks from the entry of model_invoke to its return, layer by layer.

        The state lies in this closure: the last hook runs at every block. How long a block is may change
        with the hooks: where straight code is long, unicorn cuts it by what it makes of it.
        """
        inside = False
        sizes: dict[int, int] = {}
        edges: dict[int, dict[int, int]] = {}
        table: dict[int, int] = {}  # the part of `edges` that belongs to the running layer
        previous, leave_at = NO_BLOCK, 0

        def begin(u: Any, address: int, size: int, x: Any) -> None:
            nonlocal inside, edges, sizes, previous, leave_at
            inside, edges, sizes, previous = True, {}, {}, NO_BLOCK
            leave_at = self.emulator.reg_read(arm.UC_ARM_REG_LR) & ~1

        def enter(layer: int) -> Any:
            def on_entry(u: Any, address: int, size: int, x: Any) -> None:
                nonlocal table
                table = edges.setdefault(layer, {})

            return on_entry

        def new_edge(address: int, size: int) -> None:
            nonlocal inside
            if address == leave_at:  # model_invoke returned: its last block left for outside
                table[previous << 32 | NO_BLOCK] = 1
                self.counts.append(edges)
                self.sizes.append(sizes)
                inside = False
                return
            table[previous << 32 | address] = 1
            if sizes.setdefault(address, size) != size:
                self.stop("engine", address, detail="one basic block with two lengths")

        def on_block(u: Any, address: int, size: int, x: Any) -> None:
            nonlocal previous
            if inside:
                try:
                    table[previous << 32 | address] += 1
                except KeyError:
                    new_edge(address, size)
                previous = address

        invoke, last = self.job["invoke"], self.job["invoke_end"] - 2
        self.add(uc_const.UC_HOOK_BLOCK, BLOCK, begin, invoke, invoke)
        self.add(uc_const.UC_HOOK_BLOCK, BLOCK, enter(INVOKE), invoke, last)
        for index, address in enumerate(self.job["layers"]):
            self.add(uc_const.UC_HOOK_BLOCK, BLOCK, enter(index), address, address)
        self.add(uc_const.UC_HOOK_BLOCK, BLOCK, on_block)

    def on_suspect(self, u: Any, address: int, size: int, x: Any) -> None:
        self.last_seen = address

    # --- the memory watch ----------------------------------------------------------------------------

    def add_watch(self) -> None:
        """One shadow byte a byte of RAM: 0 until written."""
        self.shadows = [bytearray(up(end - begin)) for begin, end in self.areas]
        for (begin, end), shadow in zip(self.areas, self.shadows, strict=True):
            self.add_area(begin, end, shadow)
        for _, end in (*self.areas, *self.flashes):  # the rest of the last page is not the image's
            if end % PAGE:
                self.add(BOTH, ACCESS, self.on_beyond, end, up(end) - 1)
        for address, base, offset in self.job["aligned"]:
            self.add_alignment(address, REGISTERS[base], offset)

    def add_area(self, ram: int, ram_end: int, shadow: bytearray) -> None:
        """The watch over one RAM."""
        last = ram_end - 1
        ones = {size: b"\1" * size for size in range(1, 65)}

        def on_read(u: Any, access: int, address: int, size: int, value: int, x: Any) -> None:
            at = address - ram
            if not shadow[at] or (size > 1 and shadow[at : at + size] != ones[size]):
                self.on_unwritten(address, size)

        def on_write(u: Any, access: int, address: int, size: int, value: int, x: Any) -> None:
            at = address - ram
            if size == 1:
                shadow[at] = 1
            else:
                shadow[at : at + size] = ones[size]

        def on_edge(u: Any, access: int, address: int, size: int, value: int, x: Any) -> None:
            if address + size > ram_end:
                self.beyond(access, ram_end, size)

        self.add(BOTH, ACCESS, on_edge, ram_end - 8, last)
        self.add(uc_const.UC_HOOK_MEM_READ, ACCESS, on_read, ram, last)
        self.add(uc_const.UC_HOOK_MEM_WRITE, ACCESS, on_write, ram, last)

    def on_beyond(self, u: Any, access: int, address: int, size: int, value: int, x: Any) -> None:
        self.beyond(access, address, size)

    def add_alignment(self, address: int, register: int, offset: int) -> None:
        def on_code(u: Any, at: int, size: int, x: Any) -> None:
            target = (self.emulator.reg_read(register) + offset) & 0xFFFFFFFF
            if target & 3:
                self.stop("unaligned", at, address=target)

        self.add(uc_const.UC_HOOK_CODE, BLOCK, on_code, address, address)

    def beyond(self, access: int, address: int, size: int) -> None:
        write = access == uc_const.UC_MEM_WRITE
        self.stop("outside", self.pc(), address=address, size=size, write=write)

    def on_unwritten(self, address: int, size: int) -> None:
        self.stop("unwritten", self.pc(), address=self.first_unwritten(address, size), size=size)

    def first_unwritten(self, address: int, count: int) -> int:
        """The first watched byte of a range that nothing wrote; -1: there is none."""
        for (begin, end), shadow in zip(self.areas, self.shadows, strict=False):
            if begin <= address < end:
                first = shadow.find(0, address - begin, address - begin + count)
                return -1 if first < 0 else begin + first
        return -1

    def mark_written(self, address: int, count: int) -> None:
        for (begin, end), shadow in zip(self.areas, self.shadows, strict=False):
            if begin <= address < end:
                shadow[address - begin : address - begin + count] = b"\1" * count

    # --- faults --------------------------------------------------------------------------------------

    def pc(self) -> int:
        """Inside a hook on memory unicorn knows the basic block only; near a suspect, the instruction."""
        pc: int = self.emulator.reg_read(arm.UC_ARM_REG_PC)
        return self.last_seen if pc == self.suspect and self.last_seen > pc else pc

    def word(self, address: int) -> int:
        return int.from_bytes(self.emulator.mem_read(address, 4), "little")

    def stop(self, kind: str, pc: int, **facts: Any) -> None:
        """The first fault is the one to tell."""
        if self.fault is None:
            lr = self.emulator.reg_read(arm.UC_ARM_REG_LR)
            self.fault = Fault(kind, pc=pc, lr=lr, **facts)
        self.emulator.emu_stop()

    def on_invalid(self, u: Any, access: int, address: int, size: int, value: int, x: Any) -> bool:
        write = access in (uc_const.UC_MEM_WRITE_UNMAPPED, uc_const.UC_MEM_WRITE_PROT)
        fetch = access in (uc_const.UC_MEM_FETCH_UNMAPPED, uc_const.UC_MEM_FETCH_PROT)
        in_flash = any(begin <= address < end for begin, end in self.flashes)
        kind = "fetch" if fetch else "write_flash" if write and in_flash else "outside"
        self.stop(kind, self.pc(), address=address, size=size, write=write)
        return False

    # --- semihosting ---------------------------------------------------------------------------------

    def on_exception(self, u: Any, number: int, x: Any) -> None:
        pc = self.pc()
        if number != EXCEPTION_BKPT or bytes(u.mem_read(pc, 2)) != BKPT_SEMIHOSTING:
            self.stop("exception", pc, number=number)
            return
        operation, block = u.reg_read(arm.UC_ARM_REG_R0), u.reg_read(arm.UC_ARM_REG_R1)
        handler = CALLS.get(operation)
        if handler is None:
            self.stop("exception", pc, number=number)
            return
        answer = handler(self, *struct.unpack("<III", u.mem_read(block, 12)))
        u.reg_write(arm.UC_ARM_REG_R0, answer & 0xFFFFFFFF)
        u.reg_write(arm.UC_ARM_REG_PC, (pc + 2) | 1)

    def sys_open(self, name_at: int, mode: int, length: int) -> int:
        name = bytes(self.emulator.mem_read(name_at, length)).decode("ascii", "replace")
        if name not in FILES:
            return -1
        handle = len(self.files) + 1
        self.files[handle] = open(name, "rb" if mode == 1 else "wb", buffering=0)  # noqa: SIM115
        if name == "ticks.bin":
            self.ticks = handle
        return handle

    def sys_close(self, handle: int, a: int, b: int) -> int:
        self.files[handle].close()
        return 0

    def sys_write(self, handle: int, at: int, count: int) -> int:
        first = self.first_unwritten(at, count)
        if first >= 0:
            self.stop("unwritten", self.pc(), address=first, size=count, output=True)
        self.files[handle].write(self.emulator.mem_read(at, count))
        if handle == self.ticks:
            self.end_sample()  # the harness writes one row of ticks at the end of each sample
        return 0

    def sys_read(self, handle: int, at: int, count: int) -> int:
        data = self.files[handle].read(count)
        if data:
            self.emulator.mem_write(at, data)
            self.mark_written(at, len(data))
        return count - len(data)

    def sys_exit(self, reason: int, status: int, b: int) -> int:
        self.exit_status = status
        self.emulator.emu_stop()
        return 0

    # --- the run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """From reset to exit; stops after each sample to renew the deadline and to change the stage."""
        stack, position = struct.unpack("<II", self.emulator.mem_read(self.flash, 8))
        self.emulator.reg_write(arm.UC_ARM_REG_SP, stack)
        threading.Thread(target=self.watchdog, daemon=True).start()
        stage = None
        while self.exit_status is None:
            wanted = (self.sample < self.job["counted"], self.sample < self.job["watched"])
            if wanted != stage:
                stage = wanted
                self.set_stage(*stage)
            self.deadline = time.monotonic() + self.job["timeout_s"]
            self.resume(position | 1)
            position = self.pc()
        if self.exit_status != 0:
            raise Fault("exit", pc=self.pc(), status=self.exit_status)

    def resume(self, position: int) -> None:
        try:
            self.emulator.emu_start(position, NO_BLOCK)
        except unicorn.UcError as error:
            if self.fault is None and error.errno == uc_const.UC_ERR_INSN_INVALID:
                self.stop("exception", self.pc(), number=EXCEPTION_UNDEFINED)
            elif self.fault is None:
                self.stop("engine", self.pc(), detail=str(error))
        if self.fault is not None:
            raise self.fault

    def watchdog(self) -> None:
        """Stops a core that does not finish a sample in time."""
        while True:
            time.sleep(0.05)
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.deadline = None
                self.fault = self.fault or Fault("hang", pc=None)
                self.emulator.emu_stop()

    def end_sample(self) -> None:
        self.sample += 1
        if self.suspect is None:
            print(f"sample {self.sample}", flush=True)
        self.emulator.emu_stop()

    def peak_stack(self) -> int:
        """Bytes from the stack's top to the lowest one that lost its noise."""
        bottom, top = self.job["stack_bottom"], self.job["stack_top"]
        now = bytes(self.emulator.mem_read(bottom, top - bottom))
        fresh = self.noise[bottom - self.ram : top - self.ram]
        changed = (at for at in range(len(now)) if now[at] != fresh[at])
        return len(now) - next(changed, len(now))

    def report(self) -> dict[str, Any]:
        samples = [
            {
                str(layer): [[key >> 32, key & NO_BLOCK, times] for key, times in table.items()]
                for layer, table in edges.items()
            }
            for edges in self.counts
        ]
        return {
            "engine": f"unicorn {unicorn.__version__}",
            "samples": samples,
            "sizes": [{str(address): size for address, size in sizes.items()} for sizes in self.sizes],
            "peak_stack_bytes": self.peak_stack(),
        }


CALLS = {
    0x01: Machine.sys_open,
    0x02: Machine.sys_close,
    0x05: Machine.sys_write,
    0x06: Machine.sys_read,
    0x20: Machine.sys_exit,
}


def up(size: int) -> int:
    """`size` to the next whole page."""
    return -(-size // PAGE) * PAGE


def write_json(name: str, value: Any) -> None:
    with open(name + ".part", "w", encoding="utf-8") as stream:
        json.dump(value, stream)
    os.replace(name + ".part", name)


def attempt(job: dict[str, Any], suspect: int | None) -> dict[str, Any]:
    """One whole run; its report. Raises Fault with where and in which sample."""
    machine = Machine(job, suspect)
    try:
        machine.run()
    except Fault as fault:
        if fault.facts.get("pc", 0) is None:
            fault.facts["pc"] = machine.pc()
        fault.facts["sample"] = machine.sample
        raise
    finally:
        for stream in machine.files.values():
            stream.close()
    return machine.report()


def main() -> int:
    with open("job.json", encoding="utf-8") as stream:
        job = json.load(stream)
    try:
        try:
            report = attempt(job, None)
        except Fault as fault:
            if fault.facts["kind"] in BLOCKWISE:
                # Everything repeats exactly: once more, to learn which instruction of the block it was.
                attempt(job, fault.facts["pc"])
            raise
        write_json("counts.json", report)
    except Fault as fault:
        write_json("fault.json", fault.facts)
        return FAULTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
