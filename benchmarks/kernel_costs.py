"""What the kernels in C run on the core, fitted to counts on the emulated one: edgekd/mcu/kernel_costs.json.

    python benchmarks/kernel_costs.py [clang] [gcc]

One image a compiler holds some hundred small layers of every kernel, portable and of the DSP family. The
emulator counts each layer; what ran outside the generated assembly is, class by class of instructions,
a sum of features (edgekd/mcu/costs.py) times unknown costs >= 0: a least-squares fit gives these. The
compilers' helpers and the layer's own function count as part of the kernel that needs them.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from scipy.optimize import nnls  # noqa: E402

from edgekd.mcu.choice import choose  # noqa: E402
from edgekd.mcu.codegen import generate, without_idle_copies  # noqa: E402
from edgekd.mcu.costs import TABLE, usage_of  # noqa: E402
from edgekd.mcu.cycles import Costs  # noqa: E402
from edgekd.mcu.elf import read_elf  # noqa: E402
from edgekd.mcu.engine import Run  # noqa: E402
from edgekd.mcu.firmware import build_image  # noqa: E402
from edgekd.mcu.footprint import digest_of_source, kernel_folder  # noqa: E402
from edgekd.mcu.options import Options  # noqa: E402
from edgekd.mcu.toolchain import Compiler, find_compiler  # noqa: E402
from edgekd.mcu.unicorn_engine import count  # noqa: E402
from edgekd.mcu.work import CLASSES, NOTHING, Work  # noqa: E402
from edgekd.progress import silent  # noqa: E402
from edgekd.qgraph.ir import QGraph  # noqa: E402
from edgekd.target import CostModel, Target, load_target  # noqa: E402
from tests.graphs import Builder  # noqa: E402
from tests.random_graphs import STEPS, shrunk  # noqa: E402

ROOM_BYTES = 0x100_0000  # of flash and of RAM: all samples are one image
INPUT_BYTES = 9216


# Views of the input: [height, width, channels].
VIEWS = (
    (96, 96, 1),
    (48, 64, 3),
    (48, 48, 4),
    (24, 24, 16),
    (12, 12, 64),
    (32, 32, 9),
    (24, 48, 8),
    (6, 6, 256),
)
STEPS_A_CHAIN = 9
LEAST = 1e-3  # of a class a feature: less is noise of the fit
PREFERRED = ("winograd", "pairs", "planes", "dense", "sum", "average", "residual")


@dataclass(frozen=True)
class Sample:
    """One layer: the features of its kernels, and what it ran outside the generated assembly."""

    layer: str
    features: Mapping[tuple[str, str], float]
    measured: Work


def sample_graph(family: str) -> QGraph:
    """Many layers side by side, all of one input, for one family of kernels."""
    b = Builder(np.random.default_rng(11), f"samples-{family}")
    source = b.input((1, INPUT_BYTES), scale=0.05, zero_point=-7)
    outputs = []
    for view in VIEWS:
        x = b.reshape(source, (1, *view))
        outputs += list((_dsp_layers if family == "dsp" else _portable_layers)(b, x))
    return b.graph(*outputs)


def _portable_layers(b: Builder, x: int) -> Iterator[int]:
    """Large layers of the usual kinds, and a chain of random ones."""
    channels = b.shape(x)[3]
    small = b.pool(x, "AVERAGE_POOL_2D", (2, 2))
    yield b.conv(x, 6, (1, 1))
    yield b.conv(small, 9, (3, 3), stride=(2, 2))
    yield b.depthwise(small, (3, 3))
    yield b.softmax(b.reshape(x, (1, INPUT_BYTES // 16, 16)))
    depth = math.gcd(INPUT_BYTES, 12 * channels)
    yield b.dense(b.reshape(x, (1, INPUT_BYTES // depth, depth)), 7, depth=depth)
    for outputs in (2, 5, 12, 40):
        yield b.softmax(b.dense(b.reshape(small, (1, b.tensors[small].elements)), outputs))
    yield b.unary("TANH", x)
    yield b.binary("ADD", x, x)
    yield b.binary("MUL", small, small)
    yield b.mean(x)
    yield b.pad(small, [[0, 0], [1, 2], [2, 1], [0, 1]])
    for _ in range(STEPS_A_CHAIN):
        small = shrunk(b, STEPS[int(b.rng.integers(0, len(STEPS)))](b, small))
    yield small


def _positive(b: Builder, x: int) -> int:
    """`x` as the output of a ReLU: zero point -128."""
    b.tensors[x] = replace(b.tensors[x], zero_point=-128)
    return x


def _dsp_layers(b: Builder, x: int) -> Iterator[int]:
    """Convolutions of several windows, separable chains, sums, pools and rows."""
    channels = b.shape(x)[3]
    if channels > 128:
        x, channels = _positive(b, b.conv(x, 20, (1, 1))), 20
    for outputs, kernel, stride, padding in (
        (6, (3, 3), 1, "SAME"),
        (4, (1, 1), 1, "SAME"),
        (8, (3, 3), 2, "SAME"),
        (2, (1, 1), 2, "VALID"),
        (4, (5, 2), 1, "VALID"),
    ):
        yield b.conv(x, outputs, kernel, stride=(stride, stride), padding=padding)
    y = _positive(b, b.conv(x, 12, (3, 3), stride=(2, 2)))
    yield b.conv(y, 4, (3, 3), padding="VALID")
    for outputs, stride, positive in (
        (12, 1, True),
        (20, 2, True),
        (4, 1, True),
        (4, 2, False),
        (8, 1, False),
    ):
        y = b.depthwise(y, (3, 3), stride=(stride, stride))  # in plain C where the zero point is another
        y = _positive(b, y) if positive else y
        y = _positive(b, b.conv(y, outputs, (1, 1)))
    yield b.pool(y, "AVERAGE_POOL_2D", b.shape(y)[1:3])
    for outputs, stride in ((16, 1), (16, 1)):
        y = _positive(b, b.conv(y, outputs, (3, 3), stride=(stride, stride)))
    z = b.binary("ADD", y, _positive(b, b.conv(y, 16, (1, 1))))
    yield z
    for kernel in ((3, 3), (1, 1)):  # both operands end there: one op
        other = _positive(b, b.conv(y, 16, (1, 1)))
        yield b.binary("ADD", _positive(b, b.conv(y, 16, kernel)), other)
    for outputs in (8, 10, 48):
        yield b.dense(b.reshape(y, (1, b.tensors[y].elements)), outputs)


def samples(family: str, compiler: Compiler, folder: Path) -> Iterator[Sample]:
    """Build the family's graph as one image and run it once: what each layer ran outside the assembly."""
    options = Options(compiler=compiler.kind, prefer=PREFERRED, winograd=True)
    model = generate(sample_graph(family), family, options)
    run = _run(model.files, [vars(layer) for layer in model.layers], compiler, folder)
    report = count(run)
    chosen = choose(model.graph, family, options)
    kept, _ = without_idle_copies({i: found.best.emission for i, found in chosen.items()}, model.plan)
    emissions = list(kept.values())
    assembly = {leaf.name for emission in emissions for leaf in emission.assembly}
    works = works_of(run, report, assembly)
    for index, (layer, emission) in enumerate(zip(model.layers, emissions, strict=True)):
        usages = usage_of(emission)
        if usages is None:
            raise SystemExit(f"{layer.symbol}: a kernel without a row in USAGE (edgekd/mcu/costs.py)")
        features: Counter[tuple[str, str]] = Counter()
        for kernel, usage in usages:
            features.update({(kernel, name): times for name, times in usage.features.items() if times})
        yield Sample(layer.symbol, features, works[index])


def _run(files: Mapping[str, str], layers: list[dict[str, Any]], compiler: Compiler, folder: Path) -> Run:
    source, work, elf = folder / "generated", folder / "run", folder / "image" / "firmware.elf"
    for path in (source, work):
        path.mkdir(parents=True)
    for name, text in files.items():
        # The harness writes four outputs at most: it gets to know of the first.
        text = re.sub(r"(MODEL_OUTPUT_COUNT) \d+", r"\1 1", text)
        text = re.sub(r"(MODEL_OUTPUT_BYTES) \d+", r"\1 MODEL_OUTPUT0_BYTES", text)
        (source / name).write_text(text, "utf-8")
    target = roomy_target()
    build_image(source, target, compiler, elf.parent)
    inputs = np.random.default_rng(12).integers(0, 256, (1, INPUT_BYTES), np.uint8)
    return Run(elf, read_elf(elf), layers, target, inputs, 1, 0, 600.0, silent, work)


def roomy_target() -> Target:
    """mcu-sim with memory for all samples in one image."""
    target = load_target("mcu-sim", [ROOT / "targets"])
    assert target.memory is not None
    memory = replace(target.memory, flash_bytes=ROOM_BYTES, ram_bytes=ROOM_BYTES)
    return replace(target, memory=memory)


def works_of(run: Run, report: Mapping[str, Any], assembly: set[str]) -> dict[int, Work]:
    """Layer -> what it ran in C: one pass over the counts for each class of instructions."""
    sizes = {int(address): size for address, size in report["sizes"][0].items()}
    zero = CostModel(**{field.name: 0 for field in fields(CostModel)})
    found: dict[int, dict[str, float]] = {}
    for kind in CLASSES:
        cost = zero if kind in ("register", "instructions") else replace(zero, **{kind: 1})
        costs = Costs(run.image, cost)
        for layer, edges in report["samples"][0].items():
            total = 0
            for address, instructions, cycles in costs.pieces(edges, sizes):
                if run.image.locate(address).split("+")[0] not in assembly:
                    total += instructions if kind == "instructions" else cycles
            found.setdefault(int(layer), {})[kind] = total
    for counts in found.values():  # LDM's registers cost a cycle each, whatever the profile says
        for kind in counts:
            if kind not in ("register", "instructions"):
                counts[kind] -= counts["register"]
    return {layer: Work(counts) for layer, counts in found.items()}


def fit(every: list[Sample]) -> dict[str, dict[str, dict[str, float]]]:
    """kernel -> feature -> class -> how often: relative errors in least squares, nothing negative."""
    names = sorted({name for sample in every for name in sample.features})
    weight = np.array([1 / max(sample.measured.instructions, 1) for sample in every])
    matrix = np.array([[sample.features.get(name, 0) for name in names] for sample in every])
    table: dict[str, dict[str, dict[str, float]]] = {}
    for kind in CLASSES:
        wanted = np.array([sample.measured.counts.get(kind, 0) for sample in every])
        found, _ = nnls(matrix * weight[:, None], wanted * weight, maxiter=100 * len(names))
        for (kernel, feature), value in zip(names, found, strict=True):
            if value > LEAST:
                table.setdefault(kernel, {}).setdefault(feature, {})[kind] = float(f"{value:.5g}")
    return table


def report_errors(compiler: str, every: list[Sample], table: Mapping[str, Any]) -> None:
    """The fit's error a layer, in instructions outside the assembly: the worst first."""
    cost, rows = CostModel(), []
    for sample in every:
        found = NOTHING
        for (kernel, feature), times in sample.features.items():
            found += Work(table.get(kernel, {}).get(feature, {})) * times
        error = found.cycles(cost) / max(sample.measured.cycles(cost), 1) - 1
        rows.append((abs(error), error, sample.measured.cycles(cost), sample.layer))
    rows.sort(reverse=True)
    print(f"{compiler}: {len(rows)} layers, median error {np.median([r[0] for r in rows]):.2%}")
    for _, error, cycles, layer in rows[:12]:
        print(f"  {error:+.1%} of {cycles:,.0f} cycles: {layer}")


def main(kinds: list[str]) -> int:
    compilers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in kinds or ["clang", "gcc"]:
            compiler = find_compiler(kind, Path(name) / "cache")
            every: list[Sample] = []
            for family in ("portable", "dsp"):
                every += samples(family, compiler, Path(name) / kind / family)
            compilers[kind] = fit(every)
            report_errors(kind, every, compilers[kind])
    held = json.loads(TABLE.read_text("utf-8"))["compilers"] if TABLE.is_file() else {}
    digests = {path.name: digest_of_source(path) for path in sorted(kernel_folder().glob("*.c"))}
    text = json.dumps(
        {"schema": 1, "digests": digests, "compilers": held | compilers}, sort_keys=True, indent=1
    )
    TABLE.write_text(_compact(text) + "\n", "utf-8")
    return 0


def _compact(text: str) -> str:
    """The innermost objects in one line each."""
    return re.sub(r"\{\n\s+([^{}]*?)\n\s+\}", lambda m: "{" + re.sub(r"\n\s+", " ", m[1]) + "}", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
