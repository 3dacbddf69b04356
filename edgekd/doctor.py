"""What edgekd can use on this machine: what is there, what is missing, what for, how to install it.

`TOOLS` is the one table; `examine()` looks at each, the caller prints. Tests use the same names in
`@pytest.mark.needs("gcc-arm")`. This module reads PATH (programs) and the installed packages'
metadata (never importing them); it changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_APT = "apt-get install {} (as root; Debian and Ubuntu)"


@dataclass(frozen=True)
class Tool:
    """One thing that may be absent: a Python package (`distribution`) or any (all) of `programs` on PATH."""

    name: str
    purpose: str
    install: str
    distribution: str = ""
    programs: tuple[str, ...] = ()
    needs_all: bool = False  # of the programs; else any one will do
    only_on: Callable[[], bool] = lambda: True  # False: it does not exist for this machine


@dataclass(frozen=True)
class Row:
    """What was found: `version` is "" where it is absent, `install` is "" where it is there."""

    name: str
    found: bool
    version: str
    purpose: str
    install: str


def _linux_x86_64() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


# The bootstrap call that brings an extra's packages at the lock's versions.
_BOOTSTRAP = {
    "base": "./bootstrap --list",
    "learn": "./bootstrap bench --target linux-local",
    "mcu": "./bootstrap bench --target mcu-sim",
    "test": "./bootstrap test",
}
_IN_CHECKOUT = (Path(__file__).resolve().parent.parent / "bootstrap.py").is_file()


def _python_tool(
    distribution: str, extra: str, purpose: str, only_on: Callable[[], bool] = lambda: True
) -> Tool:
    install = _BOOTSTRAP[extra] if _IN_CHECKOUT else f"pip install {distribution}"
    return Tool(distribution, purpose, install, distribution=distribution, only_on=only_on)


TOOLS: tuple[Tool, ...] = (
    _python_tool("invoke", "base", "the tasks"),
    _python_tool("rich", "base", "tables and progress bars"),
    _python_tool("numpy", "base", "the integer reference"),
    _python_tool("paramiko", "base", "deploy and bench over SSH"),
    _python_tool("filelock", "base", "two runs at once on one store"),
    _python_tool("fsspec", "base", "a team's shared cache of artifacts (--shared)"),
    _python_tool("torch", "learn", "teacher, distill, compress"),
    _python_tool("scikit-learn", "learn", "the digits data set"),
    _python_tool("onnx", "learn", "export, and models in .onnx"),
    _python_tool("onnxscript", "learn", "export from torch"),
    _python_tool("onnxsim", "learn", "simplifying an exported model"),
    _python_tool("onnxruntime", "learn", "quantize, and bench of Linux targets on this machine"),
    _python_tool("safetensors", "learn", "weights on disk"),
    _python_tool("tensorboardX", "test", "events of trainings for TensorBoard (--log FOLDER)"),
    _python_tool("flatbuffers", "mcu", "models in .tflite"),
    _python_tool("ai-edge-litert", "mcu", "the .tflite schema, and a second opinion on its operators"),
    _python_tool("ziglang", "mcu", "the C compiler (clang) for firmware and host"),
    _python_tool("unicorn", "mcu", "the emulated core"),
    _python_tool("capstone", "mcu", "the firmware's instructions, held to the core's set"),
    _python_tool("pyelftools", "mcu", "flash and RAM of a firmware image"),
    _python_tool("tflite-micro", "mcu", "the arena that TFLite Micro needs, and the oracle of the tests",
                 only_on=_linux_x86_64),
    _python_tool("pytest", "test", "invoke test"),
    _python_tool("hypothesis", "test", "invoke test"),
    _python_tool("mypy", "test", "invoke test"),
    _python_tool("ruff", "test", "invoke test"),
    Tool("gcc-arm", "the second compiler (--compiler gcc)",
         _APT.format("gcc-arm-none-eabi libnewlib-arm-none-eabi"), programs=("arm-none-eabi-gcc",)),
    Tool("qemu-arm", "the second engine (--engine qemu)",
         _APT.format("qemu-system-arm"), programs=("qemu-system-arm",)),
    Tool("pi-sim", "the virtual Raspberry Pi (--target pi-sim)",
         _APT.format("qemu-system-arm qemu-utils mmdebstrap kmod e2fsprogs openssh-client"),
         programs=("qemu-system-aarch64", "qemu-img", "mmdebstrap", "modprobe", "mke2fs", "ssh-keygen"),
         needs_all=True),
    Tool("gcc", "the second compiler on this machine", _APT.format("gcc"), programs=("gcc",)),
    Tool("systemd", "tests of --service under a real systemd", _APT.format("systemd"),
         programs=("systemd-analyze",)),
    Tool("sshd", "tests of deploy against a real server", _APT.format("openssh-server"), programs=("sshd",)),
    Tool("ssh", "making keys and asking a server for its key", _APT.format("openssh-client"),
         programs=("ssh-keygen",)),
    Tool("postgres", "a rollout database that several operators share", _APT.format("postgresql"),
         programs=("postgres",)),
    Tool("nginx", "tests of devices that pull from a static host", _APT.format("nginx-light"),
         programs=("nginx",)),
    Tool("git", "the commit in a bench record", _APT.format("git"), programs=("git",)),
)  # fmt: skip


def by_name(name: str) -> Tool:
    """The tool called `name`; KeyError names the ones there are."""
    for tool in TOOLS:
        if tool.name == name:
            return tool
    raise KeyError(f"no tool is named {name!r}: {', '.join(tool.name for tool in TOOLS)}")


def find_program(name: str) -> str | None:
    """The program's path: PATH, then directories that a plain user's PATH leaves out (sshd, postgres)."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    extra = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/sbin", *debian))
    return shutil.which(name) or shutil.which(name, path=extra)


def _program_version(path: str) -> str:
    """The first line that `PROGRAM --version` prints, or nothing: some programs have no such option."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    return lines[0].strip() if lines else ""


def probe(tool: Tool, *, ask_version: bool = True) -> Row:
    """Look for one tool; with `ask_version` a program is run once to say its version."""
    version = _package_version(tool.distribution) if tool.distribution else ""
    paths = [find_program(name) for name in tool.programs]
    path = next(filter(None, paths), None)
    if tool.needs_all and not all(paths):
        path = None
    if path:
        version = (ask_version and _program_version(path)) or "there"
    install = tool.install if tool.only_on() else "nothing: no build of it exists for this machine"
    return Row(tool.name, bool(version), version, tool.purpose, "" if version else install)


def _package_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def examine() -> tuple[Row, ...]:
    """One row a tool, in the table's order: what is there, what is missing, what for, the installing line."""
    return tuple(probe(tool) for tool in TOOLS)
