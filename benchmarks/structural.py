"""What low rank and pruning save on a device before anything is trained: cost depends on shapes alone.

python benchmarks/structural.py [--target mcu-sim]

Takes the student of the recipe cifar10 (ResNet-8) with random weights, compresses it, quantizes it on random
samples and asks `check`: flash of weights and in all, arena, modelled cycles. It says nothing of accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from edgekd.compress.lowrank import lowrank
from edgekd.compress.prune import prune
from edgekd.export.torch_to_onnx import export_net
from edgekd.learn.distill import new_student
from edgekd.learn.structure import MODELS
from edgekd.learn.student import StudentNet, fold
from edgekd.mcu.check import check
from edgekd.qgraph.loader import load_graph
from edgekd.quantize.ptq import quantize_onnx
from edgekd.recipe import CompressParams, QuantizeParams, load_recipe
from edgekd.target import Target, load_target

ROOT = Path(__file__).resolve().parents[1]
SHAPE, CLASSES, SAMPLES = (3, 32, 32), 10, 32
METHODS = {"lowrank": lowrank, "prune": prune}


def low(unit: str, share: float) -> tuple[str, CompressParams]:
    return "lowrank", CompressParams(lowrank_layers="all", rank_by=unit, rank_share=share)


def narrow(keep: float) -> tuple[str, CompressParams]:
    return "prune", CompressParams(keep=keep)


WAYS = {
    "as it is": (),
    "lowrank, 0.75 of the MACs": (low("macs", 0.75),),
    "lowrank, 0.5 of the MACs": (low("macs", 0.5),),
    "lowrank, 0.5 of the bytes": (low("weight_bytes", 0.5),),
    "prune, 0.75 of the MACs": (narrow(0.75),),
    "prune, 0.5 of the MACs": (narrow(0.5),),
    "prune 0.75, lowrank 0.75": (narrow(0.75), low("macs", 0.75)),
}


def figures(net: StudentNet, target: Target, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(bytes of weights, flash in all, arena, modelled cycles) of the int8 form."""
    samples = rng.normal(size=(SAMPLES, *SHAPE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        quantize_onnx(export_net(net, SHAPE), samples, QuantizeParams(), Path(folder))
        graph = load_graph((Path(folder) / "int8.onnx").read_bytes(), "int8.onnx")
    row = check(graph, [target], "clang")["targets"][0]
    return row["parts"]["weights"], row["flash_need"], row["parts"]["arena"], row["cycles"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="mcu-sim")
    target = load_target(parser.parse_args().target, [ROOT / "targets"])
    recipe = load_recipe("cifar10", [ROOT / "recipes"])
    structure = MODELS[recipe.student.model](recipe.student, SHAPE, CLASSES)
    print(f"{'':26}{'MACs':>12}{'weights':>9}{'flash':>9}{'arena':>8}{'cycles, M':>11}")
    for name, steps in WAYS.items():
        net = fold(new_student(structure, recipe.seed).eval())
        for method, params in steps:
            net = METHODS[method](net, params)
        weights, flash, arena, cycles = figures(net, target, np.random.default_rng(1))
        macs = net.structure.macs
        print(f"{name:26}{macs:12,}{weights:9,}{flash:9,}{arena:8,}{cycles / 1e6:11.2f}", flush=True)


if __name__ == "__main__":
    main()
