"""A user's own samples (`--data FILE.npz`): x, y and, where a model is to be quantized, x_calibration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data.npz import Array, read_npz
from edgekd.errors import ArtifactError


@dataclass(frozen=True, eq=False)
class UserData:
    """Samples in the model's own layout.

    x: [N, ...] float32, int8 or uint8; y: int64 [N]; x_calibration: float32 [M, ...] or None.
    """

    x: Array
    y: npt.NDArray[np.int64]
    x_calibration: npt.NDArray[np.float32] | None
    sha256: str


def load_user_data(path: Path) -> UserData:
    """Read and check `path`. Raises ArtifactError naming the file, the array and the mend."""
    arrays = read_npz(path)
    missing = [key for key in ("x", "y") if key not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ArtifactError(f"{path} has no array {missing[0]!r} (it has {found}); save x and y in it")
    y = arrays["y"]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ArtifactError(
            f"{path}: y is {y.dtype} of shape {y.shape}; it must be class numbers, integers [N]"
        )
    x = _samples(arrays["x"], path, "x")
    if len(x) != len(y):
        raise ArtifactError(f"{path}: x has {len(x)} samples and y {len(y)}; give each sample its class")
    if len(y) and y.min() < 0:
        raise ArtifactError(f"{path}: y holds {int(y.min())}; class numbers start at 0")
    return UserData(x, y.astype(np.int64), _calibration(arrays, x, path), _sha256(arrays))


def _samples(x: Array, path: Path, name: str) -> Array:
    if x.ndim < 2 or len(x) == 0:
        raise ArtifactError(
            f"{path}: {name} has shape {x.shape}; it must be [samples, ...] with one sample at least"
        )
    if x.dtype in (np.int8, np.uint8):
        return x
    if x.dtype.kind not in "fiu":
        raise ArtifactError(
            f"{path}: {name} is {x.dtype}; save it as float32 (or int8, uint8 already quantized)"
        )
    floats = x.astype(np.float32)
    if not np.isfinite(floats).all():
        bad = int((~np.isfinite(floats.reshape(len(floats), -1))).any(axis=1).argmax())
        raise ArtifactError(
            f"{path}: {name} holds NaN or infinity (first in sample {bad}); remove or mend it"
        )
    return floats


def _calibration(arrays: dict[str, Array], x: Array, path: Path) -> npt.NDArray[np.float32] | None:
    if "x_calibration" not in arrays:
        return None
    calibration = _samples(arrays["x_calibration"], path, "x_calibration")
    if calibration.shape[1:] != x.shape[1:]:
        raise ArtifactError(
            f"{path}: x_calibration has samples of shape {calibration.shape[1:]} and x of {x.shape[1:]}; "
            "they must be equal"
        )
    return calibration.astype(np.float32)


def _sha256(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
