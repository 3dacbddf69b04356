"""Set up .venv with what a command needs, then hand the command to Invoke.

    ./bootstrap [--gpu] TASK [options]        on Windows: python bootstrap.py [--gpu] TASK [options]

Promises: nothing outside the repository's .venv is written (pip's own cache aside) and no root is
needed; pip's own configuration is what decides where packages come from; versions are those of
requirements/lock.txt; the download's size is said before it starts; an interrupted or failed run is
continued by the next one; what is installed already starts at once. Standard library only. This
module reads the environment and the machine: it is a program, not a part of the package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "lock.txt"
STAMP = VENV / "edgekd-installed.json"  # written last: where it is absent, the work is not whole
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST, TOO_NEW = (3, 11), (3, 15)  # the lock's packages have wheels for what lies between
OLDEST_PIP = 26  # from here on `pip install --dry-run` reads metadata and downloads no wheel
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own: builds without CUDA

# What a fresh set takes to download on Linux x86-64, in MB: said before pip is asked for the exact sum.
ABOUT_MB = {"base": 25, "learn": 300, "mcu": 149, "search": 7, "fleet": 7, "postgresql": 5, "test": 31}

LEARNING = {"teacher", "knowledge", "distill", "compress", "quantize", "report"}
TARGETED = {"export", "build", "deploy", "bench"}
EVERYTHING = {"test", "soak"}
VALUED = {"--recipe", "--target", "--model", "--data", "--samples", "--store", "--shared", "--part"}
VALUED |= {"--compiler", "--engine", "--to", "--key", "--ssh-config", "--seed", "--count"}
LOOKING = {"--help", "-h", "--list", "-l", "--version", "-V"}


class BootstrapError(Exception):
    """One sentence for the person at the terminal: what is wrong and how to mend it."""


def main(arguments: Sequence[str]) -> int:
    """Install what is missing, then become Invoke; returns an exit code only where that is impossible."""
    given = list(arguments)
    gpu = given[:1] == ["--gpu"]
    words = given[1:] if gpu else given
    try:
        ensure(extras_for(words), gpu)
    except BootstrapError as error:
        say(f"bootstrap: {error}")
        return 1
    except OSError as error:
        say(f"bootstrap: {error.filename or VENV}: {error.strerror}: mend that, then run this again")
        return 1
    except KeyboardInterrupt:
        say("bootstrap: stopped; run it again to continue")
        return 130
    return hand_over(words or ["--list"])


def say(line: str) -> None:
    """Everything of ours goes to stderr: stdout belongs to the command's results."""
    print(line, file=sys.stderr, flush=True)


# --- what a command needs -----------------------------------------------------------------------


def extras_for(words: Sequence[str]) -> set[str]:
    """The extras of pyproject.toml that the command needs; the empty set is the base."""
    tasks, options = split_words(words)
    if LOOKING & set(words):
        return set()
    if EVERYTHING & set(tasks):
        return {"learn", "mcu", "search", "fleet", "postgresql", "test"}
    needed: set[str] = set()
    for task in tasks:
        if task in LEARNING:
            needed |= model_extras(options.get("--model", "")) or {"learn"}
        elif task in TARGETED:
            needed |= target_extras(task, options)
        elif task == "search":
            needed |= {"learn", "mcu", "search"}
        elif task.startswith(("fleet.", "keys.", "release.")):
            needed.add("fleet")
    return needed


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words that may be tasks, and the options that take a value with theirs."""
    tasks: list[str] = []
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in VALUED:
            options[name] = value if equals else next(rest, "")
        elif not word.startswith("-"):
            tasks.append(word)
    return tasks, options


def target_extras(task: str, options: dict[str, str]) -> set[str]:
    """What a task needs that ends at a target: its own tools and, without a model file, the learning."""
    target = options.get("--target", "")
    kind = target_kind(target)
    if kind == "unknown":
        return set()  # Invoke says which targets there are; the base install can
    tools = {"mcu"} if kind == "mcu" else set()
    return tools | (model_extras(options.get("--model", "")) or {"learn"})


def model_extras(model: str) -> set[str]:
    """What reads a user's own model; nothing where there is none."""
    if not model:
        return set()
    return {"mcu"} if model.lower().endswith(".tflite") else {"learn"}


def target_kind(target: str) -> str:
    """ "mcu" or "linux" as the profile says (mcu where no target is given), "unknown" without a profile."""
    if not target:
        return "mcu"
    file = target if target.endswith(".toml") else f"{target}.toml"
    for path in (ROOT / "targets" / file, Path.cwd() / "targets" / file, Path(file)):
        if path.is_file():
            try:
                return str(tomllib.loads(path.read_text("utf-8")).get("kind", "unknown"))
            except (OSError, ValueError):  # Invoke's task names what is wrong in it
                return "unknown"
    return "unknown"


# --- what is installed --------------------------------------------------------------------------


def inputs_digest() -> str:
    """Changes whenever an install from the same files would give something else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = json.dumps([project["dependencies"], project["optional-dependencies"]])
    return hashlib.sha256(asked.encode() + LOCK.read_bytes()).hexdigest()


def read_stamp() -> dict[str, Any]:
    """What the last whole install left; empty where there is none or it is of another place."""
    try:
        stamp = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):  # absent or cut short: nothing is known to be whole
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("root") == str(ROOT) else {}


def is_whole(stamp: dict[str, Any], extras: set[str], gpu: bool) -> bool:
    """Whether what was installed covers this command."""
    if not stamp or stamp["inputs"] != inputs_digest() or not PYTHON.exists():
        return False
    return extras <= set(stamp["extras"]) and (stamp["gpu"] or not gpu)


def ensure(extras: set[str], gpu: bool) -> None:
    """Install what the command needs unless it is there; one process at a time."""
    if not is_whole(read_stamp(), extras, gpu):
        check_python()
        VENV.mkdir(exist_ok=True)
        with one_at_a_time():
            stamp = read_stamp()
            if not is_whole(stamp, extras, gpu):
                install(extras | set(stamp.get("extras", ())), gpu or stamp.get("gpu", False), stamp)


def check_python() -> None:
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        have = ".".join(map(str, sys.version_info[:3]))
        raise BootstrapError(f"edgekd needs Python 3.11 to 3.14 and this is {have}: call it with another")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold .venv's lock file: a second bootstrap waits. A killed process lets go by itself."""
    with open(VENV / "bootstrap.lock", "a+b") as handle:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("bootstrap: another one is installing here; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- installing ---------------------------------------------------------------------------------


def install(extras: set[str], gpu: bool, stamp: dict[str, Any]) -> None:
    """Bring .venv to what `extras` asks for, saying sizes first; the stamp is written when it is whole."""
    sys.path.insert(0, str(ROOT))  # -I leaves the script's own directory out
    from bootstrap_steps import packages, venv
    from bootstrap_steps.running import StepError

    STAMP.unlink(missing_ok=True)
    about = ABOUT_MB["base"] + sum(ABOUT_MB[extra] for extra in extras)
    names = " + ".join(["base", *sorted(extras)])
    say(f"bootstrap: setting up .venv with {names} (about {about} MB to download, less what pip has already)")
    try:
        venv.make_usable(VENV, PYTHON)
        pip = packages.Pip(PYTHON, LOCK)
        pip.renew(OLDEST_PIP)
        if gpu and not stamp.get("gpu", False):
            pip.uninstall("torch")
        plan = packages.plan(pip, requirements(extras), CPU_INDEX, gpu)
        say(f"bootstrap: {packages.describe(plan)}")
        packages.install(pip, plan)
        venv.add_path(PYTHON, ROOT)
        write_stamp({"inputs": inputs_digest(), "extras": sorted(extras), "gpu": gpu, "root": str(ROOT)})
    except StepError as error:
        raise BootstrapError(str(error)) from None
    say("bootstrap: ready; from here on ./bootstrap TASK starts at once, and so does invoke itself:")
    say(f"bootstrap:     {activation()}    then    invoke --list")


def requirements(extras: set[str]) -> list[str]:
    """The direct requirements of the base and the extras, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = list(project["dependencies"])
    for extra in sorted(extras):
        found += project["optional-dependencies"][extra]
    return found


def write_stamp(stamp: dict[str, Any]) -> None:
    """Whole or not at all: a temporary file that is renamed."""
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamp, indent=1), "utf-8")
    os.replace(temporary, STAMP)


def activation() -> str:
    """The line that puts `invoke` on the shell's path."""
    return r".venv\Scripts\activate" if os.name == "nt" else f". {VENV}/bin/activate"


def hand_over(words: Sequence[str]) -> int:
    """Become Invoke in .venv, with the repository as its search root whatever the working directory."""
    command = [str(PYTHON), "-m", "invoke", "--search-root", str(ROOT), *parts_as_option(words)]
    if os.name == "nt":  # there, exec returns to the shell before the program ends
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)


def parts_as_option(words: Sequence[str]) -> list[str]:
    """`test compiler learn` as Invoke takes it, where a bare word is another task: `test --part ...`."""
    if list(words[:1]) != ["test"]:
        return list(words)
    parts = [word for word in words[1:] if not word.startswith("-")]
    options = [word for word in words[1:] if word.startswith("-")]
    return ["test", *options, *([f"--part={','.join(parts)}"] if parts else [])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
