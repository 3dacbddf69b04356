"""How a QDQ ONNX model says that weights are stored as indices: plain initializers, metadata beside them.

ONNX Runtime runs the file as it is; docs/formats/packed-onnx.md has every byte of the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError
from edgekd.qgraph.encoding import INDEX_BITS, MOST_TABLES, Encoding, check
from edgekd.qgraph.onnx_model import parse_proto

PREFIX = "edgekd.encoding."
SCHEMA = 1
_KEYS = {"schema", "bits", "tables", "channel_tables"}


@dataclass(frozen=True, eq=False)
class StoredEncoding:
    """An entry as the file has it: it counts output channels, on whatever axis the layer has them."""

    bits: int
    tables: npt.NDArray[np.int8]
    channel_tables: npt.NDArray[np.uint8] | None

    def of(self, channels: int, axis: int) -> Encoding:
        """The encoding of a layer's weights in a QGraph's layout."""
        given = self.channel_tables
        return Encoding(
            self.bits, self.tables, np.zeros(channels, np.uint8) if given is None else given, axis
        )


def with_encodings(data: bytes, encodings: Mapping[str, Encoding], name: str = "the model") -> bytes:
    """The ONNX model in `data` with an entry for each int8 initializer that `encodings` names.

    An encoding's axis is that of the initializer: 0 for Conv and Gemm with transB, 1 for MatMul and other
    Gemm. Entries of before are replaced. Raises ArtifactError for a name that is no initializer,
    UnsupportedOpError where the initializer's values do not stand in the tables.
    """
    import onnx

    model = parse_proto(data, name)
    initializers = {t.name: t for t in model.graph.initializer}
    entries = {p.key: p.value for p in model.metadata_props if not p.key.startswith(PREFIX)}
    for weights, encoding in encodings.items():
        if weights not in initializers:
            raise ArtifactError(f"{name} has no initializer {weights!r} to encode; name one of its weights")
        check(encoding, onnx.numpy_helper.to_array(initializers[weights]), f"{name}, initializer {weights!r}")
        entries[PREFIX + weights] = entry(encoding)
    del model.metadata_props[:]
    for key in sorted(entries):
        model.metadata_props.add(key=key, value=entries[key])
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def entry(encoding: Encoding) -> str:
    """The metadata's value: JSON with sorted keys and no spaces."""
    value: dict[str, Any] = {"schema": SCHEMA, "bits": encoding.bits, "tables": encoding.tables.tolist()}
    if len(encoding.tables) > 1:
        value["channel_tables"] = encoding.channel_tables.tolist()
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def read_entries(metadata: Mapping[str, str], name: str) -> dict[str, StoredEncoding]:
    """Initializer -> its encoding, from an ONNX model's metadata. Raises ArtifactError for a bad one."""
    found = {}
    for key, text in metadata.items():
        if key.startswith(PREFIX):
            weights = key.removeprefix(PREFIX)
            found[weights] = _entry(text, f"{name}, metadata of initializer {weights!r}")
    return found


def _entry(text: str, where: str) -> StoredEncoding:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ArtifactError(f"{where} is no JSON; write the model again") from None
    if not isinstance(value, dict) or not set(value) <= _KEYS or value.get("schema") != SCHEMA:
        raise ArtifactError(f"{where} is not of schema {SCHEMA}; write the model again with this edgekd")
    bits, tables = value.get("bits"), _whole(value.get("tables"), -128, 127)
    if bits not in INDEX_BITS or tables is None or tables.ndim != 2:
        raise ArtifactError(
            f"{where} needs bits of {', '.join(map(str, INDEX_BITS))} and a list of tables of equally many "
            "int8 values; write the model again"
        )
    given = value.get("channel_tables")
    numbers = None if given is None else _whole(given, 0, MOST_TABLES - 1)
    if given is not None and (numbers is None or numbers.ndim != 1):
        raise ArtifactError(f"{where} numbers its channels' tables by {given!r:.40}; write the model again")
    channel_tables = None if numbers is None else numbers.astype(np.uint8)
    return StoredEncoding(int(bits), tables.astype(np.int8), channel_tables)


def _whole(value: Any, low: int, high: int) -> npt.NDArray[np.int64] | None:
    """A list (of lists) of whole numbers in low to high; None for anything else."""
    try:
        found = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    if not isinstance(value, list) or found.dtype.kind not in "iu" or not found.size:
        return None
    return found.astype(np.int64) if low <= found.min() <= found.max() <= high else None
