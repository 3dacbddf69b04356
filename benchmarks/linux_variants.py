"""Every variant of five models on every kind of Linux device at hand: what each costs, and which one is kept.

python benchmarks/linux_variants.py [--target linux-local --target pi-sim ...] [--model kws ...] [--out FILE]

A virtual Pi needs a runtime first: `invoke provision --target pi-sim`. Times are ratios to the fastest in one
run on this machine; on an emulated core only exact instruction counts say something. kws is scored on the
official evaluation set, ic on CIFAR-10 (JPEG 75), digits on its test split; vww and ad have no labelled data
here, and are held to what the integer reference says of the golden samples. Bytes of the compiled C are
compared on the device itself. Results of targets that are not run stay in FILE as they were.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import platform
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from soaks.places import MODELS, RESULTS, ROOT, SHARED

from edgekd import api
from edgekd.device.bench import bench_device
from edgekd.device.connect import open_transport
from edgekd.device.deploy import deploy
from edgekd.errors import EdgekdError
from edgekd.pipeline.bundling import BUNDLE
from edgekd.report.tables import show_table
from edgekd.target import Target, load_target

FILES = {
    "kws": "kws_ref_model",
    "ic": "pretrainedResnet_quant",
    "vww": "vww_96_int8",
    "ad": "ad01_int8",
}
SHAPES = {"vww": (96, 96, 3), "ad": (640,)}
IMAGES_A_CLASS = 20
KEPT = (
    "variant",
    "threads",
    "instructions",
    "quality",
    "drop",
    "rss_rise_bytes",
    "file_bytes",
    "verdict",
    "why",
)
PATIENT_S = 300.0
LOW_LIMITS = {"max_seconds": 4.0, "runs": 200, "quiet_s": 1800.0, "total_s": 14400.0}


def samples_of(model: str, folder: Path) -> Path | None:
    """An .npz with x and y for the model, in its own integers; None for a recipe."""
    if model == "digits":
        return None
    if model == "kws":
        found = np.load(SHARED / "data" / "mlperf_tiny" / "kws01" / "features.npz")
        x, y = found["x"], found["y"].astype(np.int64)
    elif model == "ic":
        x, y = cifar_images()
    else:
        golden = SHARED / "data" / "mlperf_tiny" / "golden" / f"{FILES[model]}.input.bin"
        x = np.fromfile(golden, np.int8).reshape(-1, *SHAPES[model])
        y = answers_of(model, x)
    path = folder / f"{model}.npz"
    np.savez(path, x=x, y=y)
    return path


def answers_of(model: str, x: np.ndarray) -> np.ndarray:
    """What the integer reference says, where there are no labels: classes; of the autoencoder, 1 for the half
    of the samples that it finds more abnormal, so that AUC is measured against it."""
    from edgekd.evaluate.roc import anomaly_scores
    from edgekd.qgraph.edges import dequantize_output
    from edgekd.qgraph.loader import load_graph
    from edgekd.qgraph.reference import run

    path = MODELS / f"{FILES[model]}.tflite"
    graph = load_graph(path.read_bytes(), path.name)
    outputs = run(graph, [x])[0]
    if model != "ad":
        return outputs.reshape(len(x), -1).argmax(axis=1).astype(np.int64)
    taken, given = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    scores = anomaly_scores(dequantize_output(x, taken), dequantize_output(outputs, given))
    return (scores > np.median(scores)).astype(np.int64)


def cifar_images() -> tuple[np.ndarray, np.ndarray]:
    """The first test images of each class as the model's integers (pixel - 128), and their classes."""
    from PIL import Image

    with zipfile.ZipFile(SHARED / "data" / "cifar10_jpeg.zip") as archive:
        names = sorted(
            name for name in archive.namelist() if "/test/" in f"/{name}" and name.endswith(".jpg")
        )
        by_class: dict[str, list[str]] = {}
        for name in names:
            by_class.setdefault(name.split("/")[-2], []).append(name)
        rows, labels = [], []
        for number, kind in enumerate(sorted(by_class)):
            for name in by_class[kind][:IMAGES_A_CLASS]:
                rows.append(np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")))
                labels.append(number)
    return (np.stack(rows).astype(np.int16) - 128).astype(np.int8), np.array(labels, np.int64)


def bundle_of(model: str, target: str, folder: Path, samples: int | None) -> Path:
    """The model's bundle for the target, from the pipeline."""
    data = samples_of(model, folder)
    given: dict[str, Any] = {"recipe": "digits"} if data is None else {}
    if data is not None:
        given = {"model": str(MODELS / f"{FILES[model]}.tflite"), "data": str(data)}
    request = api.request(**given, target=target, samples=samples, start=ROOT)
    return api.make(request, "export").path / BUNDLE


def measure(model: str, target_name: str, folder: Path, samples: int | None) -> dict[str, Any]:
    """Deploy the bundle and let the device choose; what of it is worth keeping."""
    target = patient(load_target(target_name, [ROOT / "targets"]))
    bundle = bundle_of(model, target_name, folder, samples)
    places = {"directory": folder, "known_hosts": ROOT / ".edgekd" / "known_hosts"}
    assert target.connection is not None and target.runtime is not None
    with open_transport(target, **places) as transport:
        root = target.connection.root
        deploy(transport, bundle, root)
        record = bench_device(transport, root, again=True, threads=target.runtime.threads, **LOW_LIMITS)
    selection = record["selection"]
    best = min((row["p50_us"] for row in selection["candidates"] if row["p50_us"]), default=None)
    rows = []
    for row in selection["candidates"]:
        golden = row["golden"] or {}
        kept = {key: row[key] for key in KEPT}
        kept["time_ratio"] = (
            None if selection["emulated"] or not row["p50_us"] else round(row["p50_us"] / best, 2)
        )
        kept["agreement"] = golden.get("agreement")
        kept["bytes_equal"] = golden.get("max_difference_steps") == 0 if golden.get("exact") else None
        rows.append(kept)
    facts = {
        "chosen": selection["chosen"],
        "ranked_by": selection["ranked_by"],
        "emulated": selection["emulated"],
    }
    device = {key: record["device"][key] for key in ("architecture", "cpu", "board", "os", "cores")}
    return facts | {"metric": metric_of(bundle), "samples": record["samples"], "device": device, "rows": rows}


def patient(target: Target) -> Target:
    """The target, waited for as long as an emulator beside other work may need."""
    assert target.connection is not None
    return dataclasses.replace(target, connection=dataclasses.replace(target.connection, timeout_s=PATIENT_S))


def metric_of(bundle: Path) -> str:
    return str(json.loads((bundle / "bundle.json").read_text())["samples"]["metric"])


def show(results: dict[str, Any]) -> None:
    """A table a target."""
    for target, models in results.items():
        rows = [
            (model, row["variant"], row["threads"], row["time_ratio"], row["instructions"], row["quality"],
             row["bytes_equal"], row["file_bytes"], row["rss_rise_bytes"], row["verdict"], row["why"])
            for model, found in models.items() if "rows" in found for row in found["rows"]
        ]  # fmt: skip
        columns = ("model", "variant", "threads", "time", "instructions", "quality", "bytes equal", "bytes")
        show_table(target, (*columns, "RSS rise", "verdict", "why"), rows, right=(2, 3, 4, 5, 7, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", help="default: linux-local")
    parser.add_argument("--model", action="append", choices=("digits", *FILES), help="default: all")
    parser.add_argument("--samples", type=int, help="accuracy over the first N samples")
    parser.add_argument("--out", type=Path, default=RESULTS / "linux_variants.json")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for target in options.target or ["linux-local"]:
        for model in options.model or ["digits", *FILES]:
            with tempfile.TemporaryDirectory() as name:
                try:
                    found = measure(model, target, Path(name), options.samples)
                except EdgekdError as error:
                    found = {"error": str(error)}
            results.setdefault(target, {})[model] = found | {"host_load": round(os.getloadavg()[0], 1)}
            print(model, target, found.get("chosen") or found.get("error"), flush=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    show({target: results[target] for target in options.target or ["linux-local"]})
    print(f"host: {platform.machine()}; written to {options.out.name}")


if __name__ == "__main__":
    main()
