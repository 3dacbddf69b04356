"""How every torch job runs here: seeded, deterministic, with a fixed number of threads, without pickles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgekd.errors import ArtifactError

Floats = npt.NDArray[np.float32]

_PREDICT_BATCH = 256


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Deterministic algorithms and `threads` threads inside; what was set before comes back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def initialise(net: torch.nn.Module, seed: int) -> None:
    """He-normal weights and zero biases from a generator of our own; batch norm as torch starts it."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


def predict(net: torch.nn.Module, x: Floats) -> Floats:
    """Logits float32 [N, classes] of `x` float32 [N, C, H, W], in evaluation mode."""
    was_training = net.training
    net.eval()
    with torch.no_grad():
        parts = [net(torch.from_numpy(x[i : i + _PREDICT_BATCH])) for i in range(0, len(x), _PREDICT_BATCH)]
    net.train(was_training)
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; names and values alone decide its bytes."""
    path.write_bytes(save({name: tensor.detach().contiguous() for name, tensor in sorted(weights.items())}))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ArtifactError when it is absent, truncated or not one."""
    try:
        return load_file(str(path))
    except (OSError, SafetensorError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is not a readable weights file ({detail}); train it again") from None


def fill(net: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Put `weights` into `net`. Raises ArtifactError when names or shapes differ from the structure."""
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ArtifactError(f"{path} does not fit its structure ({detail}); train it again") from None


def files_sha256(*paths: Path) -> str:
    """One digest over several files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}; make it again") from None
    return digest.hexdigest()
