"""systemd's side of pulling: a timer with jitter, and the service that one poll is. Nothing stays in memory.

`setup` writes both below units/; as root: `systemctl enable --now ROOT/units/edgekd-agent.timer`. The
jitter (RandomizedDelaySec, the same for a device each time) spreads a fleet over the interval, so that no
host is stormed.
"""

from __future__ import annotations

from pathlib import Path

EVERY_MIN = 15
FOLDER = "units"

SERVICE = """[Unit]
Description=edgekd-agent: look for a signed release, try it, confirm or revert it
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=oneshot
ExecStart={python} {root}/edgekd-agent.pyz poll --root {root}
# A trial ends by itself; this is for what no deadline of the agent's own covers.
TimeoutStartSec=2h
SuccessExitStatus=7
ProtectHome=read-only
PrivateTmp=yes
ReadWritePaths={root}
"""

TIMER = """[Unit]
Description=edgekd-agent every {minutes} minutes

[Timer]
OnBootSec=2min
OnUnitActiveSec={minutes}min
RandomizedDelaySec={minutes}min
FixedRandomDelay=yes
Persistent=yes

[Install]
WantedBy=timers.target
"""


def texts(root: Path, python: str) -> dict[str, str]:
    """File name -> text of both units, for an agent below `root` (absolute)."""
    given = {"root": str(root), "python": python, "minutes": str(EVERY_MIN)}
    return {
        "edgekd-agent.service": SERVICE.format(**given),
        "edgekd-agent.timer": TIMER.format(**given),
    }
