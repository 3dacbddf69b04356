"""A firmware image as data: what lies where in the linked ELF, and which function holds an address.

Reads with pyelftools, imported late. Addresses of functions are without the Thumb bit.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import ArtifactError, MissingDependencyError


@dataclass(frozen=True)
class Symbol:
    """A function or an object: its address and size in bytes."""

    name: str
    address: int
    size_bytes: int


@dataclass(frozen=True)
class Section:
    """One section that the image occupies; `data` is empty where the file holds none (.bss, stack)."""

    name: str
    address: int
    size_bytes: int
    executable: bool
    data: bytes


@dataclass(frozen=True)
class Image:
    """One linked image.

    load: (address, bytes) of what flash holds, at the address where it is stored (.data's start values
        behind the code).
    functions, objects: sorted by address; code_marks: (address, is_code), sorted: where instructions
        and literal pools begin; places: every symbol's value, linker symbols included.
    """

    load: tuple[tuple[int, bytes], ...]
    sections: Mapping[str, Section]
    functions: tuple[Symbol, ...]
    objects: tuple[Symbol, ...]
    places: Mapping[str, int]
    code_marks: tuple[tuple[int, bool], ...]

    def place(self, name: str) -> int:
        """The address of a symbol; raises ArtifactError when the image has none of that name."""
        if name not in self.places:
            raise ArtifactError(
                f"the firmware image has no symbol {name!r}; build it with edgekd's linker script"
            )
        return self.places[name]

    def function(self, name: str) -> Symbol:
        """The function `name`, or the compiler's clone of it (`name.constprop.0`); else ArtifactError."""
        for symbol in self.functions:
            if symbol.name == name or symbol.name.startswith(name + "."):
                return symbol
        raise ArtifactError(f"the firmware image has no function {name!r}; was it inlined or never called?")

    def locate(self, address: int) -> str:
        """`function+0x12` for a person, or the bare address outside every function."""
        index = bisect.bisect_right([symbol.address for symbol in self.functions], address) - 1
        if index < 0:
            return f"0x{address:08x}"
        symbol = self.functions[index]
        if address >= symbol.address + max(symbol.size_bytes, 2):
            return f"0x{address:08x}"
        return f"{symbol.name}+0x{address - symbol.address:x}"

    def read(self, address: int, count: int) -> bytes:
        """`count` bytes of the loaded flash contents; shorter where they end."""
        for start, data in self.load:
            if start <= address < start + len(data):
                return data[address - start : address - start + count]
        return b""


def read_elf(path: Path) -> Image:
    """The image in `path`; raises ArtifactError when it is not a whole 32-bit Arm ELF with symbols."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.construct import ConstructError
        from elftools.elf.elffile import ELFFile
    except ImportError:
        raise MissingDependencyError(
            "firmware images are read with pyelftools; install it: pip install pyelftools"
        ) from None

    try:
        with path.open("rb") as stream:
            return _read(ELFFile(stream), path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; build the firmware again") from None
    except (ELFError, ConstructError, UnicodeDecodeError, ValueError, AttributeError, KeyError) as error:
        raise ArtifactError(
            f"{path}: not a whole firmware image ({type(error).__name__}); build the firmware again"
        ) from None


def _read(file: Any, path: Path) -> Image:
    if file["e_machine"] != "EM_ARM":
        raise ArtifactError(f"{path}: an image for {file['e_machine']}, not for Arm")
    table = file.get_section_by_name(".symtab")
    if table is None:
        raise ArtifactError(f"{path}: holds no symbol table; link it without stripping")
    functions, objects, places, marks = _symbols(table)
    return Image(_load(file, path), _sections(file), functions, objects, places, marks)


def _load(file: Any, path: Path) -> tuple[tuple[int, bytes], ...]:
    parts = []
    for segment in file.iter_segments():
        if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
            data = segment.data()
            if len(data) != segment["p_filesz"]:
                raise ArtifactError(f"{path}: cut off inside a segment; build the firmware again")
            parts.append((segment["p_paddr"], data))
    return tuple(sorted(parts))


def _sections(file: Any) -> dict[str, Section]:
    found = {}
    for section in file.iter_sections():
        flags = section["sh_flags"]
        if flags & 2:  # SHF_ALLOC: occupies memory on the device
            data = b"" if section["sh_type"] == "SHT_NOBITS" else section.data()
            found[section.name] = Section(
                section.name, section["sh_addr"], section["sh_size"], bool(flags & 4), data
            )
    return found


def _symbols(
    table: Any,
) -> tuple[tuple[Symbol, ...], tuple[Symbol, ...], dict[str, int], tuple[tuple[int, bool], ...]]:
    functions: dict[int, Symbol] = {}
    objects, places, marks = [], {}, []
    for symbol in table.iter_symbols():
        name, value, kind = symbol.name, symbol["st_value"], symbol["st_info"]["type"]
        if name.split(".")[0] in ("$t", "$d", "$a"):
            marks.append((value, not name.startswith("$d")))
        elif kind == "STT_FUNC":
            found = Symbol(name, value & ~1, symbol["st_size"])
            known = functions.get(found.address)
            # Of several names for one place the plain one says most (compiler-rt adds dotted ones).
            if known is None or (known.name.count("."), known.name) > (name.count("."), name):
                functions[found.address] = found
        elif kind == "STT_OBJECT":
            objects.append(Symbol(name, value, symbol["st_size"]))
        if name and symbol["st_shndx"] != "SHN_UNDEF":
            places[name] = value & ~1 if kind == "STT_FUNC" else value
    ordered = tuple(functions[address] for address in sorted(functions))
    return ordered, tuple(sorted(objects, key=lambda s: (s.address, s.name))), places, tuple(sorted(marks))
