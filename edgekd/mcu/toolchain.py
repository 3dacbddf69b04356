"""C compilers behind one interface: clang from the PyPI package ziglang, and GCC for Arm as second opinion.

Promises: the same sources and flags give the same bytes, whatever the directory; no path of the
machine ends in an output; an output is written whole or not at all. Finding a compiler looks at PATH
and at the running interpreter's packages; nothing else here reads the environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import ArtifactError, BudgetError, ConfigError, MissingDependencyError
from edgekd.target import Core

WARNINGS = ("-Wall", "-Wextra", "-Werror")
CODE = ("-std=c99", "-g0", "-ffunction-sections", "-fdata-sections", "-fno-common")
CORE_CODE = (
    "-ffreestanding",
    "-nostdlib",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fomit-frame-pointer",
)

# Variables that would change what a compiler reads or writes behind our back.
IGNORED_VARIABLES = (
    "CPATH",
    "C_INCLUDE_PATH",
    "LIBRARY_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "DEPENDENCIES_OUTPUT",
    "SOURCE_DATE_EPOCH",
)

# Appended to every linker script: compiler-rt brings debug sections that hold the package's path.
DISCARDED = "\nSECTIONS { /DISCARD/ : { *(.debug*) *(.comment) *(.note*) *(.ARM.exidx*) *(.ARM.extab*) } }\n"


DISK_FULL = "No space left on device"  # as every compiler passes it on from the system

# The first line of a compiler's or linker's output that says what is wrong.
FAULT = re.compile(r"\berror:|undefined reference|multiple definition|overflowed")


@dataclass(frozen=True)
class CoreFlags:
    """How each compiler is told about a core; `zig_soft` and `gcc_soft` where it has no FPU."""

    zig: tuple[str, ...]
    zig_soft: tuple[str, ...]
    gcc: tuple[str, ...]
    gcc_soft: tuple[str, ...]


CORES: dict[str, CoreFlags] = {
    "cortex-m4": CoreFlags(
        zig=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
        zig_soft=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
        gcc=("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        gcc_soft=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
    ),
    # Single precision only, which every M7 with an FPU has.
    "cortex-m7": CoreFlags(
        zig=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp"),
        zig_soft=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m7"),
        gcc=("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
        gcc_soft=("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=soft"),
    ),
    # With the DSP extension, which a maker may leave out.
    "cortex-m33": CoreFlags(
        zig=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m33+dsp+fp_armv8d16sp"),
        zig_soft=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m33+dsp"),
        gcc=("-mcpu=cortex-m33", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
        gcc_soft=("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=soft"),
    ),
}

# Linux processors: how clang is told; the least that each system of that name has (a Pi 2 or newer: NEON).
LINUX: dict[str, tuple[str, ...]] = {
    "aarch64": ("-target", "aarch64-linux-musl", "-mcpu=baseline"),
    "armv7": ("-target", "arm-linux-musleabihf", "-mcpu=cortex_a7"),
    "x86_64": ("-target", "x86_64-linux-musl", "-mcpu=baseline"),
}
# Beside -nostdlib: nothing of libc is linked, and the helpers' library brings memcpy and memset.
LINUX_CODE = (
    "-shared",
    "-fPIC",
    "-nostdlib",
    "-fvisibility=hidden",
    "-fno-sanitize=all",
    "-ffp-contract=off",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-s",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
)

GCC_ARM = "arm-none-eabi-gcc"
GCC_ARM_INSTALL = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"


@dataclass(frozen=True)
class Compiler:
    """One C compiler for cores and for the host. `version` names it in records and artifact keys."""

    kind: str
    version: str
    core_command: tuple[str, ...]
    host_command: tuple[str, ...]  # empty: the host has none
    cache: Path

    def compile_core(
        self,
        core: Core,
        sources: Sequence[Path],
        include: Sequence[Path],
        script: Path,
        output: Path,
        optimize: str = "-O2",
        extra: Sequence[str] = (),
    ) -> None:
        """Compile and link C (`.c`, `.S`) for a bare core into the ELF `output`, symbols kept.

        The linker script's ENTRY names the entry symbol; each source's own directory is searched for
        headers too. Raises ArtifactError with the compiler's first error, ConfigError for a core
        that the table CORES lacks.
        """
        text = script.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as name:
            stage = Path(name)
            (stage / "link.ld").write_text(text + DISCARDED, encoding="utf-8")
            entry = re.search(r"ENTRY\s*\(\s*(\w+)\s*\)", text)
            link = ["-Wl,--gc-sections", "-Wl,-T,link.ld", *([f"-Wl,--entry,{entry[1]}"] if entry else [])]
            flags = [*core_flags(core, self.kind), *CODE, *CORE_CODE, *WARNINGS, optimize, *extra, *link]
            # The helpers' library: clang takes -rtlib only behind -nostdlib, gcc -lgcc behind the objects.
            tail = ["-lgcc"] if self.kind == "gcc" else ["-rtlib=compiler-rt"]
            self._compile((*self.core_command, *flags), sources, include, stage, output, tail)

    def compile_host_shared(
        self, sources: Sequence[Path], include: Sequence[Path], output: Path, extra: Sequence[str] = ()
    ) -> None:
        """Compile C into the shared library `output` for this machine's baseline processor.

        Raises ArtifactError with the compiler's first error, MissingDependencyError without a host
        compiler (GCC only: the package ziglang brings its own).
        """
        if not self.host_command:
            raise MissingDependencyError(
                "gcc for this machine is not on PATH; install it: apt-get install gcc"
            )
        target = ("-mcpu=baseline", "-fno-sanitize=all") if self.kind == "clang" else ()
        flags = [*CODE, *target, *WARNINGS, "-O2", "-shared", "-fPIC", "-s", *extra]
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as name:
            self._compile((*self.host_command, *flags), sources, include, Path(name), output)

    def compile_linux_shared(
        self,
        architecture: str,
        sources: Sequence[Path],
        include: Sequence[Path],
        output: Path,
        optimize: str = "-O2",
    ) -> None:
        """Compile C into a shared object for Linux on `architecture` (a key of LINUX) that needs no library.

        Raises ArtifactError with the compiler's first error, ConfigError for another architecture, and
        MissingDependencyError with GCC, which here compiles for bare cores and this machine alone.
        """
        if architecture not in LINUX:
            raise ConfigError(
                f"architecture {architecture!r} is not known for Linux; take {', '.join(sorted(LINUX))}"
            )
        if self.kind != "clang":
            raise MissingDependencyError(
                "gcc does not compile for other Linux machines here; leave --compiler out"
            )
        flags = [*LINUX[architecture], *CODE, *LINUX_CODE, *WARNINGS, optimize]
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as name:
            self._compile(
                (*self.core_command, *flags), sources, include, Path(name), output, ["-rtlib=compiler-rt"]
            )

    def _compile(
        self,
        command: Sequence[str],
        sources: Sequence[Path],
        include: Sequence[Path],
        stage: Path,
        output: Path,
        tail: Sequence[str] = (),
    ) -> None:
        """Run `command` on copies of `sources` inside `stage`, so that only relative names are seen."""
        names = _stage_sources(sources, stage)
        folders = dict.fromkeys([*include, *(source.parent for source in sources)])
        search = [part for folder in folders for part in ("-I", str(folder.resolve()))]
        maps = [f"-ffile-prefix-map={folder.resolve()}=." for folder in folders]
        arguments = [*command, *maps, *search, *names, *tail, "-o", output.name]
        result = _run(arguments, stage, self.cache)
        if result.returncode != 0:
            fault = _first_error(result.stderr, folders)
            if DISK_FULL in result.stderr:
                raise BudgetError(
                    f"the disk of {output.parent} or {self.cache} is full: {self.version} could not write "
                    f"{output.name}; make room and run again to continue"
                )
            raise ArtifactError(f"{self.version} failed on {output.name}: {fault}")
        os.replace(stage / output.name, output)


def find_compiler(kind: str, cache: Path) -> Compiler:
    """The compiler "clang" (package ziglang) or "gcc" (GCC for Arm, and the host's gcc).

    `cache` is a directory where clang keeps what it builds once (compiler-rt); made when missing.
    Raises MissingDependencyError with the line that installs it, ConfigError for another kind.
    """
    if kind == "clang":
        return _find_clang(cache)
    if kind == "gcc":
        return _find_gcc(cache)
    raise ConfigError(f"compiler {kind!r} does not exist; take clang or gcc")


def core_flags(core: Core, kind: str) -> tuple[str, ...]:
    """What tells compiler `kind` about `core`; raises ConfigError for a core without a row in CORES."""
    row = CORES.get(core.cpu)
    if row is None:
        raise ConfigError(f"core {core.cpu!r} has no compiler flags; known are {', '.join(CORES)}")
    if kind == "clang":
        return (*(row.zig if core.fpu else row.zig_soft), "-fno-sanitize=all")
    return row.gcc if core.fpu else row.gcc_soft


def _find_clang(cache: Path) -> Compiler:
    if importlib.util.find_spec("ziglang") is None:
        raise MissingDependencyError("clang is missing; install it: pip install ziglang")
    cache.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "ziglang", "cc")
    found = re.search(r"clang version (\S+)", _ask((*command, "--version"), cache))
    zig = _ask((*command[:-1], "version"), cache).strip()
    version = f"clang {found[1] if found else 'unknown'} (zig {zig})"
    return Compiler("clang", version, command, command, cache)


def _find_gcc(cache: Path) -> Compiler:
    path = shutil.which(GCC_ARM)
    if path is None:
        raise MissingDependencyError(f"{GCC_ARM} is not on PATH; install it: {GCC_ARM_INSTALL}")
    host = shutil.which("gcc")
    version = f"{GCC_ARM} {_ask((path, '-dumpfullversion'), cache).strip()}"
    return Compiler("gcc", version, (path,), (host,) if host else (), cache)


def _ask(command: Sequence[str], cache: Path) -> str:
    """What a compiler prints about itself."""
    with tempfile.TemporaryDirectory() as name:
        result = _run(command, Path(name), cache)
    if result.returncode != 0:
        raise MissingDependencyError(
            f"{command[0]} is installed but does not run: {result.stderr.strip()[:200]}"
        )
    return result.stdout


def _run(command: Sequence[str], folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in IGNORED_VARIABLES}
    environment.update(
        LC_ALL="C",
        ZIG_GLOBAL_CACHE_DIR=str(cache.resolve() / "zig"),
        ZIG_LOCAL_CACHE_DIR=str(cache.resolve() / "zig"),
    )
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _stage_sources(sources: Sequence[Path], stage: Path) -> list[str]:
    """Copy `sources` flat into `stage`; a second file of one name is numbered."""
    names: list[str] = []
    for source in sources:
        name = source.name if source.name not in names else f"{len(names)}_{source.name}"
        shutil.copyfile(source, stage / name)
        names.append(name)
    return names


def _first_error(stderr: str, folders: Iterable[Path]) -> str:
    """The line a person needs, without the machine's directories."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("collect2:")]
    chosen = next((line for line in lines if FAULT.search(line)), None)
    text = re.sub(r"^\S*ld: ", "", chosen or (lines[0] if lines else "the compiler said nothing"))
    for folder in folders:
        text = text.replace(f"{folder.resolve()}{os.sep}", "")
    return text.strip()
