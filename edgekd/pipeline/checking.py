"""Looking at a model without making anything: `check` (does it fit?) and `diff` (where do two runs part?)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekd.errors import ConfigError
from edgekd.pipeline.graph import states
from edgekd.pipeline.request import Request
from edgekd.pipeline.shipping import MODEL_FILES
from edgekd.target import Target


def int8_model(request: Request) -> tuple[bytes, str]:
    """(bytes, file name) of the request's int8 model: the user's own file, or the store's for a recipe.

    Raises ConfigError where it would first have to be made: looking never trains.
    """
    if request.model is not None:
        if request.model.form == "float":
            raise ConfigError(
                f"{request.model.path.name} is a float model; give its int8 form (.tflite or QDQ .onnx), "
                f"which `invoke quantize --model {request.model.path.name} --data FILE.npz` makes"
            )
        return request.model.path.read_bytes(), request.model.path.name
    recipe = request.need_recipe().name
    artifact = states(request, "quantize")[-1].artifact
    if artifact is None:
        raise ConfigError(
            f"recipe {recipe} has no int8 model in the store yet, and this task makes none; "
            f"run `invoke quantize --recipe {recipe}` first"
        )
    return (artifact.path / MODEL_FILES["qdq"]).read_bytes(), MODEL_FILES["qdq"]


def check_model(request: Request, targets: Sequence[Target]) -> dict[str, Any]:
    """The answer of edgekd.mcu.check for the request's model on its target, or on every one of kind mcu."""
    from edgekd.mcu.check import check_file

    chosen = [request.need_target("mcu")] if request.target else [t for t in targets if t.kind == "mcu"]
    return check_file(*int8_model(request), chosen, request.compiler)
