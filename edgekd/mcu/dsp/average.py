"""AVERAGE_POOL_2D over the whole image: sums of four channels in two registers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from edgekd.mcu.candidate import Candidate, Layout
from edgekd.mcu.codegen_case import Call, Case, Emission
from edgekd.mcu.codegen_text import Value
from edgekd.mcu.dsp.assembly import Function, Kernel

DRIVER = "k_dsp_average_s8"
TWIN = "k_dsp_average_leaf_s8"
MOST_PIXELS = 255  # the sums are int16


@dataclass(frozen=True)
class Plan:
    """A pool that the family can run."""

    case: Case

    @property
    def proofs(self) -> Mapping[int, None]:
        return {}

    def takes(self, layout: Layout) -> bool:
        return not layout.planes_out

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        yield Candidate("average", self.emission(layout.planes_in))

    def emission(self, planes: bool) -> Emission:
        """planes: whether the input is in planes of four channels."""
        case, leaf = self.case, kernel()
        _, height, width, channels = case.x.shape
        fields: dict[str, Value] = {
            "pixels": height * width,
            "step_bytes": 4 if planes else channels,
            "channels": channels,
            "four_bytes": 4 * height * width if planes else 4,
            "leaf": leaf.name,
        }
        calls = (Call(DRIVER, ("&layer", case.source(), case.target())),)
        return Emission(calls, (f"{DRIVER}_t", fields), assembly=(leaf,))


def plan(case: Case) -> Plan | None:
    """None where another kernel must run."""
    _, height, width, channels = case.x.shape
    whole = (case.number("filter_h"), case.number("filter_w")) == (height, width)
    clamp = case.clamp()
    plain = (clamp["lowest"], clamp["highest"]) == (-128, 127) and case.x.dtype == case.y.dtype == "int8"
    single = case.y.shape[1:3] == (1, 1) and case.op.attrs["padding"] == "VALID"
    if not whole or not plain or not single or channels % 4 or height * width > MOST_PIXELS:
        return None
    return Plan(case)


@cache
def kernel() -> Kernel:
    f = Function("k_dsp_average_4")
    f.add("push {r4-r7, lr}", "ldrd r3, r4, [r0]", "movs r5, #0", "movs r6, #0")
    f.region("pixel")
    f.label(1)
    f.add("ldr r7, [r1]", "add r1, r1, r4", "sxtb16 r12, r7", "sxtb16 r7, r7, ror #8")
    f.add("sadd16 r5, r5, r12", "sadd16 r6, r6, r7", "subs r3, r3, #1")
    f.branch_back("bne 1b", outer="call")
    f.region("call")
    f.add("strd r5, r6, [r2]", "pop {r4-r7, pc}")
    return f.kernel(TWIN)
