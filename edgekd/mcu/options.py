"""What a caller may ask of the generated library, beyond the model and the kernel family."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.errors import ConfigError
from edgekd.mcu.library import Library
from edgekd.target import CostModel, Target

OPTIMIZE = ("speed", "ram", "flash", "balanced")


@dataclass(frozen=True)
class Regions:
    """RAM in two parts: bytes of the arena that the fast one and the slow one have room for.

    section: the linker's, that lies in the slow one; wait_cycles: what an access there costs more.
    """

    fast_bytes: int
    slow_bytes: int
    section: str
    wait_cycles: int = 0


@dataclass(frozen=True)
class Options:
    """How `generate` chooses where several kernels can run a layer.

    optimize: "speed" takes the fewest modelled cycles, "flash" the fewest bytes of flash; "ram" runs layers
        by rows where that makes the arena smaller, for 13 % more instructions at most, and takes smaller
        code; "balanced" does the same for 4 % at most.
    flash_bytes: what the image may take (weights, code, constants); ram_bytes: what the arena may take
        (activations and scratch; the stack comes besides). None: no limit. A model that no choice makes fit
        gets the nearest one: the build refuses it.
    cost: the core's cycles an instruction class.
    winograd: whether 3 x 3 convolutions may take weights of 3.6 times their bytes for speed.
    compiler: "clang" or "gcc": whose figures of the kernels in C are used.
    library: names, labels, self-test, updates.
    prefer: beginnings of kernels' names; one that begins so is taken wherever it can run, whatever it costs.
        "residual" fuses every ADD that can be with the convolution in front; "rows N" and "rows N parked" run
        all layers by rows that can, N of them at a time.
    regions: a second, slower RAM for what does not fit into the first one; None: there is none.
    Raises ConfigError for a mode that does not exist.
    """

    optimize: str = "speed"
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    cost: CostModel = field(default_factory=CostModel)
    winograd: bool = False
    compiler: str = "clang"
    library: Library = field(default_factory=Library)
    prefer: tuple[str, ...] = ()
    regions: Regions | None = None

    def __post_init__(self) -> None:
        if self.optimize not in OPTIMIZE:
            raise ConfigError(f"optimize is {self.optimize!r}; it must be one of {', '.join(OPTIMIZE)}")


def options_for(target: Target, optimize: str = "speed", compiler: str = "clang") -> Options:
    """The options for a microcontroller's profile: costs, flash, and RAM without the reserved stack."""
    assert target.memory is not None
    room = target.memory.ram_bytes - target.memory.stack_bytes
    slow, external = target.memory.slow_ram, target.memory.external_flash
    return Options(
        optimize=optimize,
        flash_bytes=target.memory.flash_bytes + (external.size_bytes if external else 0),
        ram_bytes=room + (slow.size_bytes if slow else 0),
        regions=Regions(room, slow.size_bytes, slow.section, slow.wait_cycles) if slow else None,
        cost=target.cost,
        compiler=compiler,
    )
