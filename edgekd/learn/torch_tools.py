"""How every torch job runs here: seeded, deterministic, on a chosen processor, without pickles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgekd.errors import ArtifactError, ConfigError
from edgekd.recipe import Recipe

Floats = npt.NDArray[np.float32]

_PREDICT_BATCH = 256


@dataclass(frozen=True)
class Machine:
    """Where and in which numbers torch computes; part of every result.

    precision "bf16": images lie channels last, and layers run in bfloat16 where the processor has it (twice
    the speed and more), with weights and their updates in float32 as ever.
    """

    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"

    def torch_device(self) -> torch.device:
        """Raises ConfigError for a GPU that is not there."""
        if self.device == "cpu":
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ConfigError('this recipe wants a GPU and torch finds none here; set device = "cpu" in it')
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return torch.device("cuda", rank % torch.cuda.device_count())

    def prepared(self, x: torch.Tensor) -> torch.Tensor:
        """A batch where the network is, laid out as it is fastest."""
        x = x.to(self.torch_device(), non_blocking=True)
        last = self.precision == "bf16" and x.ndim == 4
        return x.contiguous(memory_format=torch.channels_last) if last else x

    def place(self, net: torch.nn.Module) -> None:
        """Move `net` there, in place."""
        net.to(self.torch_device())
        if self.precision == "bf16":
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        device = self.torch_device().type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16" and has_bf16(device))


PLAIN = Machine()


def machine_of(recipe: Recipe) -> Machine:
    return Machine(recipe.threads, recipe.device, recipe.precision)


def refuse_missing_gpus(recipe: Recipe) -> None:
    """Raise ConfigError where there is not a GPU for each of the recipe's processes."""
    machine_of(recipe).torch_device()
    found = torch.cuda.device_count()
    if found < recipe.processes:
        raise ConfigError(
            f"this recipe wants {recipe.processes} processes, each on a GPU of its own, and here "
            f"{'is' if found == 1 else 'are'} {found}; set processes = {found} in it"
        )


def has_bf16(device: str) -> bool:
    """Whether bfloat16 is a gain on this processor rather than emulated."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    info = Path("/proc/cpuinfo")
    flags = info.read_text("utf-8", "replace").split("\n\n")[0].split() if info.is_file() else []
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


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


def predict(net: torch.nn.Module, x: Floats, machine: Machine = PLAIN) -> Floats:
    """Logits float32 [N, classes] of `x` float32 [N, ...], in evaluation mode."""
    return predict_rows(net, len(x), lambda rows: x[rows], machine)


def predict_rows(
    net: torch.nn.Module, count: int, samples: Callable[[slice], Floats], machine: Machine = PLAIN
) -> Floats:
    """Logits float32 [count, classes]; `samples` gives some rows' inputs, so that not all need exist."""
    was_training = net.training
    net.eval()
    parts = []
    with torch.no_grad(), machine.autocast():
        for start in range(0, count, _PREDICT_BATCH):
            x = torch.from_numpy(samples(slice(start, min(start + _PREDICT_BATCH, count))))
            parts.append(net(machine.prepared(x)).float().cpu())
    net.train(was_training)
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; names and values alone decide its bytes."""
    path.write_bytes(save({name: plain(tensor) for name, tensor in sorted(weights.items())}))


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, row-major, without its history."""
    return tensor.detach().cpu().contiguous()


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises ArtifactError when it is absent, truncated or not one."""
    try:
        return load_file(str(path))
    except (OSError, SafetensorError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is not a readable weights file ({detail}); train it again") from None


def fill(net: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
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
