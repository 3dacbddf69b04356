"""Soak `graphs`: random graphs, TFLite Micro = integer reference = generated C, byte for byte.

C of every kernel family that a profile's core has, on the host (assembly as its C twins), and of those with
assembly on the emulated core as well, without and with Winograd's convolution, and with layers by rows. Some
graphs have their weights as indices into tables. Graphs are compiled a batch at a time; a batch that differs
names the graphs. The histogram says how often each operator, attribute, form, kernel and pass was reached:
kernels and forms of assembly by the names in the generated C, so new ones count by themselves.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soaks.on_core import run_on_core
from benchmarks.soaks.places import ROOT
from edgekd.mcu.codegen import generate
from edgekd.mcu.dsp.family import family_of
from edgekd.mcu.host import HostModel
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.qgraph.reference import run
from edgekd.target import Target, load_target
from tests.graphs import inputs_for
from tests.mcu.generated import Array, merge, pack, unpack, write
from tests.mixed_graphs import kernels_of, mixed_graph
from tests.qgraph.interpreters import run_tflite_micro
from tests.random_graphs import passed, reached

SAMPLES = 8
SAMPLES_ON_CORE = 4
BATCH = 10
OFTEN_ENOUGH = 30
FORMS = {
    "": Options(),
    "_winograd": Options(winograd=True, prefer=("winograd", "residual")),
    "_rows": Options(prefer=("rows 2 parked",)),
}
KERNELS = ROOT / "firmware_stubs" / "kernels"
NO_KERNELS = {"k_weights"}  # the checksum of the weights


def graphs(seed: int, count: int) -> dict[str, Any]:
    """`count` graphs on SAMPLES inputs each; what was reached, and where any two executions differ."""
    kernels = {path.stem for path in KERNELS.glob("k_*.c")} - NO_KERNELS
    hits = Counter(dict.fromkeys((f"kernel {kernel}" for kernel in kernels), 0))
    differing: list[dict[str, Any]] = []
    ops = 0
    with tempfile.TemporaryDirectory() as name:
        compiler = find_compiler("clang", Path(name) / "cache")
        for first in range(0, count, BATCH):
            batch = _Batch(seed, range(first, min(first + BATCH, count)), compiler, Path(name) / str(first))
            ops += sum(len(graph.ops) for graph in batch.graphs)
            differing += batch.differences()
            hits.update(batch.hits())
            print(f"graphs {first + len(batch.graphs)}/{count}", file=sys.stderr, flush=True)
    return {
        "ops": ops,
        "samples_a_graph": SAMPLES,
        "samples_on_core": SAMPLES_ON_CORE,
        "executions": ["tflite_micro", *sorted(_executions())],
        "differing_bytes": sum(row["differing_bytes"] for row in differing),
        "differing_graphs": differing,
        "hit_often_enough": OFTEN_ENOUGH,
        "seldom_hit": sorted(feature for feature, hit in hits.items() if hit < OFTEN_ENOUGH),
        "hits": dict(sorted(hits.items())),
    }


def families() -> dict[str, Target]:
    """Each kernel family that a profile's core has -> the first such profile."""
    targets = [
        load_target(path.stem, [ROOT / "targets"]) for path in sorted((ROOT / "targets").glob("*.toml"))
    ]
    cores = [target for target in targets if target.kind == "mcu" and target.core is not None]
    return {family_of(target.core.cpu): target for target in reversed(cores) if target.core is not None}


def _executions() -> dict[str, tuple[str, str, Target | None]]:
    """Name -> (kernel family, which of FORMS, the target on whose core it runs; None: the host)."""
    found: dict[str, tuple[str, str, Target | None]] = {"c_on_host_portable": ("portable", "", None)}
    for family, target in families().items():
        for form in FORMS if family != "portable" else ():
            found[f"c_on_host_{family}{form}"] = (family, form, None)
            found[f"c_on_core_{family}{form}"] = (family, form, target)
    return found


class _Batch:
    """Some graphs side by side in one: compiled together, told apart again."""

    def __init__(self, seed: int, indices: range, compiler: Compiler, folder: Path) -> None:
        self.first = indices.start
        self.graphs = [mixed_graph(np.random.default_rng([seed, index])) for index in indices]
        self.inputs = [
            inputs_for(graph, np.random.default_rng([seed, index, 1]), SAMPLES)
            for graph, index in zip(self.graphs, indices, strict=True)
        ]
        self._merged = merge(self.graphs)
        self._compiler = compiler
        self._folder = folder
        wanted = sorted({(family, form) for family, form, _ in _executions().values()})
        self._models = {(a, form): generate(self._merged, a, FORMS[form]) for a, form in wanted}

    def hits(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for graph in self.graphs:
            found.update(reached(graph, ""))
            found.update(passed(generate(graph)))
        for model in self._models.values():
            found.update(kernels_of(model))
        return found

    def differences(self) -> list[dict[str, Any]]:
        """Per graph and execution that differs from the reference: the number of bytes."""
        expected = [run(graph, x) for graph, x in zip(self.graphs, self.inputs, strict=True)]
        found = {name: self._outputs(*what) for name, what in _executions().items()}
        rows, at = [], 0
        for i, graph in enumerate(self.graphs):
            sides = {name: outputs[at : at + len(graph.outputs)] for name, outputs in found.items()}
            sides["tflite_micro"] = run_tflite_micro(graph, self.inputs[i])
            at += len(graph.outputs)
            for name, outputs in sides.items():
                pairs = zip(outputs, expected[i], strict=True)
                differ = sum(int((a != b[: len(a)]).sum()) for a, b in pairs)
                if differ:
                    row = {"graph": self.first + i, "execution": name, "differing_bytes": differ}
                    rows.append(row)
        return rows

    def _outputs(self, family: str, form: str, target: Target | None) -> list[Array]:
        """All graphs' outputs one after the other, by the C of a family."""
        model, rows = self._models[family, form], pack([x for xs in self.inputs for x in xs])
        folder = self._folder / f"{family}{form}-{'core' if target else 'host'}"
        if target is None:
            host = HostModel(write(model, folder / "generated"), self._compiler, folder / "work")
            return unpack(self._merged, host.run(rows))
        few = rows[:SAMPLES_ON_CORE]
        return unpack(self._merged, run_on_core(model, self._merged, few, target, self._compiler, folder))


def histogram(hits: dict[str, int]) -> list[str]:
    """One line a feature, a bar as long as the logarithm of its hits."""
    return [f"{feature:<50}{hit:>7}  {'#' * int(4 * np.log2(hit + 1))}" for feature, hit in hits.items()]
