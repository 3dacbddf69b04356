"""Generated C as executions for `diff`: the same layer functions and kernels, instrumented to be looked into.

One build keeps each layer's bytes, which host and core return as the model's output (diff_text.py). What a
linear layer sums up inside is shown by another (diff_expose.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgekd.errors import ConfigError
from edgekd.mcu.bench import pack
from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.diff import Execution, Layers
from edgekd.mcu.diff_expose import expose
from edgekd.mcu.diff_sums import Array, Place
from edgekd.mcu.diff_text import keep_layers
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.reference import run_all
from edgekd.target import Target

PLANE = 4  # channels of a plane, where a kernel family keeps tensors as [C / 4][H * W][4]
DEBUG_RAM_BYTES = 64 << 20  # the emulated core's, so that every layer's bytes can be kept

Run = Callable[
    [Path, list[Array], Path], Array
]  # generated C, inputs, a folder -> its outputs, uint8 [N, bytes]


def by_host(model: GeneratedModel, compiler: Compiler, work: Path) -> Execution:
    """Generated C on this machine."""

    def run(generated: Path, inputs: list[Array], folder: Path) -> Array:
        return HostModel(generated, compiler, folder).run(pack(inputs)).view(np.uint8)

    return _execution(model, run, work)


def by_core(model: GeneratedModel, compiler: Compiler, target: Target, work: Path) -> Execution:
    """Generated C on the target's emulated core, with as much RAM as keeping every layer takes."""
    if target.memory is None:
        raise ConfigError(f"target {target.name} has no core to emulate; take one of kind mcu")
    roomy = replace(target, memory=replace(target.memory, ram_bytes=DEBUG_RAM_BYTES))

    def run(generated: Path, inputs: list[Array], folder: Path) -> Array:
        build_image(generated, roomy, compiler, folder)
        elf, layers = folder / "firmware.elf", generated / "layers.json"
        return run_image(elf, layers, roomy, pack(inputs), engine="unicorn", counted=0, watched=0).outputs

    return _execution(model, run, work)


def _execution(model: GeneratedModel, run: Run, work: Path) -> Execution:
    side = _Generated(model, run, work)
    return Execution(side.layers, side.sum_at)


@dataclass
class _Generated:
    """One build's layers and sums; `planes`: the layers that were found to lie in planes of channels."""

    model: GeneratedModel
    run: Run
    work: Path
    planes: set[int] = field(default_factory=set)

    def layers(self, graph: QGraph, inputs: list[Array]) -> Layers:
        kept = keep_layers(self.model, graph)
        rows = kept.split(self._outputs(kept.files, inputs, "kept"))
        expected = run_all(graph, inputs)
        found = {}
        for index, values in rows.items():
            wanted = expected[graph.ops[index].outputs[0]]
            plain = np.ascontiguousarray(values).view(wanted.dtype).reshape(wanted.shape)
            found[index] = in_order(plain, wanted)
            if found[index] is not plain:
                self.planes.add(index)
        return found

    def sum_at(self, graph: QGraph, inputs: list[Array], index: int, where: Place) -> int | None:
        exposed = expose(self.model, graph, index)
        if exposed is None:
            return None
        one = [x[where[0] : where[0] + 1] for x in inputs]
        row = self._outputs(exposed.files, one, f"exposed-{index}")[0]
        shape = graph.tensors[graph.ops[index].outputs[0]].shape[1:]
        return exposed.sum_at(row, _element(shape, where[1:], index in self.planes), where[-1])

    def _outputs(self, files: Mapping[str, str], inputs: list[Array], name: str) -> Array:
        generated = self.work / f"{name}-c"
        generated.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (generated / file).write_text(text, "utf-8")
        return self.run(generated, inputs, self.work / name)


def in_order(values: Array, expected: Array) -> Array:
    """`values` as they are, or from planes of channels, whichever differs less from what is expected."""
    if values.ndim != 4 or values.shape[3] % PLANE or np.array_equal(values, expected):
        return values
    samples, h, w, c = values.shape
    planes = values.reshape(samples, c // PLANE, h * w, PLANE).transpose(0, 2, 1, 3).reshape(values.shape)
    return planes if (planes != expected).sum() < (values != expected).sum() else values


def _element(shape: Place, position: Place, planes: bool) -> int:
    """Where an element of a layer lies among its bytes."""
    if not planes:
        return int(np.ravel_multi_index(position, shape))
    y, x, channel = position
    return (channel // PLANE * shape[0] * shape[1] + y * shape[1] + x) * PLANE + channel % PLANE
