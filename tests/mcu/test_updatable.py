"""Updatable builds: one code for all models of a structure, and weights that can be replaced."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.codegen_weights import FIXED, HEADER_BYTES
from edgekd.mcu.library import Library
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.mcu.updates import replacement_blob
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph, Tensor
from tests.graphs import Builder, dense_graph, inputs_for, small_net
from tests.mcu.generated import pack
from tests.mcu.library_cases import every_op, folder_of, library, run_on_core
from tests.mcu.test_library import Loaded, expected, rng

UPDATABLE = Options(library=Library(is_updatable=True))
GRAPHS: dict[str, Callable[[np.random.Generator], QGraph]] = {"small": small_net, "every": every_op}


@pytest.mark.parametrize("family", ["portable", "dsp"])
@pytest.mark.parametrize("name", GRAPHS)
def test_one_code_for_all_weights(name: str, family: str) -> None:
    """Two models of one structure, every weight, scale and zero point inside another: the same text."""
    a, b = (library(GRAPHS[name](rng(seed)), family, is_updatable=True) for seed in (1, 2))
    assert a.weights.blob[HEADER_BYTES:] != b.weights.blob[HEADER_BYTES:]
    assert a.weights.layout == b.weights.layout != FIXED
    for file in a.files:
        if file not in ("model_weights.c", "model.h"):
            assert a.files[file] == b.files[file], file
    without_digest = [re.sub(r'MODEL_DIGEST ".*"', "", model.files["model.h"]) for model in (a, b)]
    assert without_digest[0] == without_digest[1]


def test_extreme_weights_change_no_code() -> None:
    """Dead channels, weights at their ends: what other builds make use of."""
    graph = small_net(rng(1))
    tensors = list(graph.tensors)
    for index, tensor in enumerate(tensors):
        if tensor.data is not None and tensor.dtype == "int8":
            data = np.full(tensor.shape, -128, np.int8)
            data[..., :2] = 0
            tensors[index] = replace(tensor, data=data)
    extreme = QGraph(graph.name, tuple(tensors), graph.ops, graph.inputs, graph.outputs)
    plain, other = (library(g, is_updatable=True) for g in (graph, extreme))
    assert plain.files["model.c"] == other.files["model.c"]
    assert library(graph, "dsp").files["model.c"] != library(extreme, "dsp").files["model.c"]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_replaced_blob_gives_the_other_models_bytes(name: str, clang: Compiler, tmp_path: Path) -> None:
    a, b = (GRAPHS[name](rng(seed)) for seed in (1, 2))
    loaded = Loaded(folder_of(library(a, is_updatable=True, selftest_vectors=2), tmp_path / "a"), clang)
    options = Options(library=Library(is_updatable=True, selftest_vectors=2))
    blob = Aligned(replacement_blob(a, b, "portable", options))
    assert loaded.outputs(a) == expected(a)
    assert set_weights(loaded, blob) == 0
    assert loaded.outputs(b) == expected(b) != expected(a)
    assert loaded.function("selftest")(loaded.model) == 0
    loaded.function("init")(loaded.model)
    assert loaded.outputs(a) == expected(a)


class Aligned:
    """Bytes at an address that is a multiple of 8."""

    def __init__(self, data: bytes) -> None:
        self.bytes = len(data)
        self.memory = ctypes.create_string_buffer(len(data) + 16)
        self.address = ctypes.addressof(self.memory) + -ctypes.addressof(self.memory) % 8
        ctypes.memmove(self.address, data, len(data))


def set_weights(loaded: Loaded, blob: Aligned, shift: int = 0) -> int:
    found = loaded.function("set_weights")(
        loaded.model, ctypes.c_void_p(blob.address + shift), ctypes.c_uint32(blob.bytes)
    )
    return int(found)


def with_checksum(blob: bytes) -> bytes:
    return blob[:12] + struct.pack("<I", zlib.crc32(blob[16:])) + blob[16:]


def test_a_blob_that_is_not_whole_is_refused_and_changes_nothing(clang: Compiler, tmp_path: Path) -> None:
    a, b = small_net(rng(1)), small_net(rng(2))
    loaded = Loaded(folder_of(library(a, is_updatable=True), tmp_path / "a"), clang)
    good = replacement_blob(a, b, "portable", UPDATABLE)
    other = library(dense_graph(rng()), is_updatable=True).weights.blob
    cases = [
        (with_checksum(b"XXXX" + good[4:]), 2),
        (with_checksum(good[:4] + b"\2\0" + good[6:]), 3),
        (good[:-4], 4),
        (good[:20], 4),
        (good[:40] + bytes([good[40] ^ 1]) + good[41:], 5),
        (good[:-1] + bytes([good[-1] ^ 1]), 5),
        (with_checksum(good[:16] + bytes([good[16] ^ 1]) + good[17:]), 6),
        (other, 6),
        (library(b).weights.blob, 6),
    ]
    for data, fault in cases:
        assert set_weights(loaded, Aligned(data)) == fault
    assert set_weights(loaded, Aligned(good), shift=2) == 1
    assert loaded.function("set_weights")(loaded.model, None, ctypes.c_uint32(len(good))) == 1
    assert loaded.outputs(a) == expected(a)


def test_other_builds_refuse_every_blob(clang: Compiler, tmp_path: Path) -> None:
    a = small_net(rng(1))
    model = library(a)
    loaded = Loaded(folder_of(model, tmp_path / "a"), clang)
    assert set_weights(loaded, Aligned(model.weights.blob)) == 7
    assert loaded.outputs(a) == expected(a)
    with pytest.raises(
        ConfigError, match=r"small_net is not built to have its weights replaced.*--updatable"
    ):
        replacement_blob(a, small_net(rng(2)), "portable", Options())


CORE = """
static model_t model;
static uint32_t blob[{words}] = {{{values}}};
"""


@pytest.mark.needs("unicorn")
def test_a_replaced_blob_on_the_core(compiler: Compiler, tmp_path: Path) -> None:
    """The first ten bytes are the built-in model's, the next ten the other's, from one image."""
    a, b = small_net(rng(1)), small_net(rng(2))
    data = replacement_blob(a, b, "dsp", UPDATABLE)
    values = ", ".join(f"0x{word:08x}u" for (word,) in struct.iter_unpack("<I", data))
    includes = '#include "model.h"\n' + CORE.format(words=len(data) // 4, values=values)
    run = (
        "for (int i = 0; i < 64; i++) ((uint8_t *)model_input(&model, 0))[i] = given[i]; "
        "model_invoke(&model); "
        "for (int i = 0; i < 10; i++) answer[{0} + i] = ((const uint8_t *)model_output(&model, 0))[i]; "
    )
    body = (
        f"model_init(&model); {run.format(0)} "
        f"answer[20] = (uint8_t)model_set_weights(&model, blob, sizeof blob); {run.format(10)}"
    )
    given = pack(inputs_for(a, rng(3), 2))
    folder = folder_of(library(a, "dsp", is_updatable=True), tmp_path / "c")
    found = run_on_core([folder], includes, body, given, 21, compiler, tmp_path / "core")
    x = [given.view(np.int8).reshape(-1, 8, 8, 1)]
    assert (
        found[:, :20].tobytes()
        == np.concatenate([pack(reference.run(g, x)) for g in (a, b)], axis=1).tobytes()
    )
    assert found[:, 20].tolist() == [0, 0]


SANITIZED = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"

int main(int count, char **names)
{{
    model_t *model = malloc(sizeof *model); /* so that the sanitizer sees the ends of both */
    void *blob = malloc({bytes});
    FILE *file = fopen(names[count - 1], "rb");
    int answer;

    if (file == 0 || fread(blob, {bytes}, 1, file) != 1) {{
        return 2;
    }}
    fclose(file);
    model_init(model);
    answer = model_selftest(model) == 0 &&
             model_set_weights(model, blob, {bytes} - 4) == MODEL_WEIGHTS_LENGTH &&
             model_set_weights(model, blob, {bytes}) == 0 && model_selftest(model) == 0;
    free(blob);
    free(model);
    return answer ? 0 : 1;
}}
"""


@pytest.mark.needs("gcc")
def test_replacing_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    a, b = every_op(rng(1)), every_op(rng(2))
    folder = folder_of(library(a, is_updatable=True, selftest_vectors=2), tmp_path / "c")
    options = Options(library=Library(is_updatable=True, selftest_vectors=2))
    blob = replacement_blob(a, b, "portable", options)
    (tmp_path / "blob.bin").write_bytes(blob)
    (folder / "main.c").write_text(SANITIZED.format(bytes=len(blob)))
    flags = [
        "-std=c99",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-I",
        str(folder),
    ]
    program = str(tmp_path / "program")
    subprocess.run(["gcc", *flags, *map(str, sorted(folder.glob("*.c"))), "-o", program], check=True)
    done = subprocess.run([program, str(tmp_path / "blob.bin")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:600]) == (0, "")


# ---- what cannot replace ----


def changed(graph: QGraph, index: int, **fields: object) -> QGraph:
    tensors: list[Tensor] = list(graph.tensors)
    tensors[index] = replace(tensors[index], **fields)  # type: ignore[arg-type]
    return QGraph("tuned", tuple(tensors), graph.ops, graph.inputs, graph.outputs)


def padded(width: int) -> QGraph:
    b = Builder(rng(1), "tuned")
    x = b.input((1, 4, 4, 2), scale=0.1, zero_point=0)
    return b.graph(b.pad(x, [[0, 0], [width, 3 - width], [0, 0], [0, 0]]))


def test_another_structure_is_refused_in_one_sentence() -> None:
    net = small_net(rng(1))
    dense = Builder(rng(1), "tuned")
    per_tensor = dense_graph(rng(), per_channel=False)
    cases: list[tuple[QGraph, QGraph, str]] = [
        (net, dense_graph(rng()), r"it has 1 ops and \d+ tensors, not 8 and \d+"),
        (
            dense_graph(rng()),
            dense_graph(rng(), channels=6),
            r"tensor \w+ has shape \(6, 19\), not \(7, 19\)",
        ),
        (
            dense_graph(rng(), per_channel=True),
            per_tensor,
            r"is a constant with 1 scales, not a constant with 7",
        ),
        (
            dense_graph(rng()),
            dense_graph(rng(), activation="RELU"),
            "is not the FULLY_CONNECTED with the same",
        ),
        (padded(1), padded(2), "which PAD takes its shape from, has other values"),
        (
            net,
            changed(net, net.inputs[0], zero_point=3),
            "an input or output, has scale 0.0625 and zero point 3, not",
        ),
    ]
    assert dense.ops == []
    for built, new, message in cases:
        with pytest.raises(
            ArtifactError, match=rf"^the weights of \w+ cannot replace those of \w+: .*{message}"
        ):
            replacement_blob(built, new, "portable", UPDATABLE)
