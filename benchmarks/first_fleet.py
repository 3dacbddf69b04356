"""From `pip install` to a signed update on three devices, one of them a virtual Pi: five commands, timed.

    python benchmarks/first_fleet.py [--out benchmarks/results/first-fleet.json] [--no-pi]

The devices stand ready, as a lab's do: each an SSH server of its own with a pinned host key, named in
inventory.toml. The wheel is built before. Everything else is what a person types into an empty folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgekd.device.virtual.image import ensure_image
from edgekd.device.virtual.machine import CPUS, VirtualPi
from edgekd.device.virtual.snapshots import ensure_booted
from tests.device.support import Sshd

ROOT = Path(__file__).resolve().parent.parent
HARDWARE, PASSPHRASE = "linux-local,rpi4,pi-sim", "a passphrase of the benchmark"


def commands(wheel: Path, key: Path) -> list[list[str]]:
    """What is typed; the first with the new environment's pip."""
    release = ["--target", "linux-local", "--hardware", HARDWARE, "--licence", "Apache-2.0", "--publish"]
    reach = ["--to", "@all", "--key", str(key), "--every", "1"]
    return [
        ["pip", "install", "-q", f"{wheel}[learn,mcu,fleet]"],
        ["edgekd", "bench", "--target", "linux-local"],
        ["edgekd", "keys.init"],
        ["edgekd", "release.create", *release],
        ["edgekd", "fleet.start", "--name", "digits", "--number", "1", "--canaries", "1", *reach],
    ]


@contextlib.contextmanager
def devices(folder: Path, with_pi: bool) -> Iterator[tuple[list[str], list[str], Path]]:
    """Lines of the inventory, of known_hosts, and the key that logs in everywhere."""
    with contextlib.ExitStack() as running:
        lines, known, key = [], [], folder / "key"
        pi = None
        if with_pi:
            image = ensure_image("bookworm")
            ensure_booted(image, CPUS[0])
            pi = running.enter_context(VirtualPi.start(image, folder / "pi"))
            address = f"{pi.user}@{pi.host}:{pi.port}"
            lines.append(f'pi = {{ address = "{address}", target = "pi-sim", models = ["digits"] }}')
            known.append(pi.known_hosts_line)
        source = pi.key if pi else None
        for number in range(2 if pi else 3):
            home = folder / f"home-{number}"
            home.mkdir(parents=True)
            command = f'ForceCommand cd {home} && eval "$SSH_ORIGINAL_COMMAND"'
            server = Sshd(folder / f"sshd-{number}", command)
            running.callback(server.cut_power)
            source = source or server.key
            public = subprocess.run(
                ["ssh-keygen", "-y", "-f", source], capture_output=True, text=True, check=True
            )
            (server.folder / "authorized_keys").write_text(public.stdout)
            address = f"{server.user}@127.0.0.1:{server.port}"
            lines.append(
                f'board-{number} = {{ address = "{address}", target = "rpi4", models = ["digits"] }}'
            )
            known.append(server.known_hosts.read_text())
        assert source is not None
        key.write_bytes(source.read_bytes())
        key.chmod(0o600)
        yield lines, known, key


def run(folder: Path, with_pi: bool) -> list[dict[str, Any]]:
    """Each command with its seconds; SystemExit where one fails."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "wheel"), str(ROOT)],
        check=True,
    )
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    project = folder / "project"
    (project / ".edgekd").mkdir(parents=True)
    environment = {**os.environ, "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"}
    environment |= {"EDGEKD_PASSPHRASE": PASSPHRASE}
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    done = []
    with devices(folder / "devices", with_pi) as (lines, known, key):
        (project / "inventory.toml").write_text("\n".join(["[hosts]", *lines, ""]))
        (project / ".edgekd" / "known_hosts").write_text("".join(known))
        for command in commands(wheel, key):
            began = time.monotonic()
            program = [str(folder / "venv" / "bin" / command[0]), *command[1:]]
            told = subprocess.run(
                program, cwd=project, env=environment, capture_output=True, text=True, check=False
            )
            seconds = round(time.monotonic() - began, 1)
            print(f"{seconds:8.1f} s  {' '.join(command)}", file=sys.stderr, flush=True)
            if told.returncode:
                raise SystemExit(told.stdout + told.stderr)
            typed = " ".join(command).replace(f"{wheel}", "edgekd").replace(f"{key}", "KEY")
            done.append({"command": typed, "seconds": seconds})
        print(told.stdout, file=sys.stderr)
        if "3 confirmed" not in told.stdout:
            raise SystemExit("not every device has the release")
    return done


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="a first fleet, timed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-pi", action="store_true", help="three SSH servers, and no virtual Pi")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        done = run(Path(folder), not chosen.no_pi)
    record = {
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "devices": 3,
        "virtual_pi": not chosen.no_pi,
        "commands": done,
        "seconds": round(sum(row["seconds"] for row in done), 1),
    }
    text = json.dumps(record, indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    print(text)
    return 0 if len(done) <= 5 and record["seconds"] <= 600 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
