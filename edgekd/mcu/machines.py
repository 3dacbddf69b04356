"""The emulated boards: which core they have, and where its flash, RAM and timer lie.

Each has a directory of its name in firmware_stubs/boards. Arm's application notes of these FPGA images give
the addresses; an AN505 starts in secure state, whose aliases of flash, RAM and timer it uses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A board as QEMU names it. flash_origin and ram_origin are what QEMU has there: unicorn takes any.

    tick_ns: of the timer, and so the instructions in a tick where QEMU gives each one 1 ns.
    """

    cpu: str
    flash_origin: int
    ram_origin: int
    timer: int
    tick_ns: int


MACHINES = {
    "mps2-an386": Machine("cortex-m4", 0, 0x2000_0000, 0x4000_0000, 40),
    "mps2-an500": Machine("cortex-m7", 0, 0x2000_0000, 0x4000_0000, 40),
    "mps2-an505": Machine("cortex-m33", 0x1000_0000, 0x3800_0000, 0x5000_0000, 50),
}
