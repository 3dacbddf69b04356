"""model_selftest.c: golden vectors that take four bytes each.

A vector's input bytes come from a small generator (the same here and in C) that the vector's number starts;
of its outputs the CRC-32 is kept, as the integer reference gives them. Vectors with an even number are noise
over all values; in the others a value is held for 32 bytes on average: neighbours in images are alike.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.mcu.codegen_text import LICENSE, Array
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run

EXPECTED = "model_weights_selftest"  # its name among the weights, where those can be replaced
SEED = 0x9E3779B9
HELD_MASK = 31

_SOURCE = """
/* Golden vectors: see model.h. A linker leaves them out where model_selftest is not called. */
#include "model.h"
#include "model_weights.h"

/* xorshift32; the next value is taken where `mask` lets it, else the last one is held. */
static uint32_t fill(uint32_t state, uint32_t mask, uint8_t *to, int32_t bytes)
{{
    uint8_t value = 0;

    for (int32_t i = 0; i < bytes; i++) {{
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if (i == 0 || (state & mask) == 0u) {{
            value = (uint8_t)(state >> 24);
        }}
        to[i] = value;
    }}
    return state;
}}

static uint32_t run(model_t *model, int vector)
{{
    static const int32_t input_bytes[] = {{{inputs}}};
    static const uint32_t output_bytes[] = {{{outputs}}};
    uint32_t mask = (vector & 1) != 0 ? {mask}u : 0u;
    uint32_t state = {seed:#010x}u * ((uint32_t)vector + 1u);
    uint32_t crc = 0;

    for (int i = 0; i < MODEL_INPUT_COUNT; i++) {{
        state = fill(state, mask, (uint8_t *)model_input(model, i), input_bytes[i]);
    }}
    model_invoke(model);
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {{
        crc = k_weights_crc32(crc, (const uint8_t *)model_output(model, i), output_bytes[i]);
    }}
    return crc;
}}

int model_selftest(model_t *model)
{{
{expected}
    if (model_weights_check(model) != MODEL_WEIGHTS_SOUND) {{
        return -1;
    }}
    for (int vector = 0; vector < MODEL_SELFTEST_COUNT; vector++) {{
        if (run(model, vector) != (uint32_t)expected[vector]) {{
            return vector + 1;
        }}
    }}
    return 0;
}}
"""


def selftest_source(graph: QGraph, expected: Array | None) -> str:
    """The text of model_selftest.c. expected: the outputs' checksums; None where they lie in the weights."""
    if expected is not None:
        table = Array("expected", expected.values).definition("    static ").replace("\n}", "\n    }")
    else:
        table = (
            "    const model_weights_t *weights = model->held.weights;\n"
            f"    const int32_t *expected = {EXPECTED};\n"
        )
    sides = {"inputs": graph.inputs, "outputs": graph.outputs}
    sizes = {name: ", ".join(str(graph.tensors[i].nbytes) for i in side) for name, side in sides.items()}
    return LICENSE + _SOURCE.format(**sizes, mask=HELD_MASK, seed=SEED, expected=table)


def expected_checksums(graph: QGraph, vectors: int) -> Array:
    """int32 [vectors]: the CRC-32 of the reference's output bytes, outputs in order, of each vector."""
    inputs = [vector_inputs(graph, number) for number in range(vectors)]
    outputs = run(graph, [np.concatenate(arrays) for arrays in zip(*inputs, strict=True)])
    found = [zlib.crc32(b"".join(y[number].tobytes() for y in outputs)) for number in range(vectors)]
    return Array(EXPECTED, np.array(found, np.uint32).view(np.int32))


def vector_inputs(graph: QGraph, number: int) -> list[npt.NDArray[Any]]:
    """The inputs of vector `number`, [1, ...] each, as model_selftest makes them."""
    state, mask = SEED * (number + 1) & 0xFFFFFFFF, HELD_MASK if number % 2 else 0
    found = []
    for index in graph.inputs:
        tensor = graph.tensors[index]
        data, value = bytearray(tensor.nbytes), 0
        for i in range(tensor.nbytes):
            state ^= state << 13 & 0xFFFFFFFF
            state ^= state >> 17
            state ^= state << 5 & 0xFFFFFFFF
            if i == 0 or not state & mask:
                value = state >> 24
            data[i] = value
        found.append(np.frombuffer(bytes(data), tensor.dtype).reshape(tensor.shape))
    return found
