"""Where the soaks find the repository, the shared models, and where results go."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED = ROOT.parent / "shared"
MODELS = SHARED / "data" / "mlperf_tiny" / "models"
