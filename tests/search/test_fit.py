"""What fits: a start is found where there is one, and where nothing fits the nearest is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import BudgetError, ConfigError
from edgekd.recipe.search import SearchParams
from edgekd.search.fit import Pricer, fitting_point, limits_of
from edgekd.search.space import Space
from edgekd.target import load_target

TARGET = load_target("mcu-sim", [Path(__file__).resolve().parents[2] / "targets"])
SPACE = Space(SearchParams(stem_channels=(16, 8), depths=(1, 2), channels=(32, 16), strides=(1, 2)))


def pricer(**limits: int) -> Pricer:
    return Pricer(TARGET, "clang", (3, 16, 16), 4, limits)


def test_a_start_that_fits_and_limits_that_need_a_move() -> None:
    loose, smallest = pricer(cycles=10**9), SPACE.candidate(fitting_point(SPACE, pricer(cycles=10**9)))
    costs = loose.costs(smallest)
    assert smallest.blocks[0].channels == 8 and smallest.blocks[1].stride == 2
    lean = pricer(flash_bytes=costs["flash_bytes"] - 1)
    other = SPACE.candidate(fitting_point(SPACE, lean))
    assert lean.costs(other)["flash_bytes"] < costs["flash_bytes"]


def test_nothing_fits() -> None:
    with pytest.raises(BudgetError) as caught:
        fitting_point(SPACE, pricer(cycles=1000, ram_bytes=2000))
    said = str(caught.value)
    assert "the nearest (conv 8 /2, " in said and "cycles of 1,000" in said and "ram bytes of 2,000" in said
    assert "% too many" in said and "\n" not in said


def test_fewer_bits_take_less_flash() -> None:
    space = Space(SearchParams(kinds=("residual",), channels=(48,), depths=(1,), bits=(4, 8)))
    point = {name: choices[-1] for name, choices in space.dimensions.items()}
    eight, four = (pricer().costs(space.candidate(point | {"bits1": bits})) for bits in (8, 4))
    assert four["flash_bytes"] < 0.8 * eight["flash_bytes"] and four["cycles"] > eight["cycles"]


def test_limits_are_the_targets_memory_or_less() -> None:
    assert TARGET.memory is not None
    found = limits_of(TARGET, {"ram_bytes": 1000, "cycles": 5, "flash_bytes": 0})
    assert found == {"ram_bytes": 1000, "cycles": 5, "flash_bytes": TARGET.memory.flash_bytes}
    with pytest.raises(ConfigError, match="may take 999,999 ram bytes and target mcu-sim has 262,144"):
        limits_of(TARGET, {"ram_bytes": 999_999})
