"""A project whose recipe searches among small students for scikit-learn's digits: seconds a trial."""

from __future__ import annotations

from pathlib import Path

RECIPE = """
name = "small"
description = "digits, searched"
seed = 1
threads = 1

[teacher]
model = "convnet"
width = 4
epochs = 1

[knowledge]
views = 1

[distill]
epochs = 2
batch_samples = 128
learning_rate = 0.02

[search]
kinds = ["residual", "separable"]
stem_channels = [4, 8]
stem_strides = [2]
depths = [1]
channels = [8, 12, 16]
repeats = [1, 2]
max_cycles = 120_000
max_ram_bytes = 16_384
"""


def project(folder: Path, search: str = "", name: str = "small") -> Path:
    """Write it into `folder`; search: further lines of [search], in place of those of the same keys."""
    keys = {line.split(" = ")[0] for line in search.splitlines()}
    lines = [line for line in RECIPE.splitlines() if line.split(" = ")[0] not in keys]
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / "tasks.py").touch()
    (folder / "recipes" / f"{name}.toml").write_text(
        "\n".join(lines).replace('"small"', f'"{name}"', 1) + f"\n{search}\n"
    )
    return folder
