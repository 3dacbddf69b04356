"""What a run is asked for (Request), what one stage is (Stage), and what it is given to work with (Job)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError
from edgekd.progress import Progress, silent
from edgekd.recipe import Recipe
from edgekd.store import Artifact, Origin, Store
from edgekd.target import Target


@dataclass(frozen=True)
class ModelFile:
    """A user's own model: `form` is "tflite", "qdq" (int8 ONNX) or "float" (ONNX still to be quantized)."""

    path: Path
    form: str
    digest: str


@dataclass(frozen=True)
class Request:
    """All that a run may depend on. `model` replaces the recipe's learning half; `data` its samples."""

    store: Store
    recipe: Recipe | None = None
    target: Target | None = None
    model: ModelFile | None = None
    data: tuple[Path, str] | None = None  # file and sha256
    priced_on: Target | None = None  # the microcontroller of the recipe's compress.prune_to
    samples: int | None = None
    compiler: str = "clang"
    optimize: str = "speed"  # of the generated C: edgekd.mcu.options.OPTIMIZE
    winograd: bool = False
    engine: str | None = None
    variant: str = ""  # of a Linux bundle; "": the device's choice
    again: bool = False
    prefix: str = "model"  # of the generated C's files and symbols
    is_updatable: bool = False  # whether the C's weights can be replaced apart from its code
    key_file: Path | None = None  # SSH identity; None: the agent's and the config file's
    ssh_config: Path | None = None  # None: ~/.ssh/config
    log: Path | None = None  # a .csv that trainings append to, or a folder for TensorBoard
    progress: Progress = silent

    def need_recipe(self) -> Recipe:
        if self.recipe is None:
            raise ConfigError("this stage learns from a recipe, and --model replaces it; leave --model out")
        return self.recipe

    def need_model(self) -> ModelFile:
        if self.model is None:
            raise ConfigError("no model file is named; add --model FILE")
        return self.model

    def need_data(self) -> tuple[Path, str]:
        if self.data is None:
            raise ConfigError("no data file is named; add --data FILE.npz with the arrays x and y")
        return self.data

    def need_target(self, kind: str = "") -> Target:
        if self.target is None:
            raise ConfigError("no target is named; add --target NAME (`invoke targets` lists them)")
        if kind and self.target.kind != kind:
            raise ConfigError(
                f"target {self.target.name} is of kind {self.target.kind!r} and this needs {kind!r}; "
                "choose another (`invoke targets`)"
            )
        return self.target


@dataclass(frozen=True)
class Job:
    """One run of one stage: the request, the artifacts by role, and the fresh directory to fill."""

    request: Request
    inputs: Mapping[str, Artifact]
    out: Path
    origin: Origin | None = None

    def work(self) -> Path | None:
        """Where a stage keeps what lets a killed run go on; removed when the artifact is whole."""
        return self.request.store.work(f"{self.origin.stage}-{self.origin.key}") if self.origin else None

    def path(self, role: str) -> Path:
        return self.inputs[role].path


# What a stage is made from: another stage of the same request, or one of a request of its own.
Wanted = str | tuple[str, Request]


@dataclass(frozen=True)
class Stage:
    """A row of STAGES. `params` is all that `run` reads of the request; it enters the key with `tools`."""

    name: str
    version: int
    inputs: Callable[[Request], Mapping[str, Wanted]]
    params: Callable[[Request], dict[str, Any]]
    run: Callable[[Job], dict[str, Any]]
    tools: Callable[[Request], dict[str, str]] = lambda request: {}


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions by package name, without importing them; "absent" where one is not there."""
    return {name: _version(name) for name in distributions}


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def processor() -> dict[str, str]:
    """The machine and its vector level: what floating-point training may depend on beside the versions."""
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.split(":", 1)[1].split())
                break
    levels = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimddp", "sve")
    return {"machine": platform.machine(), "vector": "+".join(x for x in levels if x in flags) or "base"}
