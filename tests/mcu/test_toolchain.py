"""Both compilers: same bytes in every directory, no machine path, one-sentence errors, nothing half-made."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError, ConfigError, MissingDependencyError
from edgekd.mcu import toolchain
from edgekd.mcu.toolchain import Compiler, find_compiler
from edgekd.target import Core

CORE = Core("cortex-m4", 100_000_000, True)
COMPILERS = ["clang", pytest.param("gcc", marks=pytest.mark.needs("gcc-arm"))]

SCRIPT = """
MEMORY { FLASH (rx) : ORIGIN = 0x0, LENGTH = 64K
 RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 16K }
ENTRY(reset)
SECTIONS { .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > FLASH
 .bss : { *(.bss*) *(.data*) } > RAM }
"""

SOURCE = """
#include "part.h"
#define COUNT 1
volatile long long dividend, divisor[COUNT];
void reset(void) { dividend = part(dividend / *divisor); for (;;) { } }
"""


def _project(folder: Path) -> tuple[list[Path], Path]:
    folder.mkdir(parents=True)
    (folder / "part.h").write_text("void reset(void);\nlong long part(long long x);\n")
    (folder / "part.c").write_text('#include "part.h"\nlong long part(long long x) { return x / 7; }\n')
    (folder / "main.c").write_text(SOURCE)
    (folder / "script.ld").write_text(SCRIPT)
    return [folder / "main.c", folder / "part.c"], folder / "script.ld"


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return find_compiler(request.param, tmp_path_factory.getbasetemp().parent / "compiler-cache")


def test_same_sources_give_the_same_bytes_in_every_directory(compiler: Compiler, tmp_path: Path) -> None:
    images = []
    for folder in (tmp_path / "a", tmp_path / "much" / "deeper"):
        sources, script = _project(folder)
        compiler.compile_core(CORE, sources, [folder], script, folder / "firmware.elf")
        compiler.compile_host_shared([folder / "part.c"], [folder], folder / "part.so")
        images.append([(folder / name).read_bytes() for name in ("firmware.elf", "part.so")])
        assert not list(folder.glob(".compile-*"))
    assert images[0] == images[1]
    for image in images[0]:
        assert str(tmp_path).encode() not in image
        assert str(Path(toolchain.__file__).parents[2]).encode() not in image
        assert b"ziglang" not in image


def test_symbols_of_the_core_image_survive(compiler: Compiler, tmp_path: Path) -> None:
    sources, script = _project(tmp_path / "p")
    compiler.compile_core(CORE, sources, [], script, tmp_path / "firmware.elf")
    image = (tmp_path / "firmware.elf").read_bytes()
    assert b"\0reset\0" in image and b"\0__aeabi_ldivmod\0" in image
    assert b".debug" not in image


def test_core_without_fpu_links(compiler: Compiler, tmp_path: Path) -> None:
    sources, script = _project(tmp_path / "p")
    compiler.compile_core(
        Core("cortex-m4", 10_000_000), sources, [], script, tmp_path / "firmware.elf", "-Os"
    )
    assert (tmp_path / "firmware.elf").read_bytes()[:4] == b"\x7fELF"


def test_host_library_runs(compiler: Compiler, tmp_path: Path) -> None:
    sources, _ = _project(tmp_path / "p")
    compiler.compile_host_shared(sources[1:], [], tmp_path / "part.so")
    library = ctypes.CDLL(str(tmp_path / "part.so"))
    library.part.argtypes, library.part.restype = [ctypes.c_longlong], ctypes.c_longlong
    assert library.part(-70) == -10


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("for (;;)", "for (;;", "error"),
        ("dividend = part", "long unused; dividend = part", "unused"),
        ("part(dividend", "missing(dividend", "missing"),
        ("COUNT 1", "COUNT 9999", "RAM"),
    ],
)
def test_fault_in_the_source_is_one_sentence(
    compiler: Compiler, tmp_path: Path, old: str, new: str, said: str
) -> None:
    sources, script = _project(tmp_path / "p")
    sources[0].write_text(SOURCE.replace(old, new))
    with pytest.raises(ArtifactError) as caught:
        compiler.compile_core(CORE, sources, [], script, tmp_path / "firmware.elf")
    message = str(caught.value)
    assert said in message and "\n" not in message and str(tmp_path) not in message
    assert not (tmp_path / "firmware.elf").exists() and not list(tmp_path.glob(".compile-*"))


def test_unknown_core_is_refused(compiler: Compiler, tmp_path: Path) -> None:
    sources, script = _project(tmp_path / "p")
    with pytest.raises(ConfigError, match="cortex-m99"):
        compiler.compile_core(Core("cortex-m99", 1_000_000), sources, [], script, tmp_path / "firmware.elf")


def test_unknown_compiler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="take clang or gcc"):
        find_compiler("icc", tmp_path)


def test_absent_gcc_names_the_installing_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt-get install gcc-arm-none-eabi"):
        find_compiler("gcc", tmp_path)


def test_absent_ziglang_names_the_installing_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install ziglang"):
        find_compiler("clang", tmp_path)
