"""npz files without pickles: written with the same bytes each time, read with one clear error."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError

Array = npt.NDArray[Any]


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` in their order; names, dtypes and values alone decide the bytes (fixed zip dates)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, buffer.getvalue())


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of an npz file. Raises ArtifactError when it is absent, broken or holds Python objects."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ArtifactError(f"{path} is a single array, not an npz; save it with numpy.savez")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path} is not a readable npz of plain arrays ({detail}); save it with numpy.savez"
        ) from None
