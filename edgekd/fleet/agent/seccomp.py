"""System calls that a model on trial may not make: one of them and its process is killed (SIGSYS).

A classic BPF program for seccomp(2): no sockets, no new processes or programs, no opening for writing, no
change of the file tree, no tracing, mounting or namespaces. Reading files, memory and threads stay allowed.
Numbers are of the kernel's tables for x86-64, AArch64 and 32-bit Arm; elsewhere there is no filter (`apply`
says so), and the other walls of sandbox.py stand.
"""

from __future__ import annotations

import ctypes
import platform
import struct

KILL, ALLOW, NO_SUCH_CALL = 0x8000_0000, 0x7FFF_0000, 0x0005_0000 | 38
LOAD, EQUAL, MASKED, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
CLONE_THREAD = 0x0001_0000
WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
PR_SET_SECCOMP, FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
X32_BIT = 0x4000_0000

# fmt: off
NAMES = (
    "socket", "socketpair", "connect", "bind", "fork", "vfork", "execve", "execveat", "ptrace",
    "process_vm_writev", "kill", "tkill", "mount", "umount2", "unshare", "setns", "chroot", "pivot_root",
    "bpf", "io_uring_setup", "perf_event_open", "keyctl", "creat", "truncate", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat", "symlink",
    "symlinkat", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown", "mknod", "mknodat",
    "utimensat", "openat2", "setxattr", "memfd_create",
)
# fmt: on

# The numbers of NAMES, -1: no such call there.
X86_64 = (
    "41 53 42 49 57 58 59 322 101 311 62 200 165 166 272 308 161 155 321 425 298 250 85 76 82 264 316 87 263"
    " 84 83 258 86 265 88 266 90 91 268 92 93 260 94 133 259 280 437 188 319"
)
AARCH64 = (
    "198 199 203 200 -1 -1 221 281 117 271 129 130 40 39 97 268 51 41 280 425 241 219 -1 45 -1 38 276 -1 35"
    " -1 -1 34 -1 37 -1 36 -1 52 53 -1 55 54 -1 -1 33 88 437 5 279"
)
ARM = (
    "281 288 283 282 2 190 11 387 26 377 37 238 21 52 337 375 61 218 386 425 364 311 8 92 38 329 382 10 328"
    " 40 39 323 9 330 83 331 15 94 333 182 95 325 16 14 324 348 437 226 385"
)
# Machine -> its audit name, the table above, and clone, clone3, open, openat.
TABLES: dict[str, tuple[int, str, tuple[int, int, int, int]]] = {
    "x86_64": (0xC000_003E, X86_64, (56, 435, 2, 257)),
    "aarch64": (0xC000_00B7, AARCH64, (220, 435, -1, 56)),
    "armv7l": (0x4000_0028, ARM, (120, 435, 5, 322)),
}

Step = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def numbers(machine: str) -> dict[str, int]:
    """Name -> number of the forbidden calls that this machine has."""
    listed = [int(each) for each in TABLES[machine][1].split()]
    return {name: number for name, number in zip(NAMES, listed, strict=True) if number >= 0}


def program(machine: str) -> list[Step]:
    """The filter: (code, jump if true, jump if false, operand) each."""
    audit, _, (clone, clone3, open_, openat) = TABLES[machine]
    steps: list[Step] = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, KILL)]
    for number in numbers(machine).values():
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, KILL)]
    steps += [(EQUAL, 0, 1, clone3), (RETURN, 0, 0, NO_SUCH_CALL)]  # the C library then takes clone
    steps += _unless(clone, 0, CLONE_THREAD, allowed=True)
    for number, argument in ((open_, 1), (openat, 2)):
        if number >= 0:
            steps += _unless(number, argument, WRITING, allowed=False)
    return [*steps, (RETURN, 0, 0, ALLOW)]


def _unless(number: int, argument: int, mask: int, *, allowed: bool) -> list[Step]:
    """A call that is allowed, or killed, when any bit of `mask` is set in an argument; the other way else."""
    hit, miss = (ALLOW, KILL) if allowed else (KILL, ALLOW)
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
        (MASKED, 0, 1, mask),
        (RETURN, 0, 0, hit),
        (RETURN, 0, 0, miss),
    ]


def apply() -> bool:
    """Put the filter over this process, for good; False where the machine or its kernel has none."""
    machine = platform.machine()
    machine = "armv7l" if machine.startswith("armv") or struct.calcsize("P") == 4 else machine
    if machine not in TABLES:
        return False
    steps = program(machine)
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    wanted = _Program(len(steps), ctypes.cast(packed, ctypes.c_void_p))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return int(library.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(wanted), 0, 0)) == 0
