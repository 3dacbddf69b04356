"""Target profiles: what a device is, how it is reached, what it must meet (`targets/*.toml`).

A profile is data; every field has its unit and range. `load_target` resolves a name against the
profiles that ship with edgekd and those in the project's own `targets/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgekd.declaration import check_name, find_named, load, setting
from edgekd.errors import ConfigError

REGION_ALIGNMENT_BYTES = 8
_SECTION = re.compile(r"\.[A-Za-z_][A-Za-z0-9_.]*")
WEIGHTS_SECTION = ".model_weights"
_OWN_SECTIONS = (WEIGHTS_SECTION, ".vectors", ".text", ".rodata", ".stack", ".data", ".bss", ".noinit")
VARIANTS = ("float", "int8", "litert", "native")  # the forms that a Linux bundle may hold a model in
ARCHITECTURES = ("aarch64", "armv7", "x86_64")


@dataclass(frozen=True)
class Core:
    """A microcontroller's core. `clock_hz` turns estimated cycles into estimated milliseconds."""

    cpu: str = setting(choices=("cortex-m4", "cortex-m7", "cortex-m33"))
    clock_hz: int = setting(unit="Hz", minimum=1_000_000, maximum=2_000_000_000)
    fpu: bool = setting(False)


@dataclass(frozen=True)
class Region:
    """A memory beside the first flash or RAM.

    section: the linker's, that slow RAM is for; of external flash it is .model_weights, always.
    wait_cycles: what an access costs beyond one to the first memory; it decides nothing but what is told.
    """

    origin: int = setting(minimum=0, maximum=0xFFFFFFFF)
    size_bytes: int = setting(unit="bytes", minimum=1024)
    section: str = setting("")
    wait_cycles: int = setting(0, unit="cycles", minimum=0, maximum=1000)


@dataclass(frozen=True)
class Memory:
    """The link map: where flash and RAM lie, and how large they are.

    slow_ram: RAM for the tensors that do not fit into the first one, the least used. external_flash: where
    the weights lie, mapped like any memory.
    """

    flash_bytes: int = setting(unit="bytes", minimum=4096)
    ram_bytes: int = setting(unit="bytes", minimum=1024)
    flash_origin: int = setting(0, minimum=0, maximum=0xFFFFFFFF)
    ram_origin: int = setting(0x2000_0000, minimum=0, maximum=0xFFFFFFFF)
    stack_bytes: int = setting(4096, unit="bytes", minimum=256)  # reserved by the linker script
    slow_ram: Region | None = setting(None, later=True)
    external_flash: Region | None = setting(None, later=True)


@dataclass(frozen=True)
class Emulator:
    """How the core is emulated: the default engine and QEMU's machine with the same link map."""

    engine: str = setting("unicorn", choices=("unicorn", "qemu"))
    machine: str = setting("mps2-an386", choices=("mps2-an386", "mps2-an500", "mps2-an505"))


@dataclass(frozen=True)
class CostModel:
    """Cycles an instruction class: an estimate after Arm's documentation, flash waits not included."""

    alu: int = setting(1, unit="cycles", minimum=0)
    multiply: int = setting(1, unit="cycles", minimum=0)
    divide: int = setting(7, unit="cycles", minimum=0)
    load: int = setting(2, unit="cycles", minimum=0)
    load_next: int = setting(1, unit="cycles", minimum=0)  # a load that follows a load
    store: int = setting(1, unit="cycles", minimum=0)
    pair: int = setting(3, unit="cycles", minimum=0)  # LDRD, STRD
    multiple: int = setting(1, unit="cycles", minimum=0)  # LDM, STM, PUSH, POP: this plus one a register
    branch_taken: int = setting(3, unit="cycles", minimum=0)
    branch_not_taken: int = setting(1, unit="cycles", minimum=0)
    floating: int = setting(1, unit="cycles", minimum=0)


@dataclass(frozen=True)
class Connection:
    """How a Linux device is reached. `root` is the directory that holds `releases/` and `current`."""

    transport: str = setting(choices=("ssh", "local"))
    root: str = setting("edgekd")  # relative to the login's home, or absolute
    host: str = setting("")
    user: str = setting("")
    port: int = setting(22, minimum=1, maximum=65535)
    python: str = setting("python3")
    timeout_s: float = setting(20.0, unit="s", minimum=0.1)


@dataclass(frozen=True)
class Virtual:
    """A Linux device that is an emulator here: started when it is reached (docs/linux-devices.md)."""

    release: str = setting("bookworm", choices=("bookworm", "trixie"))  # of Debian: Python 3.11 or 3.13
    cpu: str = setting("cortex-a72", choices=("cortex-a72", "cortex-a76"))


@dataclass(frozen=True)
class Runtime:
    """What a Linux device may run: `engine` is the runtime that is installed there first.

    activation: the type that ONNX Runtime's int8 kernels are fast with there. threads: the most that are
    tried, 0 for as many as it has cores. variants: what the bundle holds, empty for all that can be made;
    architectures: what the compiled C is compiled for.
    """

    engine: str = setting("onnxruntime", choices=("onnxruntime", "litert"))
    activation: str = setting("uint8", choices=("int8", "uint8"))
    threads: int = setting(0, minimum=0, maximum=256)
    variants: tuple[str, ...] = setting((), choices=VARIANTS)
    architectures: tuple[str, ...] = setting(ARCHITECTURES, choices=ARCHITECTURES)


@dataclass(frozen=True)
class Limits:
    """What the model must meet on this device; None: no limit."""

    max_latency_us: float | None = setting(None, unit="us", minimum=0)
    max_accuracy_drop: float | None = setting(None, minimum=0, maximum=1)


@dataclass(frozen=True)
class Target:
    """One device profile. `kind` "mcu" needs core and memory, "linux" needs connection and runtime."""

    name: str = setting()
    description: str = setting()
    kind: str = setting(choices=("mcu", "linux"))
    core: Core | None = setting(None)
    memory: Memory | None = setting(None)
    emulator: Emulator | None = setting(None)
    cost: CostModel = setting(CostModel())
    connection: Connection | None = setting(None)
    runtime: Runtime | None = setting(None)
    virtual: Virtual | None = setting(None, later=True)
    limits: Limits = setting(Limits())


def load_target(name: str, directories: Sequence[Path]) -> Target:
    """The profile `name` from the first of `directories` that has `<name>.toml`.

    Raises ConfigError for an unknown name (with the nearest), key, type or range.
    """
    path = find_named("target", name, directories)
    target = load(path, Target)
    check_name(path, target.name)
    needed = ("core", "memory", "emulator") if target.kind == "mcu" else ("connection", "runtime")
    for table in needed:
        if getattr(target, table) is None:
            raise ConfigError(f"{path}: kind {target.kind!r} needs the table [{table}]; add it")
    if target.memory is not None:
        _hold_regions(path, target.memory)
    return target


def _hold_regions(path: Path, memory: Memory) -> None:
    """ConfigError for a region beside the first memories that is at no multiple of 8, or over another one."""
    more = {"slow_ram": memory.slow_ram, "external_flash": memory.external_flash}
    named = {name: region for name, region in more.items() if region is not None}
    for name, region in named.items():
        for key, value in (("origin", region.origin), ("size_bytes", region.size_bytes)):
            if value % REGION_ALIGNMENT_BYTES:
                raise ConfigError(
                    f"{path}: memory.{name}.{key} is 0x{value:x}; it must be a multiple of "
                    f"{REGION_ALIGNMENT_BYTES}, as tensors and weights are aligned"
                )
    _hold_sections(path, memory)
    spans = {
        "ram": (memory.ram_origin, memory.ram_bytes),
        "flash": (memory.flash_origin, memory.flash_bytes),
    }
    if named:
        spans |= {name: (region.origin, region.size_bytes) for name, region in named.items()}
        _hold_apart(path, spans)


def _hold_sections(path: Path, memory: Memory) -> None:
    slow, external = memory.slow_ram, memory.external_flash
    if slow and (not _SECTION.fullmatch(slow.section) or slow.section in _OWN_SECTIONS):
        raise ConfigError(
            f"{path}: memory.slow_ram.section is {slow.section!r}; it must be a linker section's name of "
            "its own, such as '.slow_ram'"
        )
    if external and external.section not in ("", WEIGHTS_SECTION):
        raise ConfigError(
            f"{path}: memory.external_flash.section is {external.section!r}; the weights are in "
            f"{WEIGHTS_SECTION!r}: leave it out"
        )


def _hold_apart(path: Path, spans: dict[str, tuple[int, int]]) -> None:
    ordered = sorted(spans.items(), key=lambda item: item[1])
    for (name, (origin, size_bytes)), (above, (start, _)) in pairwise(ordered):
        if origin + size_bytes > start:
            raise ConfigError(
                f"{path}: memory's {name} (0x{origin:08x} to 0x{origin + size_bytes:08x}) overlaps {above}, "
                f"which begins at 0x{start:08x}; correct origin or size of one of them"
            )
