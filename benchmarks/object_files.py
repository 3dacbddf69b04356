"""Reads compiled code function by function: bytes, alignment, stack frame, what it calls or reads.

For benchmarks/kernel_sizes.py. Frames come from the disassembly: all that a function pushes and takes
off the stack pointer, on whatever path, so the figure is an upper bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.mcu.elf import Image

_IMMEDIATE = re.compile(r"#(-?(?:0x)?[0-9a-f]+)")


@dataclass(frozen=True)
class Piece:
    """One function (kind "code") or constant object of a file: what the linker keeps or drops whole.

    uses: names; "*" where it calls a function through a pointer.
    """

    name: str
    kind: str
    bytes: int
    align: int
    frame: int
    uses: tuple[str, ...]


def pieces(path: Path) -> list[Piece]:
    """The pieces of an object file, one a section, in order."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        file = ELFFile(stream)
        uses = _relocations(file)
        found = []
        for index, section in enumerate(file.iter_sections()):
            kind = _kind(section)
            if kind and section["sh_size"]:
                frame = frame_bytes(section.data()) if kind == "code" else 0
                name = _piece_name(section.name)
                used = uses.get(index, set()) | (
                    {"*"} if kind == "code" and _calls_a_pointer(section.data()) else set()
                )
                row = (section["sh_size"], section["sh_addralign"], frame, tuple(sorted(used)))
                found.append(Piece(name, kind, *row))
        return found


def _kind(section: Any) -> str:
    if not section["sh_flags"] & 2 or "exidx" in section.name:  # SHF_ALLOC: occupies the device
        return ""
    if section["sh_type"] == "SHT_NOBITS" or section["sh_flags"] & 1:  # writable: RAM, start values apart
        return ""
    return "code" if section["sh_flags"] & 4 else "constant"


def _piece_name(section: str) -> str:
    """.text.k_gemm_s8 -> k_gemm_s8; what has no name of its own keeps its section's."""
    found = re.match(r"\.(?:text|rodata)\.(?:startup\.)?(?!str)(.+)", section)
    return found[1] if found else section


def _relocations(file: Any) -> dict[int, set[str]]:
    """Section index -> the names that it refers to."""
    table = file.get_section_by_name(".symtab")
    uses: dict[int, set[str]] = {}
    for section in file.iter_sections():
        if section["sh_type"] not in ("SHT_REL", "SHT_RELA"):
            continue
        for relocation in section.iter_relocations():
            symbol = table.get_symbol(relocation["r_info_sym"])
            if isinstance(symbol["st_shndx"], int):
                name = _piece_name(file.get_section(symbol["st_shndx"]).name)
            else:
                name = symbol.name
            uses.setdefault(section["sh_info"], set()).add(name)
    return uses


def pieces_of_image(image: Image) -> Iterator[Piece]:
    """The functions of a linked image, calls read from their branches."""
    starts = {symbol.address: symbol.name for symbol in image.functions}
    ends = [*sorted(starts)[1:], image.sections[".text"].address + image.sections[".text"].size_bytes]
    for symbol, end in zip(image.functions, ends, strict=True):
        code = image.read(symbol.address, end - symbol.address)
        uses = {starts[t] for t in _targets(code, symbol.address) if t in starts} - {symbol.name}
        yield Piece(symbol.name, "code", end - symbol.address, 4, frame_bytes(code), tuple(sorted(uses)))


def _targets(code: bytes, address: int) -> Iterator[int]:
    for instruction in _disassemble(code, address):
        found = _IMMEDIATE.search(instruction.op_str)
        if instruction.mnemonic.startswith("b") and found:
            yield int(found[1], 0)


def frame_bytes(code: bytes) -> int:
    """What a function's own code takes of the stack."""
    total = 0
    for instruction in _disassemble(code, 0):
        name, operands = instruction.mnemonic.split(".")[0], instruction.op_str
        if name == "push":
            total += 4 * _registers(operands)
        elif name == "vpush":
            total += (8 if "d" in operands else 4) * _registers(operands)
        elif name in ("sub", "subw") and re.match(r"sp, (sp, )?#", operands):
            total += int(_IMMEDIATE.search(operands)[1], 0)  # type: ignore[index]
        elif name in ("str", "strd", "stmdb") and ("[sp, #-" in operands and operands.endswith("!")):
            total += -int(_IMMEDIATE.search(operands)[1], 0)  # type: ignore[index]
        elif name == "stmdb" and operands.startswith("sp!"):
            total += 4 * _registers(operands.split("{")[1])
    return total


def _calls_a_pointer(code: bytes) -> bool:
    """Whether it calls or jumps to an address in a register, a return left out."""
    return any(
        i.mnemonic in ("blx", "bx") and i.op_str.startswith(("r", "ip")) for i in _disassemble(code, 0)
    )


def _registers(text: str) -> int:
    return text.count(",") + 1


def _disassemble(code: bytes, address: int) -> Iterator[Any]:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    engine.skipdata = True  # literal pools between instructions
    yield from engine.disasm(code, address)
