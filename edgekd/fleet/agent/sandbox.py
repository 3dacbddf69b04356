"""The walls around a model on trial: what the kernel gives, as far as the agent may ask for it.

    namespaces   no network, its own processes and mounts: the whole tree is read-only
    user         another one, where the agent is root and `agent.toml` names one
    limits       memory beside the runtime's, processor time, file size, open files, no core
    seccomp      no sockets, processes, programs, no opening for writing (seccomp.py): the process is killed

`enter` builds the first three before the runtime is loaded, `close_door` the rest behind that, before a byte
of the bundle is read. The report names the walls that stood: without root and user namespaces, or on another
architecture, some cannot be had. The processes of a trial end with it whatever they do.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
from pathlib import Path

from edgekd.fleet.agent import seccomp

NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_PROCESSES, NEW_NETWORK = (
    0x0002_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
)
MS_REC_PRIVATE, MOUNT_SETATTR, AT_FDCWD, RECURSIVE, READ_ONLY = 0x4000 | 0x4_0000, 442, -100, 0x8000, 1
PR_SET_PDEATHSIG = 1
MOST_OPEN_FILES = 256


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def enter(user: str, cpu_s: int, file_bytes: int, processes: int) -> list[str]:
    """Shut this process in; it returns in a child, and the caller's process waits and ends as the child did.

    Returns the walls that stand: of "network", "processes", "mounts", "user". OSError where `user` does not
    exist or may not be taken on.
    """
    walls = _namespaces()
    _become_child(first="processes" in walls)
    if "mounts" in walls and not _read_only_tree():
        walls.remove("mounts")
    limits = {"CPU": cpu_s, "FSIZE": file_bytes, "CORE": 0, "NOFILE": MOST_OPEN_FILES}
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if user and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        walls.append("user")
    return walls


def close_door(memory_bytes: int) -> list[str]:
    """Behind the runtime's start: no more than `memory_bytes` beside it, and the filter. The walls added."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return ["memory", "seccomp"] if seccomp.apply() else ["memory"]


def _namespaces() -> list[str]:
    """As root all at once; else in a user namespace of its own, where the kernel lets everybody have one."""
    flags = NEW_MOUNTS | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    if os.geteuid() != 0:
        flags |= NEW_USERS
    uid, gid = os.geteuid(), os.getegid()
    if _library().unshare(flags) != 0:
        return []
    if flags & NEW_USERS:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return ["network", "processes", "mounts"]


def _become_child(*, first: bool) -> None:
    """Go on in a child. The parents only wait: one outside, and in a new process namespace its first process,
    with whose end the kernel ends all others there."""
    for _ in range(2 if first else 1):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        _library().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users"))


def _read_only_tree() -> bool:
    """Every mount read-only, for this process and its children; False on a kernel before 5.12."""
    library, wanted = _library(), _MountAttributes(READ_ONLY, 0, 0, 0)
    if library.mount(None, b"/", None, MS_REC_PRIVATE, None) != 0:
        return False
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    return int(library.syscall(MOUNT_SETATTR, AT_FDCWD, b"/", RECURSIVE, ctypes.byref(wanted), size)) == 0
