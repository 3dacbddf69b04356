"""CONV_2D_ADD for the DSP family: a convolution's kernel, and the sum's leaf behind each of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edgekd.mcu.candidate import Candidate, Layout
from edgekd.mcu.codegen_case import SCRATCH, Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp import add, conv
from edgekd.mcu.dsp.rounding import Proved
from edgekd.qgraph.residual import OTHER, unfused

DRIVER = "k_dsp_residual_s8"
BLOCK = f"{DRIVER}_block"


def kept_words(outputs: int) -> int:
    """Words of scratch beyond the convolution's: the pixels left, and a block of its outputs."""
    return 1 + conv.BLOCK_PIXELS * outputs // 4


@dataclass(frozen=True)
class Plan:
    """A convolution and a sum that the family can run together."""

    case: Case
    conv: conv.Plan
    sum: add.Plan

    @property
    def proofs(self) -> dict[int, Proved]:
        return self.conv.proofs

    def takes(self, layout: Layout) -> bool:
        return not layout.planes_out and self.conv.takes(layout)

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        for plain in self.conv.candidates(shift, layout):
            yield Candidate(f"{plain.kernel} + sum", self._emission(plain.emission))

    def _emission(self, plain: Emission) -> Emission:
        """`plain` with the sum; an other operand that does not lie where the output does is copied there."""
        case = self.case
        size, target = str(case.y.elements), case.target()
        other = case.source(OTHER)
        copy = Call("k_copy_rows_8", (other, "1", size, size, target))
        (leaf,) = self._sum().assembly
        run = Call(DRIVER, ("&layer", case.source(), SCRATCH, target))
        return replace(
            plain,
            calls=(copy, run),
            struct=(f"{DRIVER}_t", self._fields(plain)),
            scratch_bytes=plain.scratch_bytes + 4 * kept_words(self.conv.outputs),
            assembly=(*plain.assembly, leaf),
            helpers=(self.conv.driver, DRIVER),
        )

    def _sum(self) -> Emission:
        (shift,) = self.sum.proofs
        return self.sum.emission(shift)

    def _fields(self, plain: Emission) -> dict[str, Value]:
        summed = self._sum()
        assert plain.struct is not None and summed.struct is not None
        fields, outputs = plain.struct[1], self.conv.outputs
        fresh = self.case.y.elements // outputs % conv.BLOCK_PIXELS
        behind = fields["block_words"]
        assert isinstance(behind, int)
        layer = {**fields, "multiply": BLOCK, "block_words": behind + kept_words(outputs)}
        elements = conv.BLOCK_PIXELS * outputs
        return {
            "conv": layer,
            "run": self.conv.driver,
            "multiply": fields["multiply"],
            "add": summed.assembly[0].name,
            "sum": _of(summed.struct[1], elements),
            "last": _of(summed.struct[1], fresh * outputs),
            "skip_bytes": elements - fresh * outputs,
            "behind_words": behind,
        }


def _of(fields: Mapping[str, Value], elements: int) -> dict[str, Value]:
    return {**fields, "elements": elements}


def plan(case: Case) -> Plan | None:
    """None where the two ops cannot run as one."""
    apart = unfused(case.graph, case.index)
    first, second = conv.plan(Case(apart, case.index)), add.plan(Case(apart, case.index + 1))
    if first is None or second is None or first.outputs % 4 or first.case.inputs[1].encoding is not None:
        return None
    return Plan(case, first, second)
