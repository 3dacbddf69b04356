"""The C library that an export writes for a microcontroller, and weights for one that is flashed already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd.errors import ArtifactError, ConfigError
from edgekd.store import Artifact

SELFTEST_VECTORS = 3
TFLITE = Path("tflm") / "model.tflite"  # the deployed model, in an export's artifact


def checked_prefix(prefix: str) -> str:
    """`prefix`, once it is one that generated C can have; else ConfigError."""
    from edgekd.mcu.library import Library

    return Library(prefix=prefix).prefix


def options_of(params: Mapping[str, Any], options: Any, labels: tuple[str, ...] = ()) -> Any:
    """The Options that an export with these stage parameters generates with: `options` with its library."""
    from edgekd.mcu.library import Library

    library = Library(
        prefix=params["prefix"],
        is_updatable=params["updatable"],
        labels=labels,
        selftest_vectors=SELFTEST_VECTORS,
    )
    return replace(options, library=library)


def labels_of(graph: Any, samples: Artifact | None) -> tuple[str, ...]:
    """The classes' names where the data set has one for each value of the model's only output."""
    if samples is None or samples.stage != "dataset" or len(graph.outputs) != 1:
        return ()
    from edgekd.data import load_dataset

    classes = tuple(load_dataset(samples.path).classes)
    return classes if len(classes) == graph.tensors[graph.outputs[0]].elements else ()


def generated_library(graph: Any, params: Mapping[str, Any], options: Any, labels: tuple[str, ...]) -> Any:
    """The GeneratedModel of a graph without float edges, its predicted sizes in the header."""
    from edgekd.mcu.codegen import generate
    from edgekd.mcu.codegen_sizes import with_sizes
    from edgekd.mcu.dsp.family import family_of

    options = options_of(params, options, labels)
    family = family_of(params["core"])
    plain = replace(options, library=replace(options.library, prefix="model", selftest_vectors=0))
    return with_sizes(generate(graph, family, options), generate(graph, family, plain))


def updatable_cost(graph: Any, generated: Any, core: str) -> dict[str, int]:
    """What replaceable weights cost, as bytes and ops that a build around its weights does not have."""
    from edgekd.mcu.codegen import generate
    from edgekd.mcu.dsp.family import family_of

    fixed = generate(graph, family_of(core))
    return {
        "weights_bytes": generated.weights.bytes - fixed.weights.bytes,
        "state_bytes": generated.state_bytes - fixed.state_bytes,
        "layers": len(generated.layers) - len(fixed.layers),
        "macs": sum(layer.macs for layer in generated.layers) - sum(layer.macs for layer in fixed.layers),
    }


def weights_for(export: Artifact, graph: Any, out: Path) -> dict[str, Any]:
    """Write the blob that makes a device with the code of `export` answer as `graph` does, or nothing.

    Raises ConfigError where the export is not updatable, ArtifactError in one sentence where the structure,
    the shapes, the scales' layout or the edges differ.
    """
    from edgekd.mcu.codegen import generate
    from edgekd.mcu.codegen_updatable import refuse_other_structure
    from edgekd.mcu.dsp.family import family_of
    from edgekd.mcu.options import Options
    from edgekd.qgraph.edges import strip_float_edges
    from edgekd.qgraph.tflite_reader import read_tflite
    from edgekd.qgraph.tflite_writer import write_tflite

    params = export.manifest["params"]
    if export.stage != "export" or not params.get("updatable"):
        raise ConfigError(
            f"{export.stage} {export.key} is no export with --updatable: its code depends on its weights, "
            "which cannot be replaced; export it so, and flash that firmware once"
        )
    deployed = (export.path / "c" / f"{params['prefix']}_weights.bin").read_bytes()
    found = generate(strip_float_edges(graph), family_of(params["core"]), options_of(params, Options()))
    if found.weights.layout != deployed[16:24]:
        built = read_tflite((export.path / TFLITE).read_bytes(), export.key)
        refuse_other_structure(
            strip_float_edges(built), strip_float_edges(read_tflite(write_tflite(graph), graph.name))
        )
        raise ArtifactError(
            f"the code of {export.key} and that of {graph.name} differ, by another edgekd or the order of "
            "their tensors: export both with one version, from files of one kind"
        )
    temporary = out.with_name(f".{out.name}.part")
    temporary.write_bytes(found.weights.blob)
    os.replace(temporary, out)
    return {
        "file": str(out),
        "bytes": found.weights.bytes,
        "layout": found.weights.layout.hex(),
        "model": found.weights.model.hex()[:16],
        "for": export.key,
    }
