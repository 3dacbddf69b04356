"""Candidate: one way to run a layer. What a kernel must give so that it can be chosen.

A new kernel adds itself in three places:

1. A planner, `plan(case) -> Plan | None` (None: it cannot run this op), in PLANNERS of dsp/family.py, where
   an op may have several. Its Plan follows the protocol below: `proofs` has the shifts among which one is
   agreed on with other layers (empty: none, the shift is 0), `takes` says which layouts of input and output
   it runs, `candidates` gives its Candidates, one for each form (unrolled, rolled). The portable kernel is
   always a candidate besides, where input and output are NHWC.
2. Its cost. Assembly is counted from its text: a loop's lines stand in a region of their own
   (`Function.region`, `branch_back`), and a row in USAGE of costs.py says, from the fields of the layer's
   struct, how often each region runs and which features (calls, rows, bytes) its driver in C has. What a
   feature of a driver costs is measured: `python benchmarks/kernel_costs.py` builds, runs and fits.
3. Its size: `python benchmarks/kernel_sizes.py`, as for every kernel in C. Assembly that the table does not
   hold is bounded by its text.

Flash is counted from the emission (weights, struct, tables, and the functions that it names, each once in
the whole image); scratch is its scratch_bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgekd.mcu.codegen_case import Emission


@dataclass(frozen=True)
class Candidate:
    """kernel: the name that reports show, such as "pairs u48"; emission: its code."""

    kernel: str
    emission: Emission


@dataclass(frozen=True)
class Layout:
    """Whether a layer's first input and its output lie in planes of four channels instead of NHWC."""

    planes_in: bool
    planes_out: bool


NHWC = Layout(planes_in=False, planes_out=False)


class Plan(Protocol):
    """What a planner found out about an op."""

    @property
    def proofs(self) -> Mapping[int, Any]:
        """The shifts under which its rounding is exact."""
        ...

    def takes(self, layout: Layout) -> bool:
        """Whether it runs with input and output in this layout."""
        ...

    def candidates(self, shift: int, layout: Layout) -> Iterable[Candidate]:
        """Its forms. shift: one of `proofs`, 0 where that is empty."""
        ...
