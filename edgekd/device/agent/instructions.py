"""Exact counts of user-mode instructions by the processor's own counter (perf_event_open through ctypes).

Only the calling thread is counted, the kernel is not. Where the system does not permit it, or has no such
counter, `open_counter` answers None, silently: a count is extra knowledge, never a need.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
from collections.abc import Callable
from typing import Any

SYSTEM_CALL = {"aarch64": 241, "x86_64": 298, "armv7l": 364, "armv6l": 364, "riscv64": 241}
TYPE_HARDWARE, COUNT_INSTRUCTIONS = 0, 1
ATTRIBUTE_BYTES = 120
DISABLED, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 0, 1 << 5, 1 << 6
ENABLE, DISABLE, RESET = 0x2400, 0x2401, 0x2403


class InstructionCounter:
    """An open counter; close it, or use it as a context manager."""

    def __init__(self, handle: int, ioctl: Any) -> None:
        self._handle, self._ioctl = handle, ioctl
        self._overhead = 0
        self._overhead = min(self.count(_nothing) for _ in range(5))

    def __enter__(self) -> InstructionCounter:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def count(self, call: Callable[[], object]) -> int:
        """Instructions that `call` takes in this thread; the cost of counting (about 3000) is taken off."""
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle is none of the call's work
        try:
            self._ioctl(self._handle, RESET, 0)
            self._ioctl(self._handle, ENABLE, 0)
            call()
            self._ioctl(self._handle, DISABLE, 0)
        finally:
            if collecting:
                gc.enable()
        (value,) = struct.unpack("<Q", os.read(self._handle, 8))
        return max(0, int(value) - self._overhead)

    def close(self) -> None:
        """Give the counter back."""
        os.close(self._handle)


def open_counter() -> InstructionCounter | None:
    """A counter of this thread's instructions; None where there is none or it is not permitted."""
    number = SYSTEM_CALL.get(platform.machine())
    if number is None or platform.system() != "Linux":
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        call, ioctl = library.syscall, library.ioctl
    except (OSError, AttributeError):
        return None
    bits = DISABLED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
    head = struct.pack("<IIQQQQQ", TYPE_HARDWARE, ATTRIBUTE_BYTES, COUNT_INSTRUCTIONS, 0, 0, 0, bits)
    attribute = ctypes.create_string_buffer(head, ATTRIBUTE_BYTES)
    any_cpu, no_group, no_flags = ctypes.c_int(-1), ctypes.c_int(-1), ctypes.c_ulong(0)
    handle = call(ctypes.c_long(number), attribute, ctypes.c_int(0), any_cpu, no_group, no_flags)
    return InstructionCounter(handle, ioctl) if handle >= 0 else None


def _nothing() -> None:
    """What is counted to know the counting's own cost."""
