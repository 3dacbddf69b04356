"""The device's own configuration, `agent.toml`, written when it is enrolled; docs/formats/agent.md.

Everything that may run is signed elsewhere. What stands here is who this device is, where it asks, and how
far a trial may go on it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgekd.fleet.agent.refusals import Refused

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
FILE = "agent.toml"
CLOCKS = ("synced", "system")


@dataclass(frozen=True)
class Config:
    """device, hardware: its id and what it is; models: what it runs; url: the static host, "" for none.

    clock: "synced" waits until a time service has set it, "system" takes it as it is (air-gapped devices).
    user: whom trials run as ("" for whoever runs the agent; another one only as root); restart: the program
    that is told of a new `current`, `{model}` replaced; memory_bytes, processes, file_bytes: limits of a
    trial; python: what a trial runs with; report_url: where the signed report is put, "" for nowhere.
    """

    device: str
    hardware: str
    models: tuple[str, ...]
    url: str = ""
    clock: str = "synced"
    clock_wait_s: int = 60
    user: str = ""
    restart: tuple[str, ...] = ()
    memory_bytes: int = 1 << 30
    processes: int = 64
    file_bytes: int = 1 << 20
    python: str = ""
    report_url: str = ""


def read(root: Path) -> Config:
    """The configuration below the agent's directory. Refused (not-set-up) where it is none."""
    path = root / FILE
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _bad(
            path, f"cannot be read ({error.strerror}); enrol this device, or name its --root"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(path, f"is no TOML ({error}); mend it") from None
    return parse(table, path)


def parse(table: dict[str, Any], path: Path) -> Config:
    """A Config of a table; `path` is for messages."""
    known = {field.name: field for field in fields(Config)}
    if unknown := sorted(table.keys() - known.keys()):
        raise _bad(path, f"has an unknown key {unknown[0]!r}; known are {', '.join(known)}")
    given: dict[str, Any] = {}
    for name, value in table.items():
        wanted = str(known[name].type)
        if wanted.startswith("tuple"):
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise _bad(path, f"{name} must be a list of texts")
            given[name] = tuple(value)
        elif type(value).__name__ != wanted or (wanted == "int" and value < 0):
            raise _bad(path, f"{name} must be of type {wanted}, from 0 where it is a number")
        else:
            given[name] = value
    for name in ("device", "hardware", "models"):
        if not given.get(name):
            raise _bad(path, f"{name} is missing; enrol this device again")
    return _checked(Config(**given), path)


def _checked(config: Config, path: Path) -> Config:
    for each in (config.device, config.hardware, *config.models):
        if not NAME.fullmatch(each):
            raise _bad(path, f"{each!r} is no name: use lower case letters, digits, '_', '.' and '-'")
    if config.url and not config.url.startswith(("http://", "https://")):
        raise _bad(path, f"url is {config.url!r}; it must begin with http:// or https://")
    if config.report_url and not config.report_url.startswith(("http://", "https://", "file:///")):
        raise _bad(path, f"report_url is {config.report_url!r}; it must be http://, https:// or file:///")
    if config.clock not in CLOCKS:
        raise _bad(path, f"clock is {config.clock!r}; it must be one of {', '.join(CLOCKS)}")
    return config


def dump(config: Config) -> str:
    """The file's text; what is as by default is left out."""
    lines = []
    for field in fields(Config):
        value = getattr(config, field.name)
        if value != field.default:
            quoted = f"[{', '.join(map(_quote, value))}]" if isinstance(value, tuple) else _quote(value)
            lines.append(f"{field.name} = {quoted}\n")
    return "".join(lines)


def _quote(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bad(path: Path, what: str) -> Refused:
    return Refused("not-set-up", f"{path}: {what}")
