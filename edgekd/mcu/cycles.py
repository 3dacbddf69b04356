"""From counted jumps between basic blocks to exact instructions and estimated cycles.

An engine reports edges: how often the core went from one basic block to another. Instructions follow
exactly (a block's instructions, failed IT slots included, times its entries). Cycles are an estimate:
instruction classes times the profile's cost model; an edge says whether the branch that ends a block
was taken. Not modelled: flash wait states, the write buffer, address dependences between loads, how
many bits a division needs, and the skipped work of a failed IT slot (it counts in full).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgekd.errors import DeviceError
from edgekd.mcu.elf import Image
from edgekd.mcu.isa import Instruction, decode, disassembler, words
from edgekd.target import CostModel

NO_BLOCK = 0xFFFF_FFFF  # in an edge: the run entered from outside, or left

BRANCHES = words("b bl bx blx cbz cbnz tbb tbh")
MULTIPLES = words(
    "ldm ldmdb stm stmdb push pop vldm vldmdb vldmia vstm vstmdb vstmia vpush vpop fldmiax fldmdbx "
    "fstmiax fstmdbx"
)
MULTIPLIES = tuple(sorted(words("mul mla mls smul smla smls smmul smmla smmls smuad smusd umul umla umaal")))
# Several times the class `divide` or `floating`, after Arm DDI 0439, table 7-1.
LONG_FLOATING = {"vdiv": 14, "vsqrt": 14, "vfma": 3, "vfms": 3, "vfnma": 3, "vfnms": 3}
LONG_FLOATING |= {"vmla": 3, "vmls": 3, "vnmla": 3, "vnmls": 3}


@dataclass(frozen=True)
class Block:
    """One basic block. `cycles` leaves out the branch that ends it: an edge says what that costs."""

    instructions: int
    cycles: int
    end: int
    branches: bool  # its last instruction may change the program counter
    conditional: bool
    starts_with_load: bool
    ends_with_load: bool
    branch_extra: int  # cycles of the ending instruction besides the branch itself (POP {.., pc})


class Costs:
    """The blocks of one image under one cost model; a block is disassembled once."""

    def __init__(self, image: Image, cost: CostModel) -> None:
        self._image = image
        self._cost = cost
        self._engine: Any = disassembler()
        self._blocks: dict[tuple[int, int], Block] = {}

    def block(self, address: int, size_bytes: int) -> Block:
        """The block at `address`; raises DeviceError when its bytes are not whole instructions."""
        key = (address, size_bytes)
        if key not in self._blocks:
            data = self._image.read(address, size_bytes)
            found = list(decode(self._engine, data, address))
            if not found or sum(i.size_bytes for i in found) != size_bytes:
                raise DeviceError(
                    f"the core ran {size_bytes} bytes at {self._image.locate(address)} that are no "
                    f"instructions of the image; look for a jump through a broken pointer"
                )
            self._blocks[key] = summarize(found, self._cost)
        return self._blocks[key]

    def total(self, edges: Iterable[tuple[int, int, int]], sizes: dict[int, int]) -> tuple[int, int]:
        """(instructions, estimated cycles) of edges (from block, to block, times); NO_BLOCK is outside."""
        instructions = cycles = 0
        for _, more, spent in self.pieces(edges, sizes):
            instructions += more
            cycles += spent
        return instructions, cycles

    def pieces(
        self, edges: Iterable[tuple[int, int, int]], sizes: dict[int, int]
    ) -> Iterator[tuple[int, int, int]]:
        """(address, instructions, estimated cycles) of every part of `total`, by the block that spends it."""
        for source, target, times in edges:
            before = None if source == NO_BLOCK else self.block(source, sizes[source])
            after = None if target == NO_BLOCK else self.block(target, sizes[target])
            if after is not None:
                yield target, times * after.instructions, times * after.cycles
            if before is not None:
                yield source, 0, times * self._passage(before, after, target)

    def _passage(self, before: Block, after: Block | None, target: int) -> int:
        """What leaving `before` costs: its branch, or a load that follows a load over a block's seam."""
        cost = self._cost
        if before.branches:
            untaken = before.conditional and target == before.end
            return before.branch_extra + (cost.branch_not_taken if untaken else cost.branch_taken)
        if after is not None and before.ends_with_load and after.starts_with_load:
            return cost.load_next - cost.load
        return 0


def summarize(found: list[Instruction], cost: CostModel) -> Block:
    """A block's fixed cost from its instructions."""
    cycles = branch_extra = 0
    after_load = False
    for index, instruction in enumerate(found):
        own = cost_of(instruction, cost, after_load)
        if index == len(found) - 1 and is_branch(instruction):
            # A plain branch has no cost but the branch; POP {.., pc} and LDR pc also load.
            branch_extra = 0 if instruction.name in BRANCHES else own - cost.alu
        else:
            cycles += own
        after_load = is_load(instruction)
    first, last = found[0], found[-1]
    ends = is_branch(last)
    conditional = ends and _is_conditional(last)
    end = last.address + last.size_bytes
    return Block(
        len(found), cycles, end, ends, conditional, is_load(first), is_load(last), max(branch_extra, 0)
    )


def cost_of(instruction: Instruction, cost: CostModel, after_load: bool) -> int:
    """Estimated cycles of one instruction; `after_load`: the one before it was a single load."""
    name = instruction.name
    if name in MULTIPLES:
        return cost.multiple + register_count(instruction)
    if name in ("ldrd", "strd"):
        return cost.pair
    if is_load(instruction):
        return cost.load_next if after_load else cost.load
    if name.startswith(("str", "vstr")):
        return cost.store
    if name in ("sdiv", "udiv"):
        return cost.divide
    if name.startswith(MULTIPLIES):
        return cost.multiply
    if name.startswith("v"):
        return cost.floating * LONG_FLOATING.get(name, 1)
    return cost.alu


def is_load(instruction: Instruction) -> bool:
    """A load of one register: what a following load can be pipelined with."""
    return instruction.name.startswith(("ldr", "vldr")) and instruction.name != "ldrd"


def is_branch(instruction: Instruction) -> bool:
    """It may write the program counter."""
    if instruction.name in BRANCHES:
        return True
    text = instruction.text
    return "pc}" in text if instruction.name in MULTIPLES else text.split(",")[0].endswith(" pc")


def register_count(instruction: Instruction) -> int:
    """How many words LDM, STM, PUSH or POP moves."""
    listed = instruction.text[instruction.text.index("{") + 1 : instruction.text.index("}")].split(",")
    wide = instruction.name.startswith(("v", "f")) and listed[0].strip().startswith("d")
    return len(listed) * (2 if wide else 1)


def _is_conditional(instruction: Instruction) -> bool:
    """CBZ, CBNZ, a branch with a condition, and whatever an IT block makes conditional."""
    import capstone.arm as arm

    return instruction.name in ("cbz", "cbnz") or instruction.raw.cc not in (
        arm.ARM_CC_AL,
        arm.ARM_CC_INVALID,
    )
