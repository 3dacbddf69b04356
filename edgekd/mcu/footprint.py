"""What a generated model will take of flash and RAM, predicted from its text without compiling.

Weights, constants, arena and static are exact. Code is an upper bound: kernels, harness and helpers come
from a table of measured sizes (code_sizes.json, by benchmarks/kernel_sizes.py) for a compiler's version,
a layer's own function from the arguments that it passes. The stack is the deepest chain of frames.
What the table does not hold, or holds for another source text, is None with the reason: never a guess.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.mcu.codegen_prefix import PLAIN
from edgekd.resources import resource_dir

if TYPE_CHECKING:
    from edgekd.mcu.codegen import GeneratedModel

TABLE = Path(__file__).with_name("code_sizes.json")
WEIGHTS = "model_weights_"
VECTORS_BYTES = 64
ROUND_BYTES = 8  # what the linker script rounds each part of flash and RAM up to
CORE = "cortex-m4"
# Core -> the board whose start-up and harness its image holds.
BOARDS = {"cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500", "cortex-m33": "mps2-an505"}
UNCALLED = (
    "k_weights.c",
    "model_info.c",
    "model_selftest.c",
    "model_slow.c",
    "model_weights.c",
)  # no image of ours calls them

_INCLUDE = re.compile(r'^#include "([\w.]+)"', re.MULTILINE)
_FUNCTION = re.compile(r"^void (model_layer_\w+)\(model_t \*model\)\n\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^    (k_\w+)\((.*)\);$", re.MULTILINE)
_ARRAY = re.compile(r"^\s*(?:static )?const (u?int(?:8|16|32)_t) (\w+)\[(\d+)\] = \{", re.MULTILINE)
_STRUCT = re.compile(r"^    static const (k_\w+_t) layer = \{", re.MULTILINE)
_ROWS = re.compile(r"^static const k_stream_rows_t (\w+)\[(\d+)\] = \{", re.MULTILINE)
_STAGES = re.compile(r"\(\*const stages\[\]\)\(model_t \*\) = \{(.*?)\};", re.DOTALL)
_SYMBOL = re.compile(r"\bk_\w+")
_ITEM_BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4}
_NUMBER = re.compile(r"(?<=#)-?\w+")


@dataclass(frozen=True)
class Footprint:
    """Bytes of a linked image. code and stack are bounds; None: not known, `missing` says why."""

    weights: int
    constants: int | None
    code: int | None
    arena: int
    static: int
    stack: int | None
    missing: tuple[str, ...] = ()

    @property
    def flash_bytes(self) -> int | None:
        known = self.code is not None and self.constants is not None
        return self.weights + (self.code or 0) + (self.constants or 0) if known else None

    @property
    def ram_bytes(self) -> int | None:
        return None if self.stack is None else self.arena + self.static + self.stack


# What a layer passes decides which functions its kernel never calls, and which it calls through a pointer.
_Context = tuple[frozenset[str], frozenset[str]]


@dataclass
class _Parts:
    """Everything that an image is made of, in link order: (name, row) a file, by file."""

    files: list[tuple[str, Mapping[str, Mapping[str, Any]]]] = field(default_factory=list)
    helpers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@cache
def load_table(cpu: str = CORE) -> Mapping[str, Any]:
    """The measured sizes that ship with edgekd, of one core; a core not measured has no compilers."""
    found = json.loads(TABLE.read_text("utf-8"))
    return {"core": cpu, "structs": found["structs"], "compilers": found["cores"].get(cpu, {})}


def compilers(table: Mapping[str, Any]) -> dict[str, str]:
    """Kind -> the version that the table holds."""
    return {row["kind"]: version for version, row in table["compilers"].items()}


def predict(
    model: GeneratedModel, kind: str, table: Mapping[str, Any] | None = None, cpu: str = CORE
) -> Footprint:
    """The footprint of `model` compiled by `kind` ("clang" or "gcc") of the version that the table holds.

    cpu: the core. table: its sizes; None: those that ship with edgekd.
    """
    table = load_table(cpu) if table is None else table
    arena = -(-model.state_bytes // ROUND_BYTES) * ROUND_BYTES
    weights = model.weights.bytes if model.weights.arrays else 0  # without any, nothing names the blob
    if model.library.is_updatable or model.library.prefix != PLAIN:
        why = "sizes are predicted for builds that are not updatable and have the prefix model: build it"
        return Footprint(weights, None, None, arena, 0, None, (why,))
    if not table["compilers"]:
        why = f"sizes of code are measured for {', '.join(BOARDS)} only: build it for this core"
        return Footprint(weights, None, None, arena, 0, None, (why,))
    version = compilers(table).get(kind)
    if version is None:
        missing = (f"the table of code sizes holds nothing for {kind}",)
        return Footprint(weights, None, None, arena, 0, None, missing)
    parts = _parts(model, table["compilers"][version], table["structs"], table["core"])
    if parts.missing:
        return Footprint(weights, None, None, arena, 0, None, tuple(dict.fromkeys(parts.missing)))
    reached = _reached(parts)
    code = VECTORS_BYTES + _laid_out(row for row in reached if row["kind"] == "code")
    constants = _laid_out(row for row in reached if row["kind"] == "constant") + -weights % ROUND_BYTES
    return Footprint(weights, constants, code, arena, 0, _deepest(parts))


# ---- the parts ----


def kernel_folder() -> Path:
    return resource_dir("firmware_stubs") / "kernels"


def harness_sources(cpu: str = CORE) -> list[Path]:
    """What an image for this core holds beside the model, in link order."""
    boards = resource_dir("firmware_stubs") / "boards"
    return sorted((boards / "cortex-m").glob("*.c")) + sorted((boards / BOARDS[cpu]).glob("*.c"))


def digest_of_source(path: Path) -> str:
    """Of a C file and all that it includes of its own folder (the harness: of cortex-m too)."""
    digest, waiting, seen = hashlib.sha256(), [path.name], set[str]()
    folders = (path.parent, path.parent.parent / "cortex-m")
    while waiting:
        name = waiting.pop(0)
        found = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if name in seen or found is None:
            continue
        seen.add(name)
        text = found.read_text("utf-8")
        digest.update(f"{name}\n{text}".encode())
        waiting += _INCLUDE.findall(text)
    return digest.hexdigest()[:16]


def normal_leaf(text: str) -> str:
    """A generated assembly function without its name and the values of small constants, as a digest.

    Constants count by the range that decides an instruction's length.
    """
    name = re.search(r"^(k_\w+):", text, re.MULTILINE)
    plain = text.replace(name[1], "leaf") if name else text
    return hashlib.sha256(_NUMBER.sub(_range_of, plain).encode()).hexdigest()[:16]


def _range_of(number: re.Match[str]) -> str:
    try:
        value = abs(int(number[0], 0))
    except ValueError:
        return number[0]
    return str(next((limit for limit in (7, 31, 124, 255, 508, 1020, 4095) if value <= limit), 1 << 16))


def _parts(
    model: GeneratedModel, sizes: Mapping[str, Any], structs: Mapping[str, list[int]], cpu: str
) -> _Parts:
    """The files of the image in link order, each piece as the table has it or as the text says."""
    parts = _Parts(helpers=sizes["helpers"])
    kind = sizes["kind"]
    for name in sorted(n for n in model.files if n.endswith(".c")):
        if name == "model.c":
            parts.files.append((name, _model_pieces(model.files[name], kind, structs, parts.missing)))
        elif name not in UNCALLED:
            parts.files.append((name, _measured(name, sizes, parts.missing)))
    if "model_dsp.S" in model.files:
        parts.files.append(("model_dsp.S", _leaves(model.files["model_dsp.S"], sizes)))
    parts.files += _harness(model.files["model.h"], sizes, cpu, parts.missing)
    return parts


def _measured(name: str, sizes: Mapping[str, Any], missing: list[str]) -> dict[str, Mapping[str, Any]]:
    row = sizes["sources"].get(name)
    if row is None or row["digest"] != digest_of_source(kernel_folder() / name):
        missing.append(f"the table of code sizes does not hold this version of {name}")
        return {}
    found: dict[str, Mapping[str, Any]] = row["pieces"]
    return found


def _leaves(source: str, sizes: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The functions of model_dsp.S."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in re.split(r"^    \.section ", source, flags=re.MULTILINE)[1:]:
        name = part.split(",")[0].removeprefix(".text.")
        row = _leaf_row(part, sizes)
        found[name] = {"kind": "code", "align": 4, "uses": [], **row}
    return found


def leaf_size(text: str, sizes: Mapping[str, Any]) -> int:
    """Bytes of a generated function, from its text."""
    part = re.split(r"^    \.section ", text, maxsplit=1, flags=re.MULTILINE)[-1]
    return int(_leaf_row(part, sizes)["bytes"])


def _leaf_row(part: str, sizes: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = sizes.get("leaves", {}).get(normal_leaf(part))
    return found or _leaf_bound(part)


def _leaf_bound(text: str) -> Mapping[str, int]:
    """The most that a generated function can take: no Thumb-2 instruction is longer than four bytes."""
    lines = [line.strip() for line in text.splitlines()[1:] if line.startswith("    ")]
    aligned = sum(1 for line in lines if line.startswith((".p2align", ".balign")))
    words = sum(1 for line in lines if not line.startswith(".") or line.startswith(".word"))
    pushed = sum(_registers(line) for line in lines if line.startswith(("push", "vpush", "stmdb sp!")))
    taken = sum(int(n, 0) for n in re.findall(r"^\s+sub(?:\.w|w)? sp, (?:sp, )?#(\w+)", text, re.MULTILINE))
    return {"bytes": 4 * (words + aligned), "frame": 4 * pushed + taken}


def _registers(line: str) -> int:
    """Registers in a list such as {r4-r11, lr}."""
    count = 0
    for part in line.split("{")[1].split("}")[0].split(","):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        count += ends[1] - ends[0] + 1 if len(ends) == 2 else 1
    return count


def _harness(
    header: str, sizes: Mapping[str, Any], cpu: str, missing: list[str]
) -> list[tuple[str, dict[str, Mapping[str, Any]]]]:
    counts = [re.search(rf"#define MODEL_{side}_COUNT (\d+)", header) for side in ("INPUT", "OUTPUT")]
    edges = "x".join(count[1] if count else "?" for count in counts)
    fresh = {path.name: digest_of_source(path) for path in harness_sources(cpu)}
    if edges not in sizes["harness"] or fresh != sizes["harness_digests"]:
        missing.append(f"the table of code sizes does not hold the harness for {edges} inputs and outputs")
        return []
    common, main = dict(sizes["harness"]["1x1"]), sizes["harness"][edges]
    return [("harness", common | main)]


# ---- the model's own text ----


def _array_bytes(found: re.Match[str]) -> int:
    return _ITEM_BYTES[found[1]] * int(found[3])


def _arrays(text: str, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for found in _ARRAY.finditer(text):
        align = 4 if kind == "gcc" else _ITEM_BYTES[found[1]]
        yield found[2], _constant(_array_bytes(found), align)


def _constant(size_bytes: int, align: int) -> Mapping[str, Any]:
    return {"kind": "constant", "bytes": size_bytes, "align": align, "frame": 0, "uses": []}


def _model_pieces(
    text: str, kind: str, structs: Mapping[str, list[int]], missing: list[str]
) -> dict[str, Mapping[str, Any]]:
    """model.c: a function a layer with its constants, and the four functions of the interface."""
    found: dict[str, Mapping[str, Any]] = {}
    layers = []
    for function in _FUNCTION.finditer(text):
        name, body = function[1], function[2]
        for array, row in _arrays(body, kind):
            found[f"{name}.{array}"] = row
        struct = _STRUCT.search(body)
        if struct is not None:
            if struct[1] not in structs:
                missing.append(f"the table of code sizes does not hold the struct {struct[1]}")
                continue
            size_bytes, align = structs[struct[1]]
            found[f"{name}.layer"] = _constant(size_bytes, 4 if kind == "gcc" else align)
        own = [key for key in found if key.startswith(f"{name}.")]
        found[name] = _layer_code(body, own)
        layers.append(name)
    return found | _interface(text, layers) | _chains(text, kind, structs, missing)


def _layer_code(body: str, own: list[str]) -> Mapping[str, Any]:
    calls = [(call[1], call[2].split(", ")) for call in _CALL.finditer(body)]
    weights = re.findall(rf"\b{WEIGHTS}\w+", body)
    uses = [*own, *weights, *_SYMBOL.findall(body)]  # a struct may name a generated kernel
    stacked = max((len(arguments) - 4 for _, arguments in calls), default=0)
    several = len(calls) > 1
    frame = (8 if several or stacked > 0 else 0) + (8 * -(-max(stacked, 0) // 2)) + (8 if several else 0)
    size_bytes = sum(_call_bytes(arguments, several) for _, arguments in calls)
    size_bytes += (8 if several else 0) + (12 if stacked > 0 else 0)
    through_pointer = set(uses) - {name for name, _ in calls} - {*own, *weights}
    context = (_skipped(body, calls), frozenset(through_pointer))
    return {**_code(size_bytes, frame, uses), "context": context}


def _skipped(body: str, calls: Sequence[tuple[str, Sequence[str]]]) -> frozenset[str]:
    """Functions that the kernels call for other layers, and by what this layer passes never for it."""
    skipped = set()
    if any(name == "k_gemm_s8" and arguments[3] == "0" for name, arguments in calls):
        skipped.add("k_gemm_words_s8")  # one row, or rows that cannot be paired
    field = {name: int(value) for name, value in re.findall(r"\.(\w+) = (\d+),", body)}
    if field.get("depth_multiplier", 1) > 1 or field.get("outputs", 4) < 4:
        skipped.add("sum_4")
    return frozenset(skipped)


def _call_bytes(arguments: Sequence[str], several: bool) -> int:
    """The most that passing `arguments` and the call take."""
    return 4 + 2 * several + sum(_argument_bytes(a, i > 3) for i, a in enumerate(arguments))


def _argument_bytes(argument: str, on_stack: bool) -> int:
    found = re.search(r"model->(bytes|words) \+ (\d+)", argument)
    store = 2 if on_stack else 0
    if "model->held.slow" in argument:
        return store + 14  # the pointer from a far field, then the offset
    if found:
        offset = int(found[2]) * (4 if found[1] == "words" else 1)
        return store + (2 if offset < 8 else 4 if offset < 4096 or _encodable(offset) else 8)
    if argument.lstrip("-").isdigit():
        value = abs(int(argument))
        return store + (2 if value < 256 else 4 if value < 65536 else 8)
    return store + 8  # an address: two halves, or a load and its literal


def _encodable(value: int) -> bool:
    """Whether Thumb-2 has `value` as an immediate: eight bits anywhere."""
    while value and value % 2 == 0:
        value //= 2
    return value < 256


def _interface(text: str, layers: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    inputs = len(re.findall(r"case \d+:", text.split("*model_input(")[1].split("\n}")[0]))
    outputs = len(re.findall(r"case \d+:", text.split("*model_output(")[1].split("\n}")[0]))
    return {
        "model_init": _code(20 if "model_slow" in text else 4, 0, []),
        "model_input": _code(12 + 8 * inputs, 0, []),
        "model_output": _code(12 + 8 * outputs, 0, []),
        "model_invoke": _code(12 + 6 * len(layers), 8, layers),
    }


def _chains(
    text: str, kind: str, structs: Mapping[str, list[int]], missing: list[str]
) -> dict[str, Mapping[str, Any]]:
    """Layers by rows: each chain's table of tensors, its start, its stages, its loop in model_invoke."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, count in _ROWS.findall(text):
        if "k_stream_rows_t" not in structs:
            missing.append("the table of code sizes does not hold the struct k_stream_rows_t")
            continue
        size_bytes, align = structs["k_stream_rows_t"]
        found[name] = _constant(int(count) * size_bytes, 4 if kind == "gcc" else align)
        start = name.replace("model_rows", "model_start")
        found[start] = _code(24, 8, [name, "k_stream_start"])
    body = text.split("\nvoid model_invoke(")[1]
    tables = [len(re.findall(r"model_layer_\w+", table)) for table in _STAGES.findall(body)]
    if tables:
        layers = re.findall(r"model_layer_\w+", body)
        single = len(layers) - sum(tables)
        uses = [*dict.fromkeys([*layers, *(name for name in found if name.startswith("model_start"))])]
        for at, count in enumerate(tables):
            found[f"model_invoke.stages.{at}"] = _constant(4 * count, 4)
        uses += [f"model_invoke.stages.{at}" for at in range(len(tables))]
        found["model_invoke"] = _code(20 + 6 * single + 48 * len(tables), 32, uses)
    return found


def _code(size_bytes: int, frame: int, uses: Sequence[str]) -> Mapping[str, Any]:
    return {"kind": "code", "bytes": size_bytes, "align": 4, "frame": frame, "uses": list(uses)}


# ---- what the linker keeps ----


def _find(parts: _Parts, name: str, here: Mapping[str, Any]) -> tuple[Mapping[str, Any], str] | None:
    """The piece that `name` means inside a file: its own first, then any file's, then a helper."""
    if name in here:
        return here, name
    for _, pieces in parts.files:
        if name in pieces:
            return pieces, name
    return (parts.helpers, name) if name in parts.helpers else None


def _reached(parts: _Parts) -> list[Mapping[str, Any]]:
    """The pieces that the linker keeps, in link order."""
    kept: set[tuple[int, str]] = set()
    waiting = [(pieces, name) for _, pieces in parts.files for name in pieces if _is_root(name)]
    while waiting:
        pieces, name = waiting.pop()
        if (id(pieces), name) in kept:
            continue
        kept.add((id(pieces), name))
        for use in pieces[name]["uses"]:
            found = _find(parts, use, pieces)
            if found:
                waiting.append(found)
    every = [*(pieces for _, pieces in parts.files), parts.helpers]
    return [row for pieces in every for name, row in pieces.items() if (id(pieces), name) in kept]


def _is_root(name: str) -> bool:
    """The vector table's functions; strings, which the linker merges, come with the harness."""
    return name in ("reset_handler", "fault_handler") or name.startswith(".rodata.str")


def _laid_out(rows: Iterator[Mapping[str, Any]]) -> int:
    """Bytes of the pieces one after the other, each at its alignment, the end rounded up."""
    end = 0
    for row in rows:
        end = -(-end // row["align"]) * row["align"] + row["bytes"]
    return -(-end // ROUND_BYTES) * ROUND_BYTES


def _deepest(parts: _Parts) -> int:
    """The deepest chain of frames from reset on. Nothing recurses."""
    depths: dict[tuple[int, str, _Context], int] = {}

    def depth(pieces: Mapping[str, Any], name: str, context: _Context) -> int:
        row = pieces[name]
        skipped, pointed_to = context = row.get("context", context)
        key = (id(pieces), name, context)
        if key not in depths:
            depths[key] = 0  # a cycle would be a defect of the table: it ends here
            uses = {use for use in row["uses"] if use not in skipped and use not in pointed_to}
            uses |= pointed_to if "*" in uses else set()
            found = [_find(parts, use, pieces) for use in uses]
            below = [depth(*each, context) for each in found if each]
            depths[key] = int(row["frame"]) + max(below, default=0)
        return depths[key]

    roots = [pieces for _, pieces in parts.files if "reset_handler" in pieces]
    return max(depth(pieces, "reset_handler", (frozenset(), frozenset())) for pieces in roots)
