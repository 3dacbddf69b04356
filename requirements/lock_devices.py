"""Writes edgekd/device/provisioning/lock.json: the wheels of each runtime for each kind of Linux device.

    python requirements/lock_devices.py

asks pip (its configured index) what it would install on a device of each Python and architecture, and keeps
names and sha256. Downloads nothing but metadata. A combination for which there is none is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "edgekd/device/provisioning/lock.json"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34, 35, 36)  # 2.36 is bookworm's, the oldest system that we name
# runtime -> what pip is asked for, the architectures; tflite-runtime's numpy (below 2) is the device's own.
RUNTIMES = {
    "onnxruntime": (["onnxruntime", "numpy"], ("aarch64", "x86_64")),
    "litert": (["ai-edge-litert", "numpy"], ("aarch64", "x86_64")),
    "tflite-runtime": (["--no-deps", "tflite-runtime"], ("armv7l",)),
}


def resolve(python: str, architecture: str, wanted: list[str]) -> dict[str, str]:
    """File name -> sha256 of what pip would install; empty where it finds nothing that fits."""
    tags = [f"manylinux_2_{minor}_{architecture}" for minor in GLIBC_MINORS]
    tags += [f"manylinux2014_{architecture}", f"linux_{architecture}"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--target", "unused", "--only-binary=:all:", "--implementation", "cp", "--report", "-"]
    command += ["--python-version", python, *(f"--platform={tag}" for tag in tags), *wanted]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return {}
    found = {}
    for item in json.loads(answer.stdout)["install"]:
        info = item["download_info"]
        found[info["url"].rpartition("/")[2]] = info["archive_info"]["hashes"]["sha256"]
    return found


def main() -> int:
    wheels: dict[str, str] = {}
    environments = []
    for runtime, (wanted, architectures) in RUNTIMES.items():
        for architecture in architectures:
            for python in PYTHONS:
                found = resolve(python, architecture, wanted)
                print(f"{runtime} {architecture} {python}: {len(found)} wheels", file=sys.stderr)
                if found:
                    wheels |= found
                    row = {"runtime": runtime, "architecture": architecture, "python": python}
                    environments.append(row | {"wheels": sorted(found)})
    table = {"schema": 1, "environments": environments, "wheels": dict(sorted(wheels.items()))}
    LOCK.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
