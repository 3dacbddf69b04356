"""C text from Python values: integers, arrays, initialisers, names. All of it deterministic, ASCII, C99."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LICENSE = "/* SPDX-License-Identifier: 0BSD */"
MAX_NAME = 40  # characters of a layer's name

C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t"}

# What stands between a field's name and its value in an initialiser.
Value = int | str | Iterable[int] | Mapping[str, "Value"]


@dataclass(frozen=True, eq=False)
class Array:
    """One constant array: its C name and its values (any shape, written flat)."""

    name: str
    values: npt.NDArray[np.generic]

    @property
    def declaration(self) -> str:
        return f"const {C_TYPES[str(self.values.dtype)]} {self.name}[{self.values.size}]"

    def definition(self, storage: str = "") -> str:
        """`storage` is "" for an external object, or "static "."""
        return f"{storage}{self.declaration} = {{\n{rows(self.values.ravel().tolist())}}};\n"


def literal(value: int) -> str:
    """An int32 as a C constant: INT32_MIN has no literal of its own."""
    return "(-2147483647 - 1)" if value == -(1 << 31) else str(value)


def rows(values: Iterable[int], indent: str = "    ", width: int = 110) -> str:
    """Comma-separated values, wrapped and indented, each line ended."""
    lines: list[str] = []
    line = ""
    for value in values:
        item = literal(value) + ","
        if line and len(indent) + len(line) + 1 + len(item) > width:
            lines.append(indent + line)
            line = item
        else:
            line = f"{line} {item}" if line else item
    if line:
        lines.append(indent + line)
    return "".join(part + "\n" for part in lines)


def initialiser(fields: Mapping[str, Value], indent: str = "    ") -> str:
    """A struct's value with designated fields, one a line; nested mappings are nested structs."""
    inner = indent + "    "
    lines = [f"{inner}.{name} = {_field(value, inner)},\n" for name, value in fields.items()]
    return "{\n" + "".join(lines) + indent + "}"


def _field(value: Value, indent: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return literal(value)
    if isinstance(value, Mapping):
        return initialiser(value, indent)
    return "{" + ", ".join(literal(item) for item in value) + "}"


def layer_names(names: Iterable[str]) -> list[str]:
    """Each tensor's name shortened to its last parts, printable, and unique within the list."""
    taken: dict[str, int] = {}
    result: list[str] = []
    for name in names:
        short = _shorten(name)
        taken[short] = taken.get(short, 0) + 1
        candidate = short if taken[short] == 1 else f"{short}_{taken[short]}"
        while candidate in result:
            taken[short] += 1
            candidate = f"{short}_{taken[short]}"
        result.append(candidate)
    return result


def _shorten(name: str) -> str:
    """TensorFlow joins fused ops with ";" and scopes with "/": the last two scopes say enough."""
    parts = [part for part in name.split(";")[0].split("/") if part]
    short = re.sub(r"[^A-Za-z0-9_.:/-]", "_", "/".join(parts[-2:]))
    short = short.replace("//", "/").replace("/*", "_").replace("*/", "_")
    return short[-MAX_NAME:] or "tensor"


def one_line(name: str) -> str:
    """A name as it may stand inside a C comment."""
    return re.sub(r"[^A-Za-z0-9_.:;/ -]", "_", name).replace("/*", "/ *").replace("*/", "* /")[:100]


def quoted(text: str) -> str:
    """A string as a C literal in ASCII: UTF-8 bytes, and what C or a trigraph would read, in octal."""
    plain = bytes(range(32, 127)).translate(None, b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
