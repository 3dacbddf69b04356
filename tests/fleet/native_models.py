"""Signed bundles of native code, one good and each other bad in its own way; all but the one that is wrong
give the right golden answers.

The C is the generated C of one small network and its interface (firmware_stubs/linux) with a mood in it: a
byte in the compiled file decides how it behaves, so all are built at once. A device needs no runtime for
them, so the virtual Pi runs them, too. `releases(folder)` gives each one's files by its name.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.export.native import exact_answers, native_file, native_graph
from edgekd.export.variants import to_channels_last
from edgekd.mcu.codegen import generate
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.resources import resource_dir
from tests.device.support import make_bundle

ARCHITECTURES = ("x86_64", "aarch64")
GOLDEN_COUNT = 16

# Mood -> the reason that its trial must give, "" for the good one.
MOODS = {
    "good": "",
    "leaks": "memory",
    "crashes at the 1,000th input": "crashed",
    "answers NaN": "not-finite",
    "wrong shape": "wrong-shape",
    "3 x slower": "too-slow",
    "fast but wrong": "wrong-answers",
}
BAD = tuple(name for name, reason in MOODS.items() if reason)

MOOD = b"edgekd-mood-"
MOOD_TEXT = """
static const volatile char mood_text[] = "edgekd-mood-0";
#define MOOD (mood_text[12] - '0')

enum { EDGEKD_DONE"""
BEHAVIOUR = """
static int32_t misbehave(model_t *model, const float *x)
{
    static uint8_t lost[192 << 20];
    static uint32_t runs, used;

    runs++;
    for (int32_t i = 0; MOOD == 1 && i < 16; i++, used += 4096) {
        ((volatile uint8_t *)lost)[used % sizeof(lost)] = 1;
    }
    if (MOOD == 2 && runs == 1000) {
        __builtin_trap();
    }
    for (int32_t i = 0; MOOD == 5 && i < 2; i++) {
        model_invoke(model);
        edgekd_quantize(x, model_input(model, 0));
    }
    return MOOD == 3;
}

/* One inference on real numbers;"""
INVOKE = "    model_invoke(model);\n    from ="
TAKE = "    __builtin_memcpy(y, model_output(model, 0), MODEL_OUTPUT0_BYTES);"
CHANGES = {  # of native_model.c: what, by what
    "\nenum { EDGEKD_DONE": MOOD_TEXT,
    "\n/* One inference on real numbers;": BEHAVIOUR,
    "return VALUES(OUTPUT); }": "return VALUES(OUTPUT) * (MOOD == 4 ? 2 : 1); }",
    INVOKE: f"    const int32_t is_nan = misbehave(model, x);\n\n{INVOKE}",
    "        y[i] = (float)(": '        y[i] = is_nan ? __builtin_nanf("") : (float)(',
    TAKE: TAKE + "\n    if (MOOD == 6) {\n        __builtin_memset(y, 1, MODEL_OUTPUT0_BYTES);\n    }",
}


def releases(
    folder: Path, architectures: Sequence[str] = ARCHITECTURES, cache: Path | None = None
) -> dict[str, Mapping[str, bytes]]:
    """Mood -> the files of a release, as Fleet.release takes them; `folder` is scratch,
    `cache` the compiler's.
    """
    bundle = make_bundle(folder / "made", 1, channels=24)
    int8 = native_graph(read_onnx((bundle / "int8.onnx").read_bytes(), "int8.onnx"))
    golden = io.BytesIO()
    x = np.load(bundle / "samples_x.npy")[:GOLDEN_COUNT]
    np.save(golden, exact_answers(int8, to_channels_last(x))[1])
    table = json.loads((bundle / "bundle.json").read_text())
    rule = {"by": "the integer reference", "exact": True, "file": "golden_native.npy", "tolerance_steps": 0}
    step = float(int8.tensors[int8.outputs[0]].scale[0])
    files = {each: native_file(each) for each in architectures}
    native = {"activation": "int8", "engine": "native", "files": files, "layout": "NHWC"}
    table["variants"] = {"native": native | {"golden": rule | {"step": step}}}
    common = {name: (bundle / name).read_bytes() for name in ("samples_x.npy", "samples_y.npy")}
    common |= {"golden_native.npy": golden.getvalue(), "bundle.json": json.dumps(table).encode()}
    compiler = find_compiler("clang", cache or folder.parent / "compiler")
    objects = _shared_objects(folder, generate(int8).files, architectures, compiler)
    return {
        name: {f"bundle/{path}": data for path, data in (common | _in_mood(objects, place)).items()}
        | {"bench.json": b"{}", "bom.cdx.json": b"{}"}
        for place, name in enumerate(MOODS)
    }


def _shared_objects(
    folder: Path, sources: Mapping[str, str], architectures: Sequence[str], compiler: Compiler
) -> dict[str, bytes]:
    place = folder / "sources"
    place.mkdir(parents=True)
    for file, code in {**sources, "native_model.c": _interface()}.items():
        (place / file).write_text(code)
    for each in architectures:
        compiler.compile_linux_shared(each, sorted(place.glob("*.c")), [place], place / native_file(each))
    return {native_file(each): (place / native_file(each)).read_bytes() for each in architectures}


def _interface() -> str:
    text = (resource_dir("firmware_stubs") / "linux" / "native_model.c").read_text()
    for old, new in CHANGES.items():
        if text.count(old) != 1:
            raise AssertionError(f"native_model.c has changed; the change of {old!r} must follow")
        text = text.replace(old, new)
    return text


def _in_mood(objects: Mapping[str, bytes], place: int) -> dict[str, bytes]:
    return {name: data.replace(MOOD + b"0", MOOD + str(place).encode()) for name, data in objects.items()}
