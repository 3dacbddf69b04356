"""What devices say of themselves, held to the key that each was enrolled with (`ssh-keygen -Y verify`)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgekd.errors import MissingDependencyError, VerifyError

NAMESPACE = "edgekd-report"
VERIFY_S = 30


def verify_report(device: str, public_key: str, report: bytes, signature: bytes) -> None:
    """Raise VerifyError where a report's bytes were not signed by the device's key.

    public_key: an OpenSSH line, as fleet/devices.py keeps it; signature: the device's report.json.sig.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingDependencyError("ssh-keygen is missing; install openssh-client")
    with tempfile.TemporaryDirectory() as folder:
        allowed, signed = Path(folder) / "allowed", Path(folder) / "report.sig"
        allowed.write_text(f'{device} namespaces="{NAMESPACE}" {public_key}\n')
        signed.write_bytes(signature)
        command = [program, "-Y", "verify", "-f", str(allowed), "-I", device, "-n", NAMESPACE]
        done = subprocess.run(
            [*command, "-s", str(signed)], input=report, capture_output=True, timeout=VERIFY_S, check=False
        )
    if done.returncode:
        raise VerifyError(f"{device}: the report is not signed by this device's key; look into that device")
