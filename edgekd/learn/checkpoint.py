"""Weights from elsewhere: a .safetensors file, or a torch checkpoint of which only tensors are taken.

A torch checkpoint is a pickle, which can hold code; it is read by torch's reader of plain tensors, which
executes nothing, and refused where it holds anything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from edgekd.errors import ArtifactError, ConfigError
from edgekd.learn.torch_tools import load_weights

_NESTS = ("state_dict", "model_state_dict", "model")
_PREFIX = "module."  # what torch's DataParallel puts before each name


def load_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name. Raises ConfigError (absent) or ArtifactError (broken, code)."""
    if not path.is_file():
        raise ConfigError(f"the checkpoint {path} is not there; set teacher.checkpoint in the recipe")
    found: Any = load_weights(path) if path.suffix == ".safetensors" else _unpickled(path)
    for nest in _NESTS:
        if isinstance(found, dict) and isinstance(found.get(nest), dict):
            found = found[nest]
    rows = found.values() if isinstance(found, dict) else ()
    if not rows or not all(isinstance(tensor, torch.Tensor) for tensor in rows):
        raise ArtifactError(f"{path} holds no weights by name; save model.state_dict() in it")
    wrapped = all(name.startswith(_PREFIX) for name in found)
    weights = {name.removeprefix(_PREFIX) if wrapped else name: t for name, t in found.items()}
    bad = [name for name, t in weights.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise ArtifactError(f"{path}: {bad[0]} holds NaN or infinity; take an earlier checkpoint")
    return weights


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path} holds Python code or objects beside its weights, and is refused; "
            "save model.state_dict() alone"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{path} is not a readable checkpoint ({detail[:120]}); fetch it again") from None
