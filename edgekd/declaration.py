"""Validated TOML: a frozen dataclass in, an instance or one clear ConfigError out.

Recipes and target profiles are declared with `setting()` fields; this module checks types, ranges
and choices, and names the file, the table, the key and the nearest valid key when one is wrong.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgekd.errors import ConfigError

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    later: bool = False,
) -> Any:
    """A dataclass field with its unit, range and choices; without a default the key is required.

    later: the field came after artifacts were made without it, and its default changes nothing of theirs.
    """
    metadata = {"unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices, "later": later}
    return dataclasses.field(default=default, metadata=metadata)


def told(declared: Any) -> dict[str, Any]:
    """A declaration as nested plain data, fields that came `later` left out where they have their default.

    So an artifact's key stays what it was when a new setting is added that is not used.
    """
    table = {}
    for field in dataclasses.fields(declared):
        value = getattr(declared, field.name)
        if not (field.metadata.get("later") and value == field.default):
            table[field.name] = _told(value)
    return table


def _told(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return told(value)
    return tuple(_told(each) for each in value) if isinstance(value, tuple) else value


def load(path: Path, cls: type[T]) -> T:
    """Read `path` as an instance of the dataclass `cls`.

    Raises ConfigError naming the file, and the table and key where one is wrong.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend that line") from None
    return build(cls, table, str(path), "")


def build(cls: type[T], table: Mapping[str, Any], source: str, where: str) -> T:
    """An instance of `cls` from a parsed table; `source` and `where` say where a mistake lies."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {_at(where, key)}{suggest(key, fields)}")
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], spec.metadata, source, _at(where, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{source}: {_at(where, name)} is missing and has no default; add it")
    return cls(**values)


def as_toml(table: Mapping[str, Any], where: str = "") -> str:
    """Plain data as TOML text that reads back as the same; keys in order, tables behind the values.

    table: of strings, numbers, booleans, lists, tables and lists of tables.
    """
    lines, behind = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            behind.append(f"\n[{where}{key}]\n{as_toml(value, f'{where}{key}.')}")
        elif isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
            behind += [f"\n[[{where}{key}]]\n{as_toml(each, f'{where}{key}.')}" for each in value]
        else:
            lines.append(f"{key} = {_toml_value(value)}\n")
    return "".join(lines + behind)


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)  # TOML's basic strings and numbers are JSON's


def find_named(kind: str, name: str, directories: Sequence[Path]) -> Path:
    """The file `<name>.toml` of the first directory that has it; ConfigError with the nearest name."""
    found = list_named(directories)
    if name not in found:
        raise ConfigError(f"{kind} {name!r} does not exist{suggest(name, found)}")
    return found[name]


def check_name(path: Path, name: str) -> None:
    """A declaration carries its file's name; ConfigError where it does not."""
    if path.stem != name:
        raise ConfigError(f"{path}: name is {name!r}; it must be {path.stem!r}, as the file is called")


def list_named(directories: Sequence[Path]) -> dict[str, Path]:
    """Every declaration's name and file; an earlier directory wins."""
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def suggest(word: str, known: Iterable[str]) -> str:
    """The tail of a message about a mistyped word: the nearest known one, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names) or 'none'}"


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, metadata: Mapping[str, Any], source: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):  # JSON's null; TOML has none
            return None
        hint = _member(hint, value)
        origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {where} must be a table")
        return build(typing.cast(type, hint), value, source, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{source}: {where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, metadata, source, f"{where}[{i}]") for i, v in enumerate(value))
    return _scalar(hint, value, metadata, source, where)


def _member(union: Any, value: Any) -> Any:
    """The member of a union that a value is meant for: a tuple for a list, else the first one."""
    members = [a for a in typing.get_args(union) if a is not type(None)]
    tuples = [a for a in members if typing.get_origin(a) is tuple]
    return tuples[0] if isinstance(value, list) and tuples else members[0]


def _scalar(hint: Any, value: Any, metadata: Mapping[str, Any], source: str, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(
            f"{source}: {where} must be {hint.__name__}, not {type(value).__name__} ({value!r})"
        )
    unit = f" {metadata['unit']}" if metadata.get("unit") else ""
    low, high, choices = metadata.get("minimum"), metadata.get("maximum"), metadata.get("choices")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = (
            f"from {low}" if high is None else f"up to {high}" if low is None else f"from {low} to {high}"
        )
        raise ConfigError(f"{source}: {where} is {value}{unit}; it must be {limits}{unit}")
    if choices and value not in choices:
        raise ConfigError(f"{source}: {where} is {value!r}{suggest(value, choices)}")
    return value
