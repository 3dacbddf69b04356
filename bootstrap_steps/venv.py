"""Make .venv usable: reuse it, mend it after an interrupted install, or build it anew.

The standard library's venv does it wherever ensurepip is there. Debian splits that off: then uv,
virtualenv, an installed pip, or pip's wheel from the index that pip is configured with are tried,
and if none is there the one line that mends it is named. Part of bootstrap.py.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bootstrap_steps import index
from bootstrap_steps.running import StepError, run

RUN_FROM_WHEEL = (
    "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('pip', None, '__main__')"
)
LOCK_NAME = "bootstrap.lock"  # held while this runs: never removed


def make_usable(venv: Path, python: Path) -> None:
    """Leave a working interpreter with pip at `python`: kept and mended, or built from nothing."""
    if not works(python, venv):
        refuse_foreign(venv)
        empty(venv)
        create(venv, python)
    mend(site_packages(python))


def refuse_foreign(venv: Path) -> None:
    """A link to an environment made elsewhere is refused: emptying it would take it from its owner."""
    if venv.is_symlink() and (venv / "pyvenv.cfg").exists():
        raise StepError(
            f"{venv} is a link to {venv.resolve()}, an environment that was made elsewhere:"
            f" remove the link, then run this again"
        )


def works(python: Path, venv: Path) -> bool:
    """Whether the interpreter there runs, is new enough, has pip and was made at this place."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11)); "
    try:
        run([str(python), "-I", "-c", check], "", quiet=True)
    except StepError:
        return False
    script = venv / ("Scripts/activate" if os.name == "nt" else "bin/activate")
    return script.is_file() and str(venv) in script.read_text("utf-8", errors="replace")


def empty(venv: Path) -> None:
    """Remove all that a half-made environment holds."""
    for entry in venv.iterdir():
        if entry.name == LOCK_NAME:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def create(venv: Path, python: Path) -> None:
    """Build the environment by the first way that this machine offers."""
    base = base_python()
    for possible, way in WAYS:
        if possible():
            way(base, venv, python)
            if works(python, venv):
                return
    version = ".".join(map(str, sys.version_info[:2]))
    raise StepError(
        f"this Python cannot make an environment with pip (its ensurepip is missing): run"
        f" `apt-get install python{version}-venv` as root (or install uv), then run this again"
    )


def base_python() -> str:
    """The interpreter outside any environment: .venv may be rebuilt by its own."""
    return getattr(sys, "_base_executable", None) or sys.executable


def has_ensurepip() -> bool:
    return importlib.util.find_spec("ensurepip") is not None


def has_pip() -> bool:
    """Whether the interpreter outside the environment has pip: one that can install elsewhere."""
    try:
        run(
            [base_python(), "-c", "import pip; assert int(pip.__version__.split('.')[0]) >= 23"],
            "",
            quiet=True,
        )
    except StepError:
        return False
    return True


def _by_venv(base: str, venv: Path, python: Path) -> None:
    run([base, "-I", "-m", "venv", str(venv)], "python -m venv failed", quiet=True)


def _by_uv(base: str, venv: Path, python: Path) -> None:
    command = ["uv", "venv", "--quiet", "--seed", "--allow-existing", "--python", base, str(venv)]
    run(command, "uv venv failed", quiet=True)


def _by_virtualenv(base: str, venv: Path, python: Path) -> None:
    run(["virtualenv", "--quiet", "--python", base, str(venv)], "virtualenv failed", quiet=True)


def _by_pip(base: str, venv: Path, python: Path) -> None:
    run([base, "-I", "-m", "venv", "--without-pip", str(venv)], "python -m venv failed", quiet=True)
    command = [base, "-m", "pip", "--python", str(python), "install", "pip"]
    run(command, "pip could not install itself", quiet=True)


def _by_wheel(base: str, venv: Path, python: Path) -> None:
    run([base, "-I", "-m", "venv", "--without-pip", str(venv)], "python -m venv failed", quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = index.fetch_pip(index.configured(), Path(folder))
        command = [str(python), "-I", "-c", RUN_FROM_WHEEL, str(wheel), "install", "--no-index", str(wheel)]
        run(command, "pip's wheel could not install itself", quiet=True)


Way = Callable[[str, Path, Path], None]
WAYS: tuple[tuple[Callable[[], bool], Way], ...] = (
    (lambda: has_ensurepip(), _by_venv),
    (lambda: shutil.which("uv") is not None, _by_uv),
    (lambda: shutil.which("virtualenv") is not None, _by_virtualenv),
    (lambda: has_pip(), _by_pip),
    (lambda: bool(index.configured()), _by_wheel),
)


def site_packages(python: Path) -> Path:
    """Where the environment at `python` keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        run([str(python), "-I", "-c", code], "the new environment's Python fails", quiet=True).strip()
    )


def mend(packages: Path) -> list[str]:
    """Forget packages that an interrupted pip left half-installed, so that it installs them again.

    pip writes RECORD last, so what has none, or lists a file that is not there, is not whole.
    Returns the names that were forgotten.
    """
    forgotten = []
    for info in sorted(packages.glob("*.dist-info")):
        if not _is_whole(info):
            shutil.rmtree(info)
            forgotten.append(info.name)
    for leftover in packages.glob("~*"):  # what pip had moved aside to replace
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return forgotten


def _is_whole(info: Path) -> bool:
    record = info / "RECORD"
    if not record.is_file():
        return False
    import csv

    with record.open(encoding="utf-8", newline="") as lines:
        for path, _digest, size in csv.reader(lines):
            file = info.parent / path
            if size and (not file.is_file() or file.stat().st_size != int(size)):
                return False
    return True


def add_path(python: Path, root: Path) -> None:
    """Let the environment import the checkout from anywhere."""
    (site_packages(python) / "edgekd-checkout.pth").write_text(f"{root}\n", "utf-8")
