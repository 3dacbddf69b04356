"""The tasks about this machine and a checkout: targets, what is installed, the suite, the soaks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from invoke.exceptions import Exit

from edgekd.cli.command import SSH, advise, command, print_json
from edgekd.cli.provision import show_device
from edgekd.errors import ConfigError, DeviceError


@command("json")
def targets(**given: Any) -> None:
    """List the target profiles."""
    from dataclasses import asdict

    from edgekd import api
    from edgekd.report.tables import show_table

    found = api.targets()
    if given["json"]:
        print_json({name: asdict(target) for name, target in found.items()})
        return
    show_table("Targets", ("name", "kind", "what"), [(t.name, t.kind, t.description) for t in found.values()])
    advise("invoke bench --target mcu-sim")


@command("target", *SSH, "store", "json")
def doctor(**given: Any) -> None:
    """Say what is installed here, what is missing and how to install it; with --target: of a Linux device."""
    from edgekd.doctor import examine
    from edgekd.report.tables import show_table

    if given["target"]:
        if not show_device(given):
            raise Exit(code=DeviceError.exit_code)
        return

    rows = examine()
    if given["json"]:
        print_json([vars(row) for row in rows])
        return
    table = [(row.name, row.version or "missing", row.purpose, row.install) for row in rows]
    show_table("Doctor", ("what", "found", "for", "install with"), table)


@command("part", "no_skips")
def test(**given: Any) -> None:
    """Run the suite of a checkout: ruff, mypy, every part of the tests."""
    parts = given["part"].split(",") if given["part"] else []
    _checkout_program("tests/run.py", [*(["--no-skips"] if given["no_skips"] else []), *parts])


@command("seed", "count", positional=("name",))
def soak(name: str, **given: Any) -> None:
    """Run a long check (benchmarks/soak.py) and keep its result under benchmarks/results/."""
    numbers = [f"--{option}={given[option]}" for option in ("seed", "count") if given[option]]
    _checkout_program("benchmarks/soak.py", [name, *numbers])


def _checkout_program(name: str, arguments: Iterable[str]) -> None:
    import subprocess

    program = Path(__file__).resolve().parents[2] / name
    if not program.is_file():
        raise ConfigError(f"{name} is not here: this task belongs to a checkout of edgekd's repository")
    code = subprocess.run([sys.executable, str(program), *arguments], check=False).returncode
    if code:
        raise Exit(code=code)
