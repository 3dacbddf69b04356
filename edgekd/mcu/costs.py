"""What a layer runs, known before anything is compiled: from its emission to Work.

A layer is calls of kernels. Generated assembly is counted from its text, region by region. A kernel or
driver in C has features (calls, blocks, rows, bytes: what its loops run over), and what one of each runs has
been measured: kernel_costs.json, written by benchmarks/kernel_costs.py for each compiler. USAGE has a row a
kernel: from its arguments and the fields of its struct to features and calls of assembly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgekd.mcu import usage_portable
from edgekd.mcu.codegen_case import Emission
from edgekd.mcu.dsp import usage as usage_dsp
from edgekd.mcu.usage import Seen, Usage
from edgekd.mcu.work import NOTHING, Work

TABLE = Path(__file__).with_name("kernel_costs.json")

USAGE: dict[str, Callable[[Seen], Usage]] = usage_portable.USAGE | usage_dsp.USAGE


@cache
def load_costs() -> Mapping[str, Any]:
    """The measured costs that ship with edgekd: compiler -> kernel -> feature -> class -> how often."""
    found: Mapping[str, Any] = json.loads(TABLE.read_text("utf-8"))["compilers"]
    return found


def usage_of(emission: Emission) -> list[tuple[str, Usage]] | None:
    """(kernel, usage) of each call; the kernel of a generated leaf is its twin. None: USAGE lacks one."""
    leaves = {leaf.name: leaf for leaf in emission.assembly}
    fields = emission.struct[1] if emission.struct else {}
    found = []
    for call in emission.calls:
        kernel = leaves[call.kernel].twin if call.kernel in leaves else call.kernel
        if kernel not in USAGE:
            return None
        found += _flat(kernel, USAGE[kernel](Seen(fields, call, emission, leaves)))
    return found


def _flat(kernel: str, usage: Usage) -> list[tuple[str, Usage]]:
    """A usage and those of the kernels that it calls."""
    return [(kernel, usage), *(each for other in usage.others for each in _flat(*other))]


def work_of(emission: Emission, compiler: str) -> Work | None:
    """What the layer runs; `compiler` is "clang" or "gcc". None where a kernel has no row in USAGE.

    A feature that was not measured counts as nothing.
    """
    usages = usage_of(emission)
    if usages is None:
        return None
    measured = load_costs().get(compiler, {})
    total = NOTHING
    for kernel, usage in usages:
        total += usage.assembly
        for feature, times in usage.features.items():
            total += Work(measured.get(kernel, {}).get(feature, {})) * times
    return total
