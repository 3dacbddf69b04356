"""How long the command line takes to start: `python benchmarks/startup.py`. Median and spread of 9 runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 9
COMMANDS = {
    "invoke --list": ("--list",),
    "invoke graph --target mcu-sim": ("graph", "--target", "mcu-sim"),
    "invoke bench --target mcu-sim (cached)": ("bench", "--target", "mcu-sim"),
}


def seconds(arguments: tuple[str, ...]) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "invoke", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    columns = f"{'command':<42}{'median s':>10}{'least':>8}{'most':>8}"
    print(f"{columns}   (Python {sys.version.split()[0]}, {RUNS} runs)")
    for name, arguments in COMMANDS.items():
        seconds(arguments)  # warm-up; makes what is missing
        times = [seconds(arguments) for _ in range(RUNS)]
        print(f"{name:<42}{statistics.median(times):>10.3f}{min(times):>8.3f}{max(times):>8.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
