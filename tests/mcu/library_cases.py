"""What the tests of the generated library share: graphs of one structure, C that calls it, the core."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen import GeneratedModel, generate
from edgekd.mcu.elf import read_elf
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import linker_script
from edgekd.mcu.library import Library
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.resources import resource_dir
from tests.graphs import Builder
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import write

Array = npt.NDArray[Any]

MAIN = """
#include "board.h"
#include "semihosting.h"
#include <stdint.h>
{includes}

int main(void) {{
  const int32_t samples = semihosting_open("samples.bin", SEMIHOSTING_READ);
  const int32_t outputs = semihosting_open("outputs.bin", SEMIHOSTING_WRITE);
  const int32_t ticks = semihosting_open("ticks.bin", SEMIHOSTING_WRITE);
  static uint8_t given[{given}];
  static uint8_t answer[{answer}];
  const uint32_t spent = 0;

  while (semihosting_read(samples, given, sizeof given) == 0) {{
    {body}
    (void)semihosting_write(outputs, answer, sizeof answer);
    (void)semihosting_write(ticks, &spent, sizeof spent);
  }}
  semihosting_close(ticks);
  semihosting_close(outputs);
  semihosting_close(samples);
  return 0;
}}
"""


def library(graph: QGraph, family: str = "portable", **options: Any) -> GeneratedModel:
    return generate(graph, family, Options(library=Library(**options)))


def every_op(rng: np.random.Generator) -> QGraph:
    """Every kernel once; the same structure and edges for each `rng`."""
    b = Builder(rng, "every op")
    x = b.input((1, 8, 8, 3), scale=0.02, zero_point=5)
    y = b.depthwise(b.conv(x, 8, stride=(2, 2)), activation="RELU")
    z = b.conv(y, 8, (1, 1), per_channel=False)
    y = b.binary("MUL", b.binary("SUB", y, z), b.unary("LOGISTIC", y))
    y = b.binary(
        "ADD", y, b.constant(b.rng.integers(-128, 128, (8,)).astype(np.int8), np.array([b.scale()]), 9)
    )
    y = b.concatenate([y, b.pool(y, "MAX_POOL_2D", (3, 3), stride=(1, 1), padding="SAME")])
    y = b.pool(b.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    u = b.quantize(b.mean(y), "uint8", scale=0.03, zero_point=100)
    return b.graph(b.softmax(b.dense(b.quantize(u), 5)), u)


def load(folders: Sequence[Path], compiler: Compiler, out: Path) -> ctypes.CDLL:
    """The C of several generated directories as one library of this machine; kernels once."""
    compiler.compile_host_shared(sources_of(folders), folders, out)
    return ctypes.CDLL(str(out))


def sources_of(folders: Sequence[Path]) -> list[Path]:
    """Their C and assembly; what several hold, once."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in (*sorted(folder.glob("*.c")), *sorted(folder.glob("*.S"))):
            same = found.setdefault(path.name, path)
            assert same.read_text() == path.read_text(), f"{path.name} differs between two models"
    return list(found.values())


def run_on_core(
    folders: Sequence[Path],
    includes: str,
    body: str,
    given: Array,
    answer: int,
    compiler: Compiler,
    work: Path,
) -> Array:
    """`body` on the emulated core for each row of `given` (uint8 [N, bytes]), with the memory watch on.

    The body reads `given` and writes `answer` bytes into `answer`. Returns them, uint8 [N, answer].
    """
    work.mkdir(parents=True, exist_ok=True)
    target = mcu_target(stack_bytes=2048)
    assert target.core is not None and target.memory is not None
    boards = resource_dir("firmware_stubs") / "boards"
    memory, script = target.memory, work / "link.ld"
    template = (boards / "cortex-m/link.ld.in").read_text()
    script.write_text(linker_script(template, memory, memory.flash_bytes, memory.ram_bytes))
    main = work / "main.c"
    main.write_text(MAIN.format(includes=includes, body=body, given=given.shape[1], answer=answer))
    harness = [path for path in (boards / "cortex-m").glob("*.c") if path.name != "main.c"]
    sources = [*sources_of(folders), *sorted(harness), boards / "mps2-an386/board.c", main]
    compiler.compile_core(target.core, sources, list(folders), script, work / "firmware.elf")
    assert read_elf(work / "firmware.elf").function("main")
    layers = folders[0] / "layers.json"
    result = run_image(work / "firmware.elf", layers, target, given, counted=0, watched=len(given))
    return result.outputs


def folder_of(model: GeneratedModel, path: Path) -> Path:
    return write(model, path)
