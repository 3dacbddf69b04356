"""[search]: among which students `invoke search` looks."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.declaration import setting
from edgekd.recipe.blocks import BLOCKS

SAMPLERS = ("tpe", "nsga2", "gp", "random")


@dataclass(frozen=True)
class SearchParams:
    """Among which students `invoke search` looks, and how: docs/methods/search.md.

    Each student is a stem convolution, then as many stages as `depths` allows, of one kind of block each.
    Every list holds what one choice is made from: shrinks, stem_channels, stem_strides, depths of the whole,
    the others of each stage; bits: of the stage's weights.

    max_cycles, max_instructions, max_ram_bytes, max_flash_bytes: what a student may cost as generated code;
    0: no limit but the target's memory. cost: what the front shows. trials: students that are trained, those
    stopped early among them; epochs, learning_rate: of each, 0: as in [distill]. warm_start: each trial
    begins with what fits of the recipe's own student, where the store has it. margin: how much worse than a
    student that costs no more a trial may be, in standard errors, before it is stopped; 0: never.
    """

    kinds: tuple[str, ...] = setting(("residual", "separable", "inverted"), choices=BLOCKS[1:-1])
    shrinks: tuple[int, ...] = setting((1,), unit="pixels", minimum=1, maximum=8)
    stem_channels: tuple[int, ...] = setting((8, 16, 24), unit="channels", minimum=1, maximum=1024)
    stem_strides: tuple[int, ...] = setting((1, 2), unit="pixels", minimum=1, maximum=4)
    depths: tuple[int, ...] = setting((2, 3), unit="stages", minimum=1, maximum=12)
    channels: tuple[int, ...] = setting((16, 24, 32, 48), unit="channels", minimum=1, maximum=1024)
    strides: tuple[int, ...] = setting((1, 2), unit="pixels", minimum=1, maximum=4)
    kernels: tuple[int, ...] = setting((3,), unit="pixels", minimum=1, maximum=9)
    expansions: tuple[int, ...] = setting((2, 4), minimum=1, maximum=16)
    repeats: tuple[int, ...] = setting((1, 2), unit="blocks", minimum=1, maximum=64)
    bits: tuple[int, ...] = setting((8,), unit="bits", minimum=2, maximum=8)
    max_cycles: int = setting(0, unit="cycles", minimum=0)
    max_instructions: int = setting(0, unit="instructions", minimum=0)
    max_ram_bytes: int = setting(0, unit="bytes", minimum=0)
    max_flash_bytes: int = setting(0, unit="bytes", minimum=0)
    cost: str = setting("cycles", choices=("cycles", "instructions"))
    trials: int = setting(40, minimum=1, maximum=1_000_000)
    epochs: int = setting(0, minimum=0, maximum=10_000)
    learning_rate: float = setting(0.0, minimum=0, maximum=10)
    warm_start: bool = setting(True)
    margin: float = setting(2.0, minimum=0, maximum=100)
    sampler: str = setting("tpe", choices=SAMPLERS)
