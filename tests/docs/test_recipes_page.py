"""docs/recipes.md names every key that a recipe may have, and every recipe that ships."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from edgekd.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "recipes.md").read_text("utf-8")


def keys(cls: type) -> Iterator[str]:
    """Every key of a declaration and of the tables in it."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield field.name
        hint = hints[field.name]
        for inner in (
            hint,
            *typing.get_args(hint),
            *(a for b in typing.get_args(hint) for a in typing.get_args(b)),
        ):
            if dataclasses.is_dataclass(inner):
                yield from keys(typing.cast(type, inner))


def test_every_key_is_explained() -> None:
    named = set(re.findall(r"`(\w+)`", TEXT)) | set(re.findall(r"`\[+(?:\w+\.)?(\w+)\]+`", TEXT))
    missing = set(keys(Recipe)) - named - {"data", "code"}  # [data] has a section; code is never written
    assert not missing


def test_every_shipped_recipe_is_listed() -> None:
    names = [path.stem for path in (ROOT / "recipes").glob("*.toml")]
    assert names and not [name for name in names if f"`{name}`" not in TEXT]
