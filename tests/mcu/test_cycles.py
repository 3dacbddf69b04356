"""The cost model: what an instruction, a branch and a seam between blocks are worth."""

from __future__ import annotations

import pytest

from edgekd.errors import DeviceError
from edgekd.mcu.cycles import NO_BLOCK, Costs
from edgekd.mcu.elf import Image
from edgekd.target import CostModel

pytestmark = pytest.mark.needs("capstone")

OUTSIDE = NO_BLOCK
BX_LR = "7047"


def costs(code: str, cost: CostModel | None = None) -> Costs:
    image = Image(((0, bytes.fromhex(code)),), {}, (), (), {}, ())
    return Costs(image, cost or CostModel())


def total(code: str, edges: list[tuple[int, int, int]], sizes: dict[int, int]) -> tuple[int, int]:
    return costs(code).total(edges, sizes)


@pytest.mark.parametrize(
    ("text", "code", "instructions", "cycles"),
    [
        ("adds r0, r0, r1", "4018", 1, 1),
        ("ldr r0, [r1]", "0868", 1, 2),
        ("ldr, ldr: the second follows a load", "08684a68", 2, 3),
        ("ldr, adds, ldr", "086840184a68", 3, 5),
        ("str r0, [r1]", "0860", 1, 1),
        ("ldm r1!, {r0, r2, r3}", "0dc9", 1, 4),
        ("push {r4, lr}", "10b5", 1, 3),
        ("ldrd r0, r1, [r4, #8]", "d4e90201", 1, 3),
        ("sdiv r0, r1, r2", "91fbf2f0", 1, 7),
        ("smlad r0, r1, r2, r3", "21fb0230", 1, 1),
        ("vdiv.f32 s0, s1, s2", "80ee810a", 1, 14),
        ("vldmia r1!, {d0-d3}", "b1ec080b", 1, 9),
        ("a failed IT slot counts in full: ite, ldrlt, ldrge", "b4bf08680868", 3, 4),
    ],
)
def test_cost_of_a_block(text: str, code: str, instructions: int, cycles: int) -> None:
    size = len(code) // 2
    assert total(code, [(OUTSIDE, 0, 1)], {0: size}) == (instructions, cycles), text
    assert total(code, [(OUTSIDE, 0, 10)], {0: size}) == (10 * instructions, 10 * cycles)


@pytest.mark.parametrize(
    ("text", "branch", "target", "cycles"),
    [
        ("bne taken", "fcd1", 0, 3),
        ("bne not taken", "fcd1", 4, 1),
        ("cbz not taken", "00b1", 4, 1),
        ("b taken to the next address", "ffe7", 4, 3),
        ("bx lr", BX_LR, OUTSIDE, 3),
        ("pop {r4, pc}: two words, then the branch", "10bd", OUTSIDE, 5),
    ],
)
def test_cost_of_leaving_a_block(text: str, branch: str, target: int, cycles: int) -> None:
    code = "0120" + branch + "0120"  # movs r0, #1 before and after
    sizes = {0: 4, 4: 2}
    entered = total(code, [(OUTSIDE, 0, 1)], sizes)
    left = total(code, [(OUTSIDE, 0, 1), (0, target, 1)], sizes)
    again = 0 if target == OUTSIDE else 1  # what the next block costs: a movs
    assert entered == (2, 1)
    assert left[1] - entered[1] - again == cycles, text


def test_a_load_after_a_load_over_the_seam_of_two_blocks() -> None:
    code = "08684a68"
    assert total(code, [(OUTSIDE, 0, 1), (0, 2, 1)], {0: 2, 2: 2}) == (2, 3)


def test_the_profile_decides() -> None:
    slow = CostModel(load=5, load_next=4)
    assert costs("08684a68", slow).total([(OUTSIDE, 0, 1)], {0: 4}) == (2, 9)


def test_bytes_that_are_no_code() -> None:
    with pytest.raises(DeviceError, match="no instructions of the image"):
        total("0868", [(OUTSIDE, 0x400, 1)], {0x400: 4})
