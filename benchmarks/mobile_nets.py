"""MobileNetV2 0.35 and a net of MCUNet's kind on the emulated Cortex-M4F, beside TFLite Micro's arena.

    python benchmarks/mobile_nets.py [--optimize speed ram ...] [--keep DIR] [--out FILE] [NET ...]

The nets are of our own making in PyTorch and go through edgekd's own export and quantizer to one .tflite,
which both columns take. Weights are random (seeded) and calibrated on noise. RAM, flash and cycles depend on
them by constant channels alone, of which random weights have few; accuracy is not the subject. TFLM's arena
is its upper bound on a Cortex-M4 with CMSIS-NN (edgekd.export.tflm.arena_bound) and the size that TFLM itself
reports on this machine (64-bit pointers, reference kernels). Writes benchmarks/results/mobile-nets.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.soak import commit, machine  # noqa: E402
from edgekd import api  # noqa: E402
from edgekd.export.torch_to_onnx import export_net  # noqa: E402
from edgekd.mcu.options import OPTIMIZE  # noqa: E402

CLASSES, SIDE = 10, 96
CALIBRATION, SAMPLES = 24, 2
PLAN_KEYS = ("lower_bound_bytes", "proved_bytes", "gap_bytes", "words")
CORE_FAMILY = "dsp"
HEAD = (
    "| net | mode | RAM: arena + static + stack | TFLM's arena: bound on an M4 (measured here) | cycles, M | "
    "instructions, M | MACs, M | weights | code + constants |\n|---|---|---|---|---|---|---|---|---|"
)


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, batch normalization, ReLU6."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU6()]


class Inverted(nn.Module):
    """An inverted residual: 1x1 wider, by channel k x k, 1x1 narrower; the sum where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.body = nn.Sequential(
            *(unit(inputs, wide, 1) if expand > 1 else []),
            *unit(wide, wide, kernel, stride, groups=wide),
            *unit(wide, outputs, 1)[:2],
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def net(stem: int, blocks: Sequence[tuple[int, int, int, int]], last: int) -> nn.Module:
    """blocks: (expand, outputs, kernel, stride); last: channels of the 1x1 convolution at the end."""
    layers: list[nn.Module] = unit(3, stem, 3, 2)
    channels = stem
    for expand, outputs, kernel, stride in blocks:
        layers.append(Inverted(channels, outputs, expand, kernel, stride))
        channels = outputs
    layers += unit(channels, last, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, CLASSES))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018, table 2) of width 0.35, channels by eights, 10 classes."""
    table = (
        (1, 8, 1, 1),
        (6, 8, 2, 2),
        (6, 16, 3, 2),
        (6, 24, 4, 2),
        (6, 32, 3, 1),
        (6, 56, 3, 2),
        (6, 112, 1, 1),
    )
    blocks = [(t, c, 3, s if i == 0 else 1) for t, c, n, s in table for i in range(n)]
    return net(16, blocks, 1280)


def mcunet_like() -> nn.Module:
    """Inverted residuals with kernels of 3, 5 and 7 and uneven expansions, as searches give."""
    blocks = [
        *((1, 8, 3, 1), (4, 16, 7, 2), (3, 16, 3, 1), (4, 24, 5, 2), (3, 24, 5, 1), (4, 24, 3, 1)),
        *((5, 40, 7, 2), (4, 40, 3, 1), (4, 40, 7, 1), (4, 48, 5, 1), (4, 48, 5, 1), (5, 96, 5, 2)),
        *((4, 96, 7, 1), (4, 96, 3, 1), (5, 160, 5, 1)),
    ]
    return net(16, blocks, 320)


NETS = {"mobilenet_v2_035_96": mobilenet_v2, "mcunet_like_96": mcunet_like}


def write_model(name: str, folder: Path) -> tuple[Path, Path]:
    """(float ONNX, samples): the net with seeded weights and the statistics of a few passes over noise."""
    torch.manual_seed(1)
    made = NETS[name]()
    made.train()
    with torch.no_grad():
        for _ in range(8):
            made(torch.randn(8, 3, SIDE, SIDE))
    made.eval()
    onnx, samples = folder / f"{name}.onnx", folder / "noise.npz"
    onnx.write_bytes(export_net(made, (3, SIDE, SIDE)))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((CALIBRATION + SAMPLES, 3, SIDE, SIDE)).astype(np.float32)
    labels = rng.integers(0, CLASSES, SAMPLES)
    np.savez(samples, x=noise[:SAMPLES], y=labels, x_calibration=noise[SAMPLES:])
    return onnx, samples


def measure(
    name: str, mode: str, onnx: Path, samples: Path, store: Path, keep: Path | None
) -> dict[str, Any]:
    """One row: the bench on the emulated core, its outputs held to the integer reference."""
    request = api.request(
        model=str(onnx), data=str(samples), target="mcu-sim", optimize=mode, store=str(store)
    )
    record = api.bench(request)
    export = api.make(request, "export")
    if keep is not None:
        shutil.copy(export.path / "tflm" / "model.tflite", keep / f"{name}.tflite")
    tflm = export.metrics["tflm_arena_bytes"]
    layers = record["instructions"]["by_layer"]
    return {
        "net": name,
        "optimize": mode,
        "ram_bytes": record["ram_bytes"],
        "flash_bytes": record["flash_bytes"],
        "cycles": record["estimated_cycles"]["max"],
        "instructions": record["instructions"]["max"],
        "macs": sum(layer["macs"] for layer in layers),
        "memory_plan": {
            key: record["memory_plan"][key] for key in ("lower_bound_bytes", "gap_bytes", "words")
        },
        "tflm_arena_bytes": tflm,
        "bit_exact": record["bit_exact"],
    }


def line(row: dict[str, Any]) -> str:
    ram, flash, tflm = row["ram_bytes"], row["flash_bytes"], row["tflm_arena_bytes"]
    measured = f" ({tflm['measured_x86_64']:,})" if tflm["measured_x86_64"] else ""
    return (
        f"| {row['net']} | {row['optimize']} | {ram['total']:,}: {ram['arena']:,} + {ram['static']:,} + "
        f"{ram['stack']:,} | {tflm['bound'][CORE_FAMILY]:,}{measured} | {row['cycles'] / 1e6:.2f} "
        f"| {row['instructions'] / 1e6:.2f} | {row['macs'] / 1e6:.2f} | {flash['weights']:,} "
        f"| {flash['code'] + flash['constants']:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--optimize", nargs="+", choices=OPTIMIZE, default=list(OPTIMIZE))
    parser.add_argument("--keep", type=Path, help="a folder for the .tflite files")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mobile-nets.json")
    arguments = parser.parse_args()
    rows = []
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="edgekd-nets-") as work:
        for name in arguments.nets:
            onnx, samples = write_model(name, Path(work))
            for mode in arguments.optimize:
                rows.append(measure(name, mode, onnx, samples, Path(work) / "store", arguments.keep))
                print(line(rows[-1]), flush=True)
    result = {"commit": commit(), "machine": machine(), "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
