"""Text of Thumb-2 functions that GNU as and clang's assembler both take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekd.mcu.codegen_text import LICENSE
from edgekd.mcu.work import NOTHING, Work, work_of_lines

_HEAD = """
/* Generated kernels for Armv7E-M's DSP instructions; other cores use their twins in C (k_dsp_*.c). */
#if defined(__ARM_FEATURE_DSP)
    .syntax unified
    .thumb
"""


REPEATED = "repeated"


@dataclass(frozen=True)
class Kernel:
    """One generated function: `twin` is the C function that stands for it elsewhere.

    work: what one pass through each of its regions runs (see Function). facts: numbers of this form that a
    count of regions needs, such as {"unrolled": 48}.
    """

    name: str
    twin: str
    text: str
    work: Mapping[str, Work] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)

    def once(self, runs: Mapping[str, float]) -> Work:
        """What one call runs. runs: region -> how often it runs in that call; "call" is 1."""
        total = NOTHING
        for region, work in self.work.items():
            total += work * (1 if region == "call" else runs[region])
        return total


class Function:
    """Collects the lines of one function; labels are numeric, as both assemblers know them.

    Every line belongs to a region: lines that run equally often. A function begins in the region "call",
    which runs once; `region` begins another one, whose name the kernel's usage (costs.py) counts. Lines that
    repeat others (an unrolled loop, whose turns are counted one by one) stand in the region REPEATED.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self._parts: list[tuple[str, list[str]]] = [("call", [])]
        self._branches: list[tuple[str, int]] = []  # region; 1 where its branch is taken, -1 where not

    def add(self, *lines: str) -> None:
        """Lines of this region. A conditional branch among them counts as not taken."""
        self.lines += lines
        self._parts[-1][1].extend(lines)

    def region(self, name: str) -> None:
        """What follows runs as often as `name` says; a name may come back."""
        self._parts.append((name, []))

    def branch_back(self, line: str, outer: str) -> None:
        """The conditional branch that ends a loop: taken in all turns but the last of each `outer`."""
        self.add(line)
        if self._parts[-1][0] != REPEATED:
            self._branches += [(self._parts[-1][0], 1), (outer, -1)]

    def branch_ahead(self, line: str, taken: str) -> None:
        """A conditional branch that is taken as often as the region `taken` runs."""
        self.add(line)
        if self._parts[-1][0] != REPEATED:
            self._branches.append((taken, 1))

    def label(self, number: int) -> None:
        self.lines.append(f"{number}:")

    def kernel(self, twin: str, **facts: int) -> Kernel:
        return Kernel(self.name, twin, self.text, self.work, facts)

    @property
    def work(self) -> dict[str, Work]:
        """What one pass through each region runs."""
        found: dict[str, Work] = {}
        for region, lines in self._parts:
            if region == REPEATED:
                continue
            found[region] = found.get(region, NOTHING) + work_of_lines(lines)
        for region, sign in self._branches:
            moved = Work({"branch_taken": sign, "branch_not_taken": -sign})
            found[region] = found.get(region, NOTHING) + moved
        return found

    @property
    def text(self) -> str:
        body = "".join(line + "\n" if line.endswith(":") else f"    {line}\n" for line in self.lines)
        return (
            f'\n    .section .text.{self.name},"ax",%progbits\n    .p2align 2\n    .global {self.name}\n'
            f"    .type {self.name}, %function\n    .thumb_func\n{self.name}:\n{body}"
            f"    .size {self.name}, . - {self.name}\n"
        )


def source(kernels: dict[str, Kernel]) -> str:
    """The whole .S file."""
    return LICENSE + _HEAD + "".join(kernels[name].text for name in sorted(kernels)) + "#endif\n"


def header(kernels: dict[str, Kernel]) -> str:
    """Declares the kernels, or names their twins: model_dsp.h."""
    names = sorted(kernels)
    twins = sorted({kernel.twin for kernel in kernels.values()})
    includes = "".join(f'#include "{twin}.h"\n' for twin in twins)
    declared = "".join(f"{kernels[name].twin}_function {name};\n" for name in names)
    defined = "".join(f"#define {name} {kernels[name].twin}\n" for name in names)
    return (
        f"{LICENSE}\n/* The kernels of model_dsp.S; elsewhere their twins in C. */\n"
        f"#ifndef MODEL_DSP_H\n#define MODEL_DSP_H\n\n{includes}\n"
        f"#if defined(__ARM_FEATURE_DSP)\n{declared}#else\n{defined}#endif\n\n#endif\n"
    )
