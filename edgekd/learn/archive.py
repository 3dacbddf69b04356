"""The archive that torch.export.save writes (.pt2), read without torch's own reader: JSON and raw numbers.

torch.export.load is not for files of others. In torch 2.13 it unpickles weights and constants that a row
marks with `use_pickle`, custom objects, and sample inputs (all kinds of objects once the safe way failed);
it evaluates sizes as Python text, and writes Python code from the graph's names. Here nothing of that is
done: what would have to be unpickled is refused, sample inputs are not looked at, sizes are integers.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import torch

from edgekd.errors import ArtifactError

SCHEMA = 8  # the major version of the program's schema that torch 2.13 writes
_MODEL, _WEIGHTS, _CONSTANTS = "models/model.json", "data/weights/", "data/constants/"
DTYPES = {  # torch._export.serde.schema.ScalarType
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


@dataclass(frozen=True, eq=False)
class Program:
    """graph, signature: as the JSON has them. tensors: weights, buffers and constants by their names."""

    graph: dict[str, Any]
    signature: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def read_archive(content: bytes, where: str) -> Program:
    """The exported program in `content`. Raises ArtifactError where it is broken, of another version, or
    holds what would have to be unpickled."""
    try:
        archive = _Archive(content, where)
        program = archive.table(_MODEL)
        version = program["schema_version"]["major"]
        if version != SCHEMA:
            raise ArtifactError(
                f"{where} has schema {version} and this version reads {SCHEMA}; export it with torch 2.13"
            )
        tensors = archive.tensors(_WEIGHTS, "model_weights_config.json")
        tensors |= archive.tensors(_CONSTANTS, "model_constants_config.json")
        module = program["graph_module"]
        return Program(module["graph"], module["signature"], tensors)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise _broken(where, error) from None
    except (OSError, RuntimeError, NotImplementedError) as error:
        raise _broken(where, error) from None


def _broken(where: str, error: Exception) -> ArtifactError:
    detail = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ArtifactError(
        f"{where} is not a readable exported program ({detail[:120]}); write it with torch.export.save"
    )


class _Archive:
    """The archive's records by their names below its one folder."""

    def __init__(self, content: bytes, where: str) -> None:
        self._zip, self.where = zipfile.ZipFile(io.BytesIO(content)), where
        roots = [n.removesuffix(_MODEL) for n in self._zip.namelist() if n.endswith(f"/{_MODEL}")]
        if len(roots) != 1:
            raise ValueError(f"{len(roots)} records end in {_MODEL}")
        self._root = roots[0]
        if self.record("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")

    def record(self, name: str) -> bytes:
        info = self._zip.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing; a bomb would
            raise ValueError(f"{name} is compressed")
        return self._zip.read(info)

    def table(self, name: str) -> dict[str, Any]:
        found = json.loads(self.record(name))
        if not isinstance(found, dict):
            raise ValueError(f"{name} is no table")
        return found

    def tensors(self, folder: str, config: str) -> dict[str, torch.Tensor]:
        """Every tensor of a folder. Raises ArtifactError for a row that is a pickle."""
        found = {}
        for name, row in self.table(folder + config)["config"].items():
            if row["use_pickle"] or row["tensor_meta"] is None:
                raise ArtifactError(
                    f"{self.where}: {name} is a pickled object, which can hold code, and is refused; "
                    "export a network of plain tensors"
                )
            found[name] = _tensor(self.record(folder + row["path_name"]), row["tensor_meta"])
        return found


def _tensor(raw: bytes, meta: dict[str, Any]) -> torch.Tensor:
    """A dense tensor of its own memory; as_strided holds sizes and strides to the bytes that there are."""
    dtype = DTYPES[meta["dtype"]]
    size = [int(each["as_int"]) for each in meta["sizes"]]
    if not raw:
        return torch.zeros(size, dtype=dtype)
    flat = torch.frombuffer(bytearray(raw), dtype=dtype)
    stride = [int(each["as_int"]) for each in meta["strides"]]
    return flat.as_strided(size, stride, int(meta["storage_offset"]["as_int"])).clone()
