"""Between inferences an instance's bytes are the application's: whatever it leaves there, outputs stay."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.codegen import generate
from edgekd.mcu.host import HostModel
from edgekd.mcu.library import Library
from edgekd.mcu.options import Options, Regions
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.reference import run
from tests.graphs import inputs_for, small_net
from tests.mcu.generated import pack, write

# As docs/memory-plan.md has it: the application's buffer and the model in one union.
SHARED = """
#include <string.h>
#include "model.h"

static union {
    model_t model;
    unsigned char own[sizeof(model_t)];
} ram;

void shared_run(const unsigned char *x, unsigned char *y, long samples);

void shared_run(const unsigned char *x, unsigned char *y, long samples)
{
    for (long i = 0; i < samples; i++) {
        memset(ram.own, (int)(0xa5 + 91 * i), sizeof ram.own);
        model_init(&ram.model);
        memcpy(model_input(&ram.model, 0), x + i * MODEL_INPUT0_BYTES, MODEL_INPUT0_BYTES);
        model_invoke(&ram.model);
        memcpy(y + i * MODEL_OUTPUT0_BYTES, model_output(&ram.model, 0), MODEL_OUTPUT0_BYTES);
    }
}
"""

BUILDS = {
    "speed": ("dsp", Options()),
    "updatable": ("portable", Options(library=Library(is_updatable=True))),
    "two RAMs": ("dsp", Options(regions=Regions(200, 1 << 16, ".slow_ram"))),
}


@pytest.mark.parametrize("build", BUILDS)
def test_the_application_may_use_the_arena_between_inferences(
    build: str, compiler: Compiler, tmp_path: Path
) -> None:
    family, options = BUILDS[build]
    graph = small_net(np.random.default_rng(0))
    folder = write(generate(graph, family, options), tmp_path / "c")
    (folder / "shared.c").write_text(SHARED)
    host = HostModel(folder, compiler, tmp_path / "work")
    inputs = inputs_for(graph, np.random.default_rng(1), 5)
    rows = np.ascontiguousarray(pack(inputs))
    found = np.empty((5, host.output_bytes), np.uint8)
    library = ctypes.CDLL(str(tmp_path / "work" / "host_model.so"))
    library.shared_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
    library.shared_run(rows.ctypes.data, found.ctypes.data, 5)
    np.testing.assert_array_equal(found, pack(run(graph, inputs)).view(np.uint8))
