"""Checked fields for what is signed: a frozen dataclass from JSON and back (the fleet's formats use it).

The standard library alone, because devices run it too. Keys that a reader does not know are left alone.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class FormatError(ValueError):
    """Something signed, or meant to be, is not what docs/formats/fleet.md says; the message is a sentence."""


def rule(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    pattern: str = "",
    choices: tuple[str, ...] = (),
    most: int = 1000,
) -> Any:
    """A field with its range, pattern or choices; `most` bounds a list's or a table's length."""
    metadata = {
        "minimum": minimum,
        "maximum": maximum,
        "pattern": pattern,
        "choices": choices,
        "most": most,
    }
    return dataclasses.field(default=default, metadata=metadata)


def dump(value: Any) -> dict[str, Any]:
    """Any dataclass of checked fields as plain JSON data: what `custom` holds."""
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def dump_bytes(value: Any) -> bytes:
    """The same as canonical bytes: sorted keys, no spaces, UTF-8. A Release's file is this."""
    return json.dumps(dump(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return dump(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def parse(cls: type[T], value: Any, where: str) -> T:
    """An instance of the dataclass `cls` from a JSON table; FormatError names `where` and the key."""
    if not isinstance(value, dict):
        raise FormatError(f"{where}: must be a table, not {type(value).__name__}")
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in value:
            at = f"{where}: {field.name}"
            given[field.name] = _value(hints[field.name], value[field.name], field.metadata, at)
        elif field.default is dataclasses.MISSING:
            raise FormatError(f"{where}: {field.name} is missing")
    return cls(**given)


def checked(value: T, where: str) -> T:
    """`value`, an instance made by hand, once all its fields have passed what `parse` asks of them."""
    return parse(type(value), dump(value), where)


def _value(hint: Any, value: Any, checks: Mapping[str, Any], where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # of a type and None
        return None if value is None else _value(inner[0], value, checks, where)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, where)
    if origin is tuple:
        _check_size(value, list, checks, where)
        items = tuple(_value(inner[0], each, checks, f"{where}[{i}]") for i, each in enumerate(value))
        if len(set(items)) != len(items):
            raise FormatError(f"{where}: names something twice")
        return items
    if origin is not None and issubclass(origin, Mapping):
        return _table(inner[1], value, checks, where)
    return _scalar(hint, value, checks, where)


def _table(hint: Any, value: Any, checks: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    _check_size(value, dict, checks, where)
    for key in value:
        if not re.fullmatch(checks["pattern"], key):
            raise FormatError(f"{where}: {key[:80]!r} is no name that may stand there")
    inside = {"minimum": None, "maximum": None, "pattern": "", "choices": ()}
    return types.MappingProxyType(
        {key: _value(hint, each, inside, f"{where}.{key}") for key, each in value.items()}
    )


def _check_size(value: Any, kind: Any, checks: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, kind):
        raise FormatError(f"{where}: must be a {kind.__name__}, not {type(value).__name__}")
    if len(value) > checks["most"]:
        raise FormatError(f"{where}: has {len(value)} entries; at most {checks['most']} are allowed")


def _scalar(hint: Any, value: Any, checks: Mapping[str, Any], where: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise FormatError(f"{where}: must be {hint.__name__}, not {type(value).__name__}")
    low, high = checks["minimum"], checks["maximum"]
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        raise FormatError(f"{where}: is {value}; it must be from {low} to {high}")
    if checks["choices"] and value not in checks["choices"]:
        raise FormatError(f"{where}: is {value!r}; it must be one of {', '.join(checks['choices'])}")
    if checks["pattern"] and not re.fullmatch(checks["pattern"], value):
        raise FormatError(f"{where}: {str(value)[:80]!r} is not what may stand there")
    return value
