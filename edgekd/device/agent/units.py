"""The systemd units of a served model, as text: a socket that systemd holds, a service that may do little.

The sockets are systemd's, so a restart refuses nobody: what comes meanwhile waits in the queue. The service
has no network of its own (the sockets are handed in), no root, no file that it may write but its state.
"""

from __future__ import annotations

import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # what the sandbox covers


@dataclass(frozen=True)
class Served:
    """What the units say. `root`: absolute; `port`: of loopback, 0 for none besides the unix socket."""

    unit: str
    root: Path
    python: str
    variant: str
    threads: int
    port: int
    memory_bytes: int

    @property
    def socket(self) -> str:
        """Where the model answers."""
        return f"/run/{self.unit}.sock"


def socket_unit(served: Served) -> str:
    """The text of UNIT.socket."""
    lines = [f"ListenStream={served.socket}", "SocketMode=0666"]
    if served.port:
        lines.append(f"ListenStream=127.0.0.1:{served.port}")
    return _text(
        {
            "Unit": [f"Description=edgekd: the model of {served.root}, where it is asked"],
            "Socket": [*lines, "Backlog=128", f"Service={served.unit}.service"],
            "Install": ["WantedBy=sockets.target"],
        }
    )


def service_unit(served: Served) -> str:
    """The text of UNIT.service."""
    archive = served.root / "current" / "agent.pyz"
    words = [
        served.python,
        "-I" if not user_site() else "-P",
        str(archive),
        "serve",
        "--root",
        str(served.root),
    ]
    words += ["--variant", served.variant, "--threads", str(served.threads)]
    run = [
        "Type=notify",
        f"ExecStart={' '.join(quoted(word) for word in words)}",
        "Restart=always",
        "RestartSec=200ms",
        "WatchdogSec=30s",
        "TimeoutStartSec=120s",
        "TimeoutStopSec=10s",
        f"StateDirectory={served.unit}",
        f"MemoryMax={served.memory_bytes}",
        "MemorySwapMax=0",
        "Environment=PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2",
        *([f"Environment=PYTHONPATH={quoted(user_site())}"] if user_site() else []),
    ]
    unit = [f"Description=edgekd: serves the model of {served.root}", "StartLimitIntervalSec=0"]
    return _text(
        {
            "Unit": unit,
            "Service": [
                *run,
                *SANDBOX,
                *(f"BindReadOnlyPaths={quoted(path)}" for path in shown_paths(served)),
            ],
            "Install": ["WantedBy=multi-user.target"],
        }
    )


# systemd.exec(5). MemoryDenyWriteExecute is left out: runtimes compile kernels at run time (XNNPACK).
SANDBOX = (
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=tmpfs",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateNetwork=yes",
    "PrivateIPC=yes",
    "PrivateUsers=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "RestrictAddressFamilies=AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources @mount",
    "SystemCallErrorNumber=EPERM",
    "IPAddressDeny=any",
    "KeyringMode=private",
    "UMask=0077",
    "TasksMax=128",
    "LimitNOFILE=256",
    "LimitCORE=0",
    "OOMPolicy=kill",
)


def user_site() -> str:
    """The login's own site-packages where this Python has it on its path, else nothing."""
    try:
        path = site.getusersitepackages()
    except (AttributeError, KeyError):
        return ""
    return path if path in sys.path else ""


def shown_paths(served: Served) -> list[str]:
    """What lies under a place that the sandbox hides and is needed all the same."""
    needed: Sequence[str] = (
        str(served.root),
        sys.prefix,
        sys.base_prefix,
        user_site(),
        *_linked(served.python),
    )
    hidden = {p for p in needed if p and any(p == h or p.startswith(h + "/") for h in HIDDEN)}
    return sorted(p for p in hidden if not any(p != other and p.startswith(other + "/") for other in hidden))


def _linked(program: str) -> list[str]:
    """The directories of each link from `program` to the real file."""
    found, path = [], Path(program)
    for _ in range(8):
        found.append(str(path.parent))
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return found


def quoted(word: str) -> str:
    """A word as a unit's line takes it: specifiers and variables are text, blanks do not part it."""
    word = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"' if any(c.isspace() or c in "\"';" for c in word) else word


def _text(sections: dict[str, list[str]]) -> str:
    parts = ["[" + name + "]\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items()]
    return "# Written by `deploy --service`; a later one writes it anew.\n" + "\n".join(parts)
