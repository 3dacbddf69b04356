"""Builds the firmware image: generated C, start-up, harness and board, linked into the target's memory.

Promises: the same inputs give the same bytes; what cannot fit is refused, before compiling where the
model's own sizes already say so; image.json says what fills flash and RAM. Raises ArtifactError with
the compiler's first error, BudgetError with need and have.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgekd.errors import ArtifactError, BudgetError, ConfigError
from edgekd.mcu.codegen_prefix import PLAIN, adapter, prefix_of
from edgekd.mcu.elf import Image, read_elf
from edgekd.mcu.toolchain import Compiler
from edgekd.resources import resource_dir
from edgekd.target import Memory, Target

WEIGHTS = "model_weights"  # how the generated C names the objects that hold weights, and their section
STACK_ALIGNMENT_BYTES = 8
# Room for an image that does not fit, so that the refusal can say what it needs.
ROOMY_BYTES = 0x1000_0000

_ARRAY = re.compile(rf"\bu?int(8|16|32|64)_t\s+{WEIGHTS}_\w+((?:\s*\[\s*\d+\s*\])+)\s*=")
_SIZE = re.compile(r"^\s*#\s*define\s+[A-Z0-9_]+_(ARENA|SLOW|WEIGHTS)_BYTES\s+\(?(\d+)", re.MULTILINE)


def build_image(model_dir: Path, target: Target, compiler: Compiler, out: Path) -> None:
    """Write out/firmware.elf and out/image.json for the generated C in `model_dir`.

    image.json: {"flash_bytes": {weights, code, constants, total}, "ram_bytes": {arena, static, stack
    (reserved), total}, "compiler", "target"}. Raises BudgetError, ArtifactError, ConfigError.
    """
    if target.core is None or target.memory is None or target.emulator is None:
        raise ConfigError(f"target {target.name} has no core to build for; take one of kind mcu")
    sources = sorted(model_dir.glob("*.c")) + sorted(model_dir.glob("*.S"))
    header = model_header(model_dir)
    if not sources or header is None:
        raise ArtifactError(f"{model_dir.name}: holds no generated C (model.h and *.c); run the export again")
    refuse_sources(model_dir, target.memory)
    out.mkdir(parents=True, exist_ok=True)
    boards = resource_dir("firmware_stubs") / "boards"
    sources += sorted((boards / "cortex-m").glob("*.c")) + sorted(
        (boards / target.emulator.machine).glob("*.c")
    )
    template = (boards / "cortex-m" / "link.ld.in").read_text("utf-8")
    with tempfile.TemporaryDirectory(dir=out, prefix=".build-") as name:
        if header.stem != PLAIN:  # the harness knows the plain names
            text = adapter(header.read_text("utf-8"), header.stem)
            (Path(name) / f"{PLAIN}.h").write_text(text, "utf-8")
        image = _link(sources, model_dir, template, target, compiler, Path(name))
        refuse_image(image, target.memory)
        sizes = {"compiler": compiler.version, "target": target.name, **memory_use(image, target.memory)}
        (Path(name) / "image.json").write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n", "utf-8")
        for file in ("firmware.elf", "image.json"):
            os.replace(Path(name) / file, out / file)


def model_header(model_dir: Path) -> Path | None:
    """The header of the generated C in `model_dir`, whatever its prefix; None where there is none."""
    if (model_dir / f"{PLAIN}.h").is_file():
        return model_dir / f"{PLAIN}.h"
    prefix = prefix_of([path.name for path in sorted(model_dir.glob("*.h"))])
    return model_dir / f"{prefix}.h" if prefix else None


def refuse_sources(model_dir: Path, memory: Memory) -> None:
    """BudgetError when the weights alone outgrow flash, or arena and stack outgrow RAM: before compiling."""
    header = model_header(model_dir)
    sizes = {name: int(size) for name, size in _SIZE.findall(header.read_text("utf-8") if header else "")}
    arena, weights = sizes.get("ARENA", 0), sizes.get("WEIGHTS", 0)
    for source in sorted(model_dir.glob("*.[ch]")):
        weights += sum(_array_bytes(found) for found in _ARRAY.finditer(source.read_text("utf-8")))
    external, slow = memory.external_flash, memory.slow_ram
    if external is None:
        _hold("flash", weights, memory.flash_bytes, "for the weights alone")
    else:
        _hold("external flash", weights, external.size_bytes, "for the weights")
    _hold("RAM", arena + memory.stack_bytes, memory.ram_bytes, "for arena and stack alone")
    _hold("slow RAM", sizes.get("SLOW", 0), slow.size_bytes if slow else 0, "for its part of the tensors")


def refuse_image(image: Image, memory: Memory) -> None:
    """BudgetError when the linked image does not fit the target's flash or RAM."""
    use = memory_use(image, memory)
    flash, ram = use["flash_bytes"], use["ram_bytes"]
    own = flash["total"] - flash.get("external", 0)
    what = "for code and constants" if memory.external_flash else "for weights, code and constants"
    _hold("flash", own, memory.flash_bytes, what)
    if memory.external_flash:
        _hold("external flash", flash["external"], memory.external_flash.size_bytes, "for the weights")
    _hold("RAM", ram["total"] - ram.get("slow", 0), memory.ram_bytes, "for arena, statics and stack")
    if memory.slow_ram:
        _hold("slow RAM", ram["slow"], memory.slow_ram.size_bytes, "for its part of the tensors")


def memory_use(image: Image, memory: Memory | None = None) -> dict[str, dict[str, int]]:
    """What fills flash and RAM, from the linked sections and symbols.

    weights: objects named model_weights* or in their section; code: .text and the vector table; constants:
    the rest of flash, start values of .data included; arena: model_t; static: the rest of RAM but the stack.
    Where `memory` has them, "external" is what of the flash lies outside, "slow" the tensors in slow RAM.
    """
    size = {name: section.size_bytes for name, section in image.sections.items()}
    own = image.sections.get(f".{WEIGHTS}")
    place = range(own.address, own.address + own.size_bytes) if own else range(0)
    weights = sum(s.size_bytes for s in image.objects if s.name.startswith(WEIGHTS) or s.address in place)
    code = size.get(".text", 0) + size.get(".vectors", 0)
    flash = sum(len(data) for _, data in image.load)
    arena = sum(symbol.size_bytes for symbol in image.objects if symbol.name == "model")
    stack = image.place("stack_top") - image.place("stack_bottom")
    ram = image.place("ram_end") - image.place("stack_bottom")
    use = {
        "flash_bytes": {
            "weights": weights,
            "code": code,
            "constants": flash - weights - code,
            "total": flash,
        },
        "ram_bytes": {"arena": arena, "static": ram - arena - stack, "stack": stack, "total": ram},
    }
    if memory and memory.external_flash:
        use["flash_bytes"]["external"] = own.size_bytes if own else 0
    if memory and memory.slow_ram:
        slow = size.get(memory.slow_ram.section, 0)
        use["ram_bytes"] |= {"slow": slow, "total": ram + slow}
    return use


def linker_script(template: str, memory: Memory, flash_bytes: int, ram_bytes: int) -> str:
    """The template with the memory's origins and the given lengths."""
    stack = -(-memory.stack_bytes // STACK_ALIGNMENT_BYTES) * STACK_ALIGNMENT_BYTES
    values: Mapping[str, int] = {
        "FLASH_ORIGIN": memory.flash_origin,
        "FLASH_BYTES": flash_bytes,
        "RAM_ORIGIN": memory.ram_origin,
        "RAM_BYTES": ram_bytes,
        "STACK_BYTES": stack,
    }
    for key, value in values.items():
        template = template.replace(f"@{key}@", f"0x{value:x}")
    return _with_regions(template, memory)


def _with_regions(template: str, memory: Memory) -> str:
    """The template with the memories beside the first ones, and what lies there."""
    memories, sections = "", ""
    for name, kind, region in (
        ("SLOW_RAM", "rw", memory.slow_ram),
        ("EXTERNAL_FLASH", "r", memory.external_flash),
    ):
        if region is not None:
            span = f"ORIGIN = 0x{region.origin:x}, LENGTH = 0x{region.size_bytes:x}"
            memories += f"\n  {name} ({kind}) : {span}"
    if memory.slow_ram is not None:
        own = memory.slow_ram.section
        sections = f"\n  {own} (NOLOAD) : {{ . = ALIGN(8); *({own} {own}.*) . = ALIGN(8); }} > SLOW_RAM"
    weights = "FLASH" if memory.external_flash is None else "EXTERNAL_FLASH"
    template = template.replace("@MORE_MEMORIES@", memories).replace("@MORE_SECTIONS@", sections)
    return template.replace("@WEIGHTS_MEMORY@", weights)


def _link(
    sources: list[Path], model_dir: Path, template: str, target: Target, compiler: Compiler, folder: Path
) -> Image:
    """Compile into folder/firmware.elf; an image that overflows is linked again with room, to be measured."""
    assert target.core is not None and target.memory is not None
    memory, elf, script = target.memory, folder / "firmware.elf", folder / "link.ld"
    script.write_text(linker_script(template, memory, memory.flash_bytes, memory.ram_bytes), "utf-8")
    try:
        compiler.compile_core(target.core, sources, [folder, model_dir], script, elf)
    except ArtifactError as error:
        if "region" not in str(error) and "overflow" not in str(error):
            raise
        script.write_text(linker_script(template, memory, ROOMY_BYTES, ROOMY_BYTES), "utf-8")
        compiler.compile_core(target.core, sources, [folder, model_dir], script, elf)
    return read_elf(elf)


def _array_bytes(found: re.Match[str]) -> int:
    elements = 1
    for extent in re.findall(r"\d+", found[2]):
        elements *= int(extent)
    return elements * int(found[1]) // 8


def _hold(what: str, need: int, have: int, why: str) -> None:
    if need > have:
        raise BudgetError(
            f"the model does not fit the {what}: it needs {need:,} bytes {why}, the target has {have:,}; "
            f"compress the model or take a larger target"
        )
