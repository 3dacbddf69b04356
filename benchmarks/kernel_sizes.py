"""What each kernel, the harness and the compilers' helpers take in flash and on the stack, as a table.

    python benchmarks/kernel_sizes.py [clang] [gcc]

writes edgekd/mcu/code_sizes.json, which `edgekd check` predicts with (edgekd/mcu/footprint.py). Each C
file is compiled as an image compiles it and its sections are read; nothing is linked but the helpers.
An entry carries the digest of its source: one whose source changed is no longer used, so run this again
after a change of a kernel, of the harness, or of the compilers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.object_files import Piece, pieces, pieces_of_image
from edgekd.mcu.elf import read_elf
from edgekd.mcu.footprint import BOARDS, TABLE, digest_of_source, harness_sources, kernel_folder, normal_leaf
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import CODE, CORE_CODE, Compiler, core_flags, find_compiler
from edgekd.target import Core

CORES = [Core(cpu, 100_000_000, True) for cpu in BOARDS]
STRUCT = re.compile(r"^(?:\}|typedef struct \w+) (k_\w+_t);", re.MULTILINE)
# So that the leaves of every form are measured.
FORMS = (
    Options(prefer=("pairs u48", "dense u64", "planes", "sum", "average")),
    Options(prefer=("pairs u32", "dense u16")),
    Options(prefer=("pairs u16", "dense u8")),
    Options(prefer=("pairs u8", "winograd"), winograd=True),
)
EDGES = range(1, 5)  # inputs and outputs of a model: the harness's loops depend on them
HELPER_SCRIPT = """ENTRY(entry)
MEMORY { FLASH (rx) : ORIGIN = 0x0, LENGTH = 0x100000 }
SECTIONS { .text : { *(.text .text.*) } > FLASH .rodata : { *(.rodata .rodata.*) } > FLASH }
"""


def compile_object(compiler: Compiler, source: Path, include: Path, out: Path, core: Core = CORES[0]) -> Path:
    """`source` as an object file, with the flags of an image."""
    flags = [*core_flags(core, compiler.kind), *CODE, *CORE_CODE, "-O2"]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "ZIG_GLOBAL_CACHE_DIR": str(compiler.cache / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(compiler.cache / "zig"),
    }
    search = ["-I", str(include), "-I", str(source.parent), "-I", str(harness_sources()[0].parent)]
    command = [*compiler.core_command, *flags, *search, "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True, env=environment, cwd=out.parent)
    return out


def table_of(compiler: Compiler, folder: Path, core: Core = CORES[0]) -> dict[str, Any]:
    """All entries of one compiler for one core."""
    sources: dict[str, Any] = {}
    for source in sorted(kernel_folder().glob("*.c")):
        found = pieces(compile_object(compiler, source, source.parent, folder / f"{source.stem}.o", core))
        sources[source.name] = {"digest": digest_of_source(source), "pieces": _rows(found)}
        print(compiler.kind, source.name, flush=True)
    harness = {}
    for inputs, outputs in product(EDGES, EDGES):
        harness[f"{inputs}x{outputs}"] = _rows(_harness(compiler, folder, core, inputs, outputs))
        print(compiler.kind, "harness", inputs, outputs, flush=True)
    rows = {"sources": sources, "harness": harness, "leaves": _leaves(compiler, folder, core)}
    digests = {source.name: digest_of_source(source) for source in harness_sources(core.cpu)}
    return {
        "kind": compiler.kind,
        **rows,
        "harness_digests": digests,
        "helpers": _helpers(compiler, folder, core, rows),
    }


def _harness(compiler: Compiler, folder: Path, core: Core, inputs: int, outputs: int) -> Iterator[Piece]:
    """Start-up, semihosting, main and board, for a model of so many inputs and outputs."""
    (folder / "model.h").write_text(_header(inputs, outputs), "utf-8")
    for source in harness_sources(core.cpu):
        if source.stem == "main" or (inputs, outputs) == (1, 1):
            compiled = compile_object(compiler, source, folder, folder / f"{source.stem}.o", core)
            for piece in pieces(compiled):
                own = piece.name.startswith(".rodata")  # strings: each file has a section of this name
                yield replace(piece, name=f"{piece.name}.{source.stem}") if own else piece


def _header(inputs: int, outputs: int) -> str:
    """A model.h of sizes that need the longest instructions: the table is an upper bound."""
    edges = [f"#define MODEL_INPUT{i}_BYTES 70{i}01" for i in range(inputs)]
    edges += [f"#define MODEL_OUTPUT{i}_BYTES 70{i}03" for i in range(outputs)]
    return "\n".join((
        "#include <stdint.h>",
        f"#define MODEL_INPUT_COUNT {inputs}",
        f"#define MODEL_OUTPUT_COUNT {outputs}",
        "#define MODEL_INPUT_BYTES 70001",
        "#define MODEL_OUTPUT_BYTES 70003",
        *edges,
        "#define MODEL_ARENA_BYTES 70016",
        "typedef union { uint64_t align; uint32_t words[1]; uint8_t bytes[MODEL_ARENA_BYTES]; } model_t;",
        "void model_init(model_t *model);",
        "void *model_input(model_t *model, int index);",
        "const void *model_output(const model_t *model, int index);",
        "void model_invoke(model_t *model);",
        "",
    ))  # fmt: skip


def _helpers(compiler: Compiler, folder: Path, core: Core, rows: dict[str, Any]) -> dict[str, Any]:
    """What compiled code calls and no source defines: each linked alone from the compiler's library."""
    parts = [row["pieces"] for row in rows["sources"].values()] + list(rows["harness"].values())
    known = {name for part in parts for name in part}
    used = {use for part in parts for piece in part.values() for use in piece["uses"]}
    found: dict[str, Any] = {}
    for name in sorted(n for n in used - known if n.startswith("__aeabi")):
        source, script = folder / "helper.c", folder / "helper.ld"
        source.write_text(f'void entry(void);\nvoid entry(void) {{ __asm volatile("bl {name}"); }}\n')
        script.write_text(HELPER_SCRIPT)
        compiler.compile_core(core, [source], [folder], script, folder / "helper.elf")
        image = read_elf(folder / "helper.elf")
        found |= _rows(piece for piece in pieces_of_image(image) if piece.name != "entry")
    return found


def _leaves(compiler: Compiler, folder: Path, core: Core) -> dict[str, Any]:
    """The generated assembly of many models, function by function: text without its numbers -> sizes."""
    found: dict[str, Any] = {}
    try:
        from edgekd.mcu.dsp.family import family_of
    except ImportError:
        return found
    from edgekd.mcu.codegen import generate

    if family_of(core.cpu) == "portable":
        return found
    for graph, options in product(sample_graphs(), FORMS):
        source = generate(graph, family_of(core.cpu), options).files.get("model_dsp.S", "")
        texts = dict(leaf_texts(source))
        if not {normal_leaf(text) for text in texts.values()} - set(found):
            continue
        path = folder / "leaves.S"
        path.write_text(source, "utf-8")
        for piece in pieces(compile_object(compiler, path, folder, folder / "leaves.o", core)):
            row = {"bytes": piece.bytes, "frame": piece.frame}
            known = found.setdefault(normal_leaf(texts[piece.name]), row)
            known.update({key: max(known[key], row[key]) for key in row})
    return found


def leaf_texts(source: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each function of model_dsp.S."""
    for part in re.split(r"^    \.section ", source, flags=re.MULTILINE)[1:]:
        yield part.split(",")[0].removeprefix(".text."), part


def sample_graphs() -> Iterator[Any]:
    """Graphs whose leaves the table shall hold: random ones, and the shared models where they are."""
    import numpy as np

    from benchmarks.soaks.places import MODELS
    from edgekd.qgraph.codebook import share_weights
    from edgekd.qgraph.tflite_reader import read_tflite
    from tests.graphs import Builder, random_graph, small_net
    from tests.random_graphs import wide_graph

    for path in sorted(MODELS.glob("*.tflite")):
        graph = read_tflite(path.read_bytes(), path.stem)
        yield graph
        yield share_weights(graph)
    for seed in range(60):
        yield wide_graph(np.random.default_rng([5, seed]))
        yield random_graph(np.random.default_rng([6, seed]), 6)
        yield small_net(np.random.default_rng(seed))
    for entries in (4, 16):
        wide = Builder(np.random.default_rng(7))
        yield share_weights(wide.graph(wide.conv(wide.input((1, 6, 6, 32)), 32)), entries)


def structs(compiler: Compiler, folder: Path) -> dict[str, list[int]]:
    """Bytes and alignment of every parameter struct of a kernel, on a 32-bit Arm core."""
    lines, names = ["#include <stdint.h>"], []
    for header in sorted(kernel_folder().glob("*.h")):
        lines.append(f'#include "{header.name}"')
        names += STRUCT.findall(header.read_text("utf-8"))
    for name in names:
        lines.append(f"extern const char b_{name}[]; const char b_{name}[sizeof({name})] = {{1}};")
        lines.append(f"extern const char a_{name}[]; const char a_{name}[_Alignof({name})] = {{1}};")
    source = folder / "structs.c"
    source.write_text("\n".join(lines) + "\n", "utf-8")
    found = {
        p.name: p.bytes for p in pieces(compile_object(compiler, source, kernel_folder(), folder / "s.o"))
    }
    return {name: [found[f"b_{name}"], found[f"a_{name}"]] for name in names}


def _rows(found: Iterable[Piece]) -> dict[str, Any]:
    return {
        piece.name: {
            "kind": piece.kind,
            "bytes": piece.bytes,
            "align": piece.align,
            "frame": piece.frame,
            "uses": list(piece.uses),
        }
        for piece in found
    }


def main(kinds: list[str]) -> int:
    table: dict[str, Any] = {"schema": 2, "structs": {}, "cores": {core.cpu: {} for core in CORES}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in kinds or ["clang", "gcc"]:
            compiler = find_compiler(kind, folder / "cache")
            table["structs"] = structs(compiler, folder)
            for core in CORES:
                table["cores"][core.cpu][compiler.version] = table_of(compiler, folder, core)
    TABLE.write_text(
        json.dumps(table, separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n", "utf-8"
    )
    print(f"{TABLE.name}: {len(CORES)} cores, {TABLE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
