"""Weights for a device that has its code already: the blob of a fine-tuned model of the same structure."""

from __future__ import annotations

from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.codegen import generate
from edgekd.mcu.codegen_updatable import refuse_other_structure
from edgekd.mcu.options import Options
from edgekd.qgraph.ir import QGraph


def replacement_blob(built: QGraph, new: QGraph, family: str, options: Options) -> bytes:
    """The bytes that `model_set_weights` of the library of `built` takes to answer as `new` does.

    family, options: those that `built` was generated with. Raises ConfigError where they were not for an
    updatable build, ArtifactError in one sentence where structure, shapes, the scales' layout or the edges
    differ, UnsupportedOpError for what generated C cannot run.
    """
    if not options.library.is_updatable:
        raise ConfigError(
            f"{built.name} is not built to have its weights replaced: its code depends on them; "
            "export it with --updatable, and flash that firmware once"
        )
    refuse_other_structure(built, new)
    old, found = (generate(graph, family, options) for graph in (built, new))
    if old.weights.layout != found.weights.layout:
        raise ArtifactError(
            f"the code of {built.name} and {new.name} differs although their structure is the same; "
            "this is a defect of edgekd, please report both models"
        )
    return found.weights.blob
