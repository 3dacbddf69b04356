"""A deployer of its own process, to be killed: says on standard output what share it has sent."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgekd.device.deploy import deploy
from edgekd.device.ssh import SshOptions, SshTransport


def main(bundle: str, root: str, port: str, key: str, known_hosts: str, user: str) -> None:
    """Deploy over SSH to this machine."""
    options = SshOptions(
        "127.0.0.1",
        user=user,
        port=int(port),
        key_file=Path(key),
        known_hosts=(Path(known_hosts),),
        python=sys.executable,
        timeout_s=5.0,
    )
    with SshTransport(options) as transport:
        deploy(
            transport,
            Path(bundle),
            root,
            lambda label, done, total: print(done / total, flush=True),
            keep=0,
            wait_s=20.0,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
