"""How the executions of one int8 model agree, as a table: `python benchmarks/agreement.py [--recipe digits]`.

Bit for bit where that is promised (reference, TFLite Micro, generated C); for ONNX Runtime, whose
requantization is in floating point, the histogram of differences on the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgekd import api  # noqa: E402
from edgekd.data import load_dataset  # noqa: E402
from edgekd.evaluate.metrics import agreement, difference_histogram  # noqa: E402
from edgekd.export.onnx_session import run_onnx  # noqa: E402
from edgekd.qgraph.edges import quantize_input, strip_float_edges  # noqa: E402
from edgekd.qgraph.loader import load_graph  # noqa: E402
from edgekd.qgraph.reference import run  # noqa: E402
from edgekd.report.tables import show_table  # noqa: E402
from tests.qgraph.interpreters import ops_differing_from_litert, run_tflite_micro  # noqa: E402


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="agreement")
    parser.add_argument("--recipe", default="digits")
    request = api.request(recipe=parser.parse_args(arguments).recipe, target="mcu-sim", start=ROOT)
    record = api.bench(request)
    model = (api.make(request, "quantize").path / "int8.onnx").read_bytes()
    graph = strip_float_edges(load_graph(model, "int8.onnx"))
    x, _ = load_dataset(api.make(request, "dataset").path).part("test")
    inputs = [quantize_input(np.moveaxis(x, 1, -1), graph.tensors[graph.inputs[0]])]
    reference = run(graph, inputs)[0]
    micro = run_tflite_micro(graph, inputs)[0]
    output = graph.tensors[graph.outputs[0]]
    runtime = np.rint(run_onnx(model, x) / output.scale[0] + output.zero_point).astype(np.int64)
    rows = [
        ("TFLite Micro", f"{int((micro != reference).sum())} of {reference.size} output bytes differ"),
        ("C on host and core", "0 bytes differ" if record["bit_exact"] else "bytes differ"),
        ("LiteRT BUILTIN_REF, op by op", str(ops_differing_from_litert(graph, inputs) or "no op differs")),
        ("ONNX Runtime, top-1", f"{agreement(runtime, reference.reshape(len(x), -1)):.4f} agree"),
        ("ONNX Runtime, steps", str(difference_histogram(runtime, reference.reshape(len(x), -1)))),
    ]
    show_table(
        f"{request.recipe.name}: against the integer reference, {len(x)} test samples",
        ("execution", "agreement"),
        rows,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
