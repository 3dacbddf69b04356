"""docs/compression.md's table is what the benchmark prints of its measured rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compression.md").read_text("utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "compress-cifar10.json"


def test_the_table_is_the_measured_one() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "compress_table.py"), "--show"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("\n") > 5 and shown in PAGE


def test_every_row_is_of_all_images_and_bit_exact() -> None:
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"]
    for name, row in rows.items():
        if "bench" in row:
            found = row["bench"]
            assert found["bit_exact"] and found["samples"] == 10_000 and found["samples_on_device"] >= 200, (
                name
            )
            assert found["accuracy"] == row["accuracy"], name
        assert {"commit", "machine", "seed", "gates", "changes"} <= row.keys(), name
