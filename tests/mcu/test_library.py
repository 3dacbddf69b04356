"""The generated library around the network: names, labels, profile, self-test, prefix, weights' header."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kernel_sizes import compile_object
from benchmarks.object_files import pieces
from edgekd import __version__
from edgekd.errors import ConfigError
from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.codegen_selftest import vector_inputs
from edgekd.mcu.codegen_text import quoted
from edgekd.mcu.codegen_weights import FORMAT, HEADER_BYTES, MAGIC, model_digest
from edgekd.mcu.elf import read_elf
from edgekd.mcu.firmware import build_image, refuse_sources
from edgekd.mcu.host import HostModel
from edgekd.mcu.library import Library
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from tests.graphs import conv_graph, dense_graph, inputs_for, small_net
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import pack, write
from tests.mcu.library_cases import every_op, folder_of, library, load, run_on_core
from tests.mcu.test_codegen import STRICT

HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
VARIANTS = ({}, {"prefix": "wake_word", "is_updatable": True})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def graph() -> QGraph:
    return every_op(rng(3))


class Loaded:
    """A generated library on this machine and one instance of it."""

    def __init__(self, folder: Path, compiler: Compiler, prefix: str = "model", state_bytes: int = 1 << 16):
        self.c = load([folder], compiler, folder / "library.so")
        self.prefix = prefix
        for name in ("label", "layer_name"):
            self.function(name).restype = ctypes.c_char_p
        for name in ("input", "output"):
            self.function(name).restype = ctypes.c_void_p
        self.state = ctypes.create_string_buffer(state_bytes + 8)
        self.model = ctypes.c_void_p(ctypes.addressof(self.state) + -ctypes.addressof(self.state) % 8)
        self.function("init")(self.model)

    def function(self, name: str) -> ctypes._NamedFuncPointer:
        found: ctypes._NamedFuncPointer = getattr(self.c, f"{self.prefix}_{name}")  # the same at every call
        return found

    def outputs(self, graph: QGraph, invoke: str = "invoke", *arguments: object) -> bytes:
        self.set_inputs(graph)
        self.function(invoke)(self.model, *arguments)
        return self.read(graph)

    def set_inputs(self, graph: QGraph, number: int = 0) -> None:
        for index, values in enumerate(vector_inputs(graph, number)):
            ctypes.memmove(self.function("input")(self.model, index), values.tobytes(), values.nbytes)

    def read(self, graph: QGraph) -> bytes:
        parts = [
            (self.function("output")(self.model, i), graph.tensors[t].nbytes)
            for i, t in enumerate(graph.outputs)
        ]
        return b"".join(ctypes.string_at(address, size) for address, size in parts)


def expected(graph: QGraph, number: int = 0) -> bytes:
    return b"".join(y.tobytes() for y in reference.run(graph, vector_inputs(graph, number)))


# ---- names and facts ----


def test_the_header_says_what_it_is_of(graph: QGraph) -> None:
    model = library(graph, labels=("a", "b"), selftest_vectors=2)
    macros = dict(re.findall(r"#define (MODEL_\w+) ([^/\n]+?)(?: /\*.*)?\n", model.files["model.h"]))
    assert macros["MODEL_EDGEKD_VERSION"] == f'"{__version__}"'
    assert macros["MODEL_DIGEST"] == f'"{model_digest(graph).hex()[:16]}"'
    assert (macros["MODEL_LABEL_COUNT"], macros["MODEL_SELFTEST_COUNT"]) == ("2", "2")
    assert int(macros["MODEL_LAYER_COUNT"]) == len(model.layers)
    assert int(macros["MODEL_MACS"]) == sum(layer.macs for layer in model.layers)
    assert int(macros["MODEL_WEIGHTS_BYTES"]) == len(model.weights.blob) == model.weights.bytes
    assert (macros["MODEL_INPUT0_SHAPE"], macros["MODEL_INPUT0_RANK"]) == ("1, 8, 8, 3", "4")
    assert (macros["MODEL_INPUT0_TYPE"], macros["MODEL_OUTPUT1_TYPE"]) == ("int8_t", "uint8_t")


def test_the_digest_is_of_everything_but_names(graph: QGraph) -> None:
    renamed = QGraph("other", graph.tensors, graph.ops, graph.inputs, graph.outputs)
    assert model_digest(renamed) == model_digest(graph) != model_digest(every_op(rng(4)))


def test_labels_and_layers_have_names(graph: QGraph, clang: Compiler, tmp_path: Path) -> None:
    labels = ("yes", 'a "quoted" \\ one', "größer??/", "")
    model = library(graph, labels=labels)
    loaded = Loaded(folder_of(model, tmp_path / "c"), clang)
    found = [loaded.function("label")(i) for i in range(-1, 5)]
    assert found == [None, *(label.encode() for label in labels), None]
    names = [loaded.function("layer_name")(i) for i in range(-1, len(model.layers) + 1)]
    assert names == [None, *(layer.name.encode() for layer in model.layers), None]
    without = Loaded(folder_of(library(graph), tmp_path / "none"), clang)
    assert without.function("label")(0) is None


def test_strings_are_ascii_and_end_where_they_should() -> None:
    assert quoted('a"\\?é\n') == '"a\\042\\134\\077\\303\\251\\012"'


# ---- profile ----


def test_the_profile_calls_before_and_behind_each_layer(
    graph: QGraph, clang: Compiler, tmp_path: Path
) -> None:
    model = library(graph)
    loaded = Loaded(folder_of(model, tmp_path / "c"), clang)
    calls: list[tuple[int, int]] = []
    seen = HOOK(lambda context, layer, ended: calls.append((layer, ended)))
    assert loaded.outputs(graph, "profile", seen, None) == expected(graph) == loaded.outputs(graph)
    assert calls == [(layer, ended) for layer in range(len(model.layers)) for ended in (0, 1)]


PROFILE = """
static model_t model;
static int called;
static void seen(void *context, int layer, int ended) {
  uint8_t *to = (uint8_t *)context;
  to[called++] = (uint8_t)(2 * layer + ended);
}
"""


@pytest.mark.needs("unicorn", "gcc-arm")
def test_the_profile_on_the_core(gcc: Compiler, tmp_path: Path) -> None:
    net = small_net(rng(1))
    model = library(net, "dsp")
    fill = "for (int i = 0; i < MODEL_INPUT0_BYTES; i++) ((uint8_t *)model_input(&model, 0))[i] = given[i]; "
    body = (
        f"called = 0; model_init(&model); {fill} model_invoke(&model); "
        f"{fill} model_profile(&model, seen, answer); "
        "answer[63] = (uint8_t)called; "
        "for (int i = 0; i < 10; i++) answer[40 + i] = ((const uint8_t *)model_output(&model, 0))[i];"
    )
    given = pack(inputs_for(net, rng(2), 2))
    folder = folder_of(model, tmp_path / "c")
    includes = '#include "model.h"\n' + PROFILE
    found = run_on_core([folder], includes, body, given, 64, gcc, tmp_path / "core")
    calls = 2 * len(model.layers)
    assert found[:, 63].tolist() == [calls] * 2
    assert found[:, :calls].tolist() == [list(range(calls))] * 2
    assert (
        found[:, 40:50].tobytes()
        == pack(reference.run(net, [given.view(np.int8).reshape(-1, 8, 8, 1)])).tobytes()
    )


# ---- self-test ----


@pytest.mark.parametrize("options", VARIANTS)
def test_the_selftest_passes_and_finds_a_planted_fault(
    options: dict[str, bool | str], clang: Compiler, tmp_path: Path
) -> None:
    model = library(small_net(rng(1)), "dsp", selftest_vectors=3, **options)
    prefix = model.library.prefix
    loaded = Loaded(folder_of(model, tmp_path / "good"), clang, prefix)
    assert loaded.function("selftest")(loaded.model) == 0
    flipped, files = with_signs_flipped(model), dict(model.files)
    for path, checksum, answers in (("damaged", False, (-1,)), ("wrong", True, (1, 2, 3))):
        source = model.files[f"{prefix}_weights.c"]
        files[f"{prefix}_weights.c"] = with_blob(source, flipped, prefix, checksum)
        broken = Loaded(write(replace(model, files=files), tmp_path / path), clang, prefix)
        assert broken.function("selftest")(broken.model) in answers
        assert broken.function("weights_check")(broken.model) == (0 if checksum else 5)


def with_signs_flipped(model: GeneratedModel) -> bytes:
    """The blob with the signs of all bytes of its first filter turned: enough to be seen at the outputs."""
    at, blob = HEADER_BYTES, bytearray(model.weights.blob)
    for array in model.weights.arrays:
        if array.name.endswith("_filter"):
            blob[at : at + array.values.nbytes] = (
                byte ^ 0x80 for byte in blob[at : at + array.values.nbytes]
            )
            return bytes(blob)
        at += -(-array.values.nbytes // 4) * 4
    raise AssertionError("no filter among the weights")


def with_blob(source: str, blob: bytes, prefix: str, with_checksum: bool) -> str:
    """model_weights.c whose arrays hold other bytes, with the checksum that they have or the one before."""
    declared = source.split("_PLACE = {")[0]
    if with_checksum:
        blob = blob[:12] + struct.pack("<I", zlib.crc32(blob[16:])) + blob[16:]
    words = ", ".join(f"0x{word:08x}u" for (word,) in struct.iter_unpack("<I", blob))
    return declared.replace(
        f"const {prefix}_weights_t {prefix}_weights {prefix.upper()}_WEIGHTS",
        f'extern const uint32_t replaced[{len(blob) // 4}] __asm__("{prefix}_weights");\n'
        f"const uint32_t replaced[{len(blob) // 4}] = {{{words}}};\n",
    )


@pytest.mark.needs("unicorn", "gcc-arm")
@pytest.mark.parametrize("options", ({}, {"is_updatable": True}))
def test_the_selftest_on_the_core(options: dict[str, bool], gcc: Compiler, tmp_path: Path) -> None:
    model = library(small_net(rng(1)), "dsp", selftest_vectors=4, **options)
    body = (
        "model_init(&model); answer[0] = (uint8_t)model_selftest(&model); "
        "answer[1] = (uint8_t)model_weights_check(&model);"
    )
    folder = folder_of(model, tmp_path / "c")
    includes = '#include "model.h"\nstatic model_t model;'
    found = run_on_core([folder], includes, body, np.zeros((1, 4), np.uint8), 4, gcc, tmp_path / "core")
    assert found[0, :2].tolist() == [0, 0]


# ---- several models in one image ----


def test_two_models_in_one_image(clang: Compiler, tmp_path: Path) -> None:
    """Two instances of one and one of another, their calls interleaved."""
    a, b = small_net(rng(1)), every_op(rng(2))
    folders = [
        folder_of(library(graph, "dsp", prefix=prefix, selftest_vectors=1), tmp_path / prefix)
        for graph, prefix in ((a, "first"), (b, "second_one"))
    ]
    c = load(folders, clang, tmp_path / "both.so")
    loaded = [Loaded.__new__(Loaded) for _ in range(3)]
    for instance, prefix in zip(loaded, ("first", "second_one", "first"), strict=True):
        instance.c, instance.prefix, instance.state = c, prefix, ctypes.create_string_buffer(1 << 16)
        instance.model = ctypes.c_void_p(
            ctypes.addressof(instance.state) + -ctypes.addressof(instance.state) % 8
        )
        instance.function("input").restype = instance.function("output").restype = ctypes.c_void_p
        instance.function("init")(instance.model)
    for number, (instance, graph) in enumerate(zip(loaded, (a, b, a), strict=True)):
        instance.set_inputs(graph, number)
    for instance in loaded:
        instance.function("invoke")(instance.model)
    for number, (instance, graph) in enumerate(zip(loaded, (a, b, a), strict=True)):
        assert instance.read(graph) == expected(graph, number)
        assert instance.function("selftest")(instance.model) == 0


@pytest.mark.needs("unicorn")
def test_two_models_on_the_core(compiler: Compiler, tmp_path: Path) -> None:
    a, b = small_net(rng(1)), small_net(rng(2))
    folders = [
        folder_of(library(graph, "dsp", prefix=prefix), tmp_path / prefix)
        for graph, prefix in ((a, "kws"), (b, "vad"))
    ]
    given = pack(inputs_for(a, rng(3), 3))
    includes = '#include "kws.h"\n#include "vad.h"\nstatic kws_t kws;\nstatic vad_t vad;'
    body = (
        "kws_init(&kws); vad_init(&vad); "
        "for (int i = 0; i < 64; i++) { ((uint8_t *)kws_input(&kws, 0))[i] = given[i]; "
        "((uint8_t *)vad_input(&vad, 0))[i] = given[i]; } kws_invoke(&kws); vad_invoke(&vad); "
        "for (int i = 0; i < 10; i++) { answer[i] = ((const uint8_t *)kws_output(&kws, 0))[i]; "
        "answer[10 + i] = ((const uint8_t *)vad_output(&vad, 0))[i]; }"
    )
    found = run_on_core(folders, includes, body, given, 20, compiler, tmp_path / "core")
    x = [given.view(np.int8).reshape(-1, 8, 8, 1)]
    assert found.tobytes() == np.concatenate([pack(reference.run(g, x)) for g in (a, b)], axis=1).tobytes()


def test_nothing_global_is_left_under_the_plain_name(graph: QGraph, clang: Compiler, tmp_path: Path) -> None:
    model = library(graph, "dsp", prefix="kws", selftest_vectors=1, labels=("model_init",))
    own = [name for name in model.files if not name.startswith("k_") and name != "layers.json"]
    assert all(name.startswith("kws") for name in own)
    for name in own:
        code = re.sub(r'/\*.*?\*/|"[^"]*"', "", model.files[name], flags=re.S)
        assert not re.search(r"\b(model|MODEL)_\w+", code), name
    assert '"model_init"' in model.files["kws_info.c"]
    plain = library(graph, "dsp", selftest_vectors=1)
    kernels = {name for name in plain.files if name.startswith("k_")}
    assert all(plain.files[name] == model.files[name] for name in kernels)


@pytest.mark.needs("unicorn")
def test_a_prefixed_model_builds_and_runs_in_the_harness(clang: Compiler, tmp_path: Path) -> None:
    from edgekd.mcu.emulator import run_image

    net = small_net(rng(1))
    inputs = inputs_for(net, rng(2), 3)
    folder = folder_of(library(net, "dsp", prefix="kws"), tmp_path / "c")
    assert np.array_equal(
        HostModel(folder, clang, tmp_path / "host").run(pack(inputs)).view(np.uint8),
        pack(reference.run(net, inputs)),
    )
    build_image(folder, mcu_target(), clang, tmp_path / "image")
    elf = tmp_path / "image/firmware.elf"
    result = run_image(elf, folder / "layers.json", mcu_target(), pack(inputs), counted=1, watched=1)
    assert result.outputs.tobytes() == pack(reference.run(net, inputs)).tobytes()
    assert len(result.by_layer) == 8


@pytest.mark.parametrize("prefix", ["", "Kws", "1st", "a-b", "k", "k_conv", "a__b", "_a", "a_"])
def test_a_prefix_that_is_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix is"):
        Library(prefix=prefix)


@pytest.mark.parametrize("count", [-1, 17])
def test_too_many_vectors_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"selftest_vectors is {count}"):
        Library(selftest_vectors=count)


# ---- the weights' header ----


@pytest.mark.parametrize("options", VARIANTS)
def test_the_blob_lies_in_its_section(
    options: dict[str, bool | str], clang: Compiler, tmp_path: Path
) -> None:
    model = library(dense_graph(rng()), "dsp", **options)
    folder = write(model, tmp_path / "c")
    build_image(folder, mcu_target(), clang, tmp_path / "image")
    image = read_elf(tmp_path / "image/firmware.elf")
    section = image.sections[".model_weights"]
    assert section.data[: model.weights.bytes] == model.weights.blob
    magic, form, header_bytes, total, checksum = struct.unpack_from("<4sHHII", section.data)
    assert (magic, form, header_bytes, total) == (b"EDKW", 1, HEADER_BYTES, model.weights.bytes)
    assert checksum == zlib.crc32(model.weights.blob[16:])
    assert model.weights.blob[24:32] == model_digest(dense_graph(rng()))[:8]


def test_the_manual_has_the_blobs_format() -> None:
    text = (
        (Path(__file__).parents[2] / "docs/generated-c.md")
        .read_text("utf-8")
        .split("## The weights' blob")[1]
    )
    rows = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+) \| (\d+) \|", text, re.M)]
    assert [offset for offset, _ in rows] == [sum(size for _, size in rows[:i]) for i in range(len(rows))]
    assert sum(size for _, size in rows) == HEADER_BYTES == struct.calcsize("<4sHHII8s8s")
    assert f"`{MAGIC.decode()}`" in text and f"| format: {FORMAT} |" in text


def test_weights_beyond_flash_are_refused_before_compiling(tmp_path: Path) -> None:
    from edgekd.errors import BudgetError

    folder = write(library(conv_graph(rng())), tmp_path / "c")
    memory = mcu_target(flash_bytes=64).memory
    assert memory is not None
    with pytest.raises(BudgetError, match="for the weights alone"):
        refuse_sources(folder, memory)


# ---- what the C promises ----


@pytest.mark.needs("gcc", "gcc-arm")
@pytest.mark.parametrize("options", VARIANTS)
def test_compiles_strictly_as_c99_and_the_headers_as_cpp17(
    options: dict[str, bool | str], graph: QGraph, tmp_path: Path
) -> None:
    model = library(graph, "dsp", selftest_vectors=2, labels=("x",), **options)
    folder, prefix = write(model, tmp_path), model.library.prefix
    for compiler in (["arm-none-eabi-gcc", "-mcpu=cortex-m4"], ["gcc"]):
        sources = sorted(path.name for path in folder.glob("*.c"))
        line = [*compiler, "-std=c99", *STRICT, "-Wstrict-prototypes", "-O2", "-fsyntax-only", *sources]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    (folder / "use.cc").write_text(
        f'#include "{prefix}.h"\n#include "k_weights.h"\nstatic {prefix}_t model;\n'
        f"int use() {{ {prefix}_init(&model); return {prefix}_selftest(&model); }}\n"
    )
    line = ["g++", "-std=c++17", *STRICT, "-fsyntax-only", "use.cc"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", VARIANTS[1:])
def test_clang_compiles_it_strictly(
    options: dict[str, bool | str], graph: QGraph, clang: Compiler, tmp_path: Path
) -> None:
    folder = write(library(graph, "dsp", selftest_vectors=2, labels=("x",), **options), tmp_path / "c")
    clang.compile_host_shared(
        sorted(folder.glob("*.c")), [folder], tmp_path / "x.so", (*STRICT, "-Wstrict-prototypes")
    )


@pytest.mark.needs("gcc", "gcc-arm")
@pytest.mark.parametrize("options", ({}, {"is_updatable": True}))
def test_objects_need_no_library_no_float_and_do_not_recurse(
    options: dict[str, bool], graph: QGraph, gcc: Compiler, tmp_path: Path
) -> None:
    folder = write(library(graph, "dsp", selftest_vectors=1, labels=("x",), **options), tmp_path / "c")
    calls: dict[str, set[str]] = {}
    for source in (*sorted(folder.glob("*.c")), *sorted(folder.glob("*.S"))):
        for piece in pieces(compile_object(gcc, source, folder, tmp_path / f"{source.stem}.o")):
            key = piece.name if piece.name in own_names(folder) else f"{source.stem}:{piece.name}"
            calls[key] = {use if use in own_names(folder) else f"{source.stem}:{use}" for use in piece.uses}
    outside = {
        use.split(":")[1] for uses in calls.values() for use in uses if ":" in use and use not in calls
    }
    libraries = {name for name in outside if not name.startswith((".", "$", "*")) and name not in calls}
    assert {name for name in libraries if not name.startswith("__aeabi_")} <= {
        "memcpy", "memset", "model_weights",
    }  # fmt: skip
    assert not {name for name in libraries if re.match(r"__aeabi_(mem)?[fd](?!iv)|__aeabi_\w+2[fd]$", name)}
    assert cycle(calls) is None


def own_names(folder: Path) -> set[str]:
    """What the sources define under a name that the linker sees."""
    text = "".join(path.read_text() for path in sorted(folder.glob("*.c")) + sorted(folder.glob("*.S")))
    return set(re.findall(r"^(?!static)[\w *]+?\b((?:k|model)_\w+)\([^;{]*?\)\n\{", text, re.M)) | set(
        re.findall(r"\.global (\w+)", text)
    )


def cycle(calls: dict[str, set[str]]) -> str | None:
    """A function that reaches itself, or None."""
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> str | None:
        if name in above:
            return name
        if name in done:
            return None
        done.add(name)
        found = (visit(use, (*above, name)) for use in calls.get(name, ()))
        return next((each for each in found if each), None)

    return next((found for name in list(calls) if (found := visit(name, ()))), None)
