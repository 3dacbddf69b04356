"""What a caller may ask of the generated library, beyond the model and the kernel family."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.errors import ConfigError
from edgekd.mcu.library import Library
from edgekd.target import CostModel

OPTIMIZE = ("speed", "flash")


@dataclass(frozen=True)
class Options:
    """How `generate` chooses where several kernels can run a layer.

    optimize: "speed" takes the fewest modelled cycles, "flash" the fewest bytes of flash.
    flash_bytes, ram_bytes: what the image may take (weights, code, constants; arena and stack); None: no
        limit. A model that no choice makes fit gets the nearest one: the build refuses it.
    cost: the core's cycles an instruction class.
    winograd: whether 3 x 3 convolutions may take weights of 3.6 times their bytes for speed.
    compiler: "clang" or "gcc": whose figures of the kernels in C are used.
    library: names, labels, self-test, updates.
    Raises ConfigError for a mode that does not exist.
    """

    optimize: str = "speed"
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    cost: CostModel = field(default_factory=CostModel)
    winograd: bool = False
    compiler: str = "clang"
    library: Library = field(default_factory=Library)

    def __post_init__(self) -> None:
        if self.optimize not in OPTIMIZE:
            raise ConfigError(f"optimize is {self.optimize!r}; it must be one of {', '.join(OPTIMIZE)}")
