"""Text of Thumb-2 functions that GNU as and clang's assembler both take."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.mcu.codegen_text import LICENSE

_HEAD = """
/* Generated kernels for Armv7E-M's DSP instructions; other cores use their twins in C (k_dsp_*.c). */
#if defined(__ARM_FEATURE_DSP)
    .syntax unified
    .thumb
"""


@dataclass(frozen=True)
class Kernel:
    """One generated function: `twin` is the C function that stands for it elsewhere."""

    name: str
    twin: str
    text: str


class Function:
    """Collects the lines of one function; labels are numeric, as both assemblers know them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        self.lines += lines

    def label(self, number: int) -> None:
        self.lines.append(f"{number}:")

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
