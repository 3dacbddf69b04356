"""Generated C on this machine: compiled into a shared library, called through ctypes, many samples a call."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError
from edgekd.mcu.codegen_prefix import PLAIN, adapter
from edgekd.mcu.firmware import model_header
from edgekd.mcu.toolchain import Compiler

Bytes = npt.NDArray[np.int8] | npt.NDArray[np.uint8]

# Runs many samples in one call. Inputs and outputs of a sample follow each other, in the order of model.h.
_RUNNER = """/* SPDX-License-Identifier: 0BSD */
{include}
#include <string.h>

static const long input_bytes[] = {{{inputs}}};
static const long output_bytes[] = {{{outputs}}};

long host_input_bytes(void);
long host_output_bytes(void);
void host_run(const unsigned char *x, unsigned char *y, long samples);

long host_input_bytes(void) {{ return MODEL_INPUT_BYTES; }}
long host_output_bytes(void) {{ return MODEL_OUTPUT_BYTES; }}

void host_run(const unsigned char *x, unsigned char *y, long samples)
{{
    model_t model;

    memset(&model, 0, sizeof model);
    model_init(&model);
    for (; samples > 0; samples--) {{
        for (int i = 0; i < MODEL_INPUT_COUNT; i++) {{
            memcpy(model_input(&model, i), x, (size_t)input_bytes[i]);
            x += input_bytes[i];
        }}
        model_invoke(&model);
        for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {{
            memcpy(y, model_output(&model, i), (size_t)output_bytes[i]);
            y += output_bytes[i];
        }}
    }}
}}
"""


class HostModel:
    """The generated directory built for the host. Calls from several threads are allowed."""

    def __init__(self, directory: Path, compiler: Compiler, work: Path) -> None:
        """Compile `directory` (model.h and all its *.c) into `work`, which is made when missing.

        Raises ArtifactError where the directory holds no generated C or it does not compile.
        """
        header = model_header(directory)
        if header is None:
            raise ArtifactError(
                f"{directory.name} holds no generated C (model.h is missing); generate it again"
            )
        work.mkdir(parents=True, exist_ok=True)
        runner, library = work / "host_run.c", work / "host_model.so"
        runner.write_text(_runner(header), encoding="utf-8")
        compiler.compile_host_shared([*sorted(directory.glob("*.c")), runner], [directory], library)
        self._library = ctypes.CDLL(str(library))
        self._library.host_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
        self._library.host_run.restype = None
        for name in ("host_input_bytes", "host_output_bytes"):
            getattr(self._library, name).restype = ctypes.c_long
        self.input_bytes = int(self._library.host_input_bytes())
        self.output_bytes = int(self._library.host_output_bytes())

    def run(self, x: Bytes) -> npt.NDArray[np.int8]:
        """x: int8 or uint8 [N, input_bytes] -> int8 [N, output_bytes] (view it as uint8 where the model is).

        Raises ArtifactError for another shape or dtype.
        """
        if x.ndim != 2 or x.shape[1] != self.input_bytes or x.dtype not in (np.int8, np.uint8):
            raise ArtifactError(
                f"the generated C takes int8 or uint8 [N, {self.input_bytes}], not {x.dtype} {list(x.shape)}"
            )
        given = np.ascontiguousarray(x)
        result = np.empty((len(given), self.output_bytes), np.int8)
        self._library.host_run(given.ctypes.data, result.ctypes.data, len(given))
        return result


def _runner(model_h: Path) -> str:
    """host_run.c for the edges that `model_h` names."""
    text, prefix = model_h.read_text(encoding="utf-8"), model_h.stem.upper()
    sides = {}
    for side in ("INPUT", "OUTPUT"):
        numbers = re.findall(rf"^#define {prefix}_{side}(\d+)_BYTES ", text, re.MULTILINE)
        sides[side] = ", ".join(f"MODEL_{side}{number}_BYTES" for number in numbers)
    include = '#include "model.h"\n' if model_h.stem == PLAIN else adapter(text, model_h.stem)
    return _RUNNER.format(include=include, inputs=sides["INPUT"], outputs=sides["OUTPUT"])
