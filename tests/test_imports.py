"""The rules between edgekd's parts (DESIGN.md, Layout), held by walking every module's imports.

Late imports count too: a part that may not know another may not know it inside a function either.
Third-party libraries stay in the modules named here, and the command line starts without the heavy ones.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "edgekd"

# Part -> the parts that it may import. Whoever adds a part adds its line.
ALLOWED = {
    "errors": "",
    "progress": "",
    "declaration": "errors",
    "doctor": "",
    "resources": "errors",
    "recipe": "declaration errors",
    "target": "declaration errors",
    "store": "errors",
    "shared": "errors",
    "qgraph": "errors progress",
    "evaluate": "errors",
    "signal": "errors progress",
    "data": "errors progress recipe",
    "learn": "data declaration errors evaluate progress qgraph recipe",
    "compress": "data declaration errors evaluate learn progress qgraph recipe",
    "export": "data errors learn mcu progress qgraph resources target",
    "quantize": "data errors export progress qgraph recipe",
    "mcu": "declaration errors evaluate progress qgraph resources signal target",
    "device": "declaration doctor errors evaluate export progress target",
    "fleet": "declaration device errors evaluate progress store target",
    "search": "compress data declaration errors evaluate learn mcu recipe target",
    "report": "errors evaluate store",
    "pipeline": "compress data declaration device doctor errors evaluate export fleet learn mcu progress"
    " qgraph quantize recipe resources search shared signal store target",
    "api": "declaration errors fleet pipeline progress qgraph recipe resources shared store target",
    "api_fleet": "api declaration device errors fleet progress store",
    "api_rollouts": "api_fleet device errors fleet progress",
    "cli": "api api_fleet api_rollouts declaration doctor errors report",
}

# Library -> where it may be imported: path prefixes below edgekd/.
PLACES = {
    "PIL": ("data/",),
    "ai_edge_litert": ("device/agent/", "export/", "qgraph/"),
    "alembic": ("fleet/log.py", "fleet/migrations/"),
    "capstone": ("mcu/",),
    "cryptography": ("fleet/",),
    "cyclonedx": ("fleet/",),
    "elftools": ("mcu/",),
    "filelock": (
        "search/",
        "store.py",
    ),
    "flatbuffers": ("qgraph/",),
    "fsspec": ("shared.py",),
    "google": ("export/", "qgraph/onnx", "quantize/"),
    "invoke": ("cli/",),
    "onnx": ("export/", "qgraph/onnx", "quantize/"),
    "onnxruntime": ("device/agent/", "export/", "learn/foreign.py", "quantize/"),
    "onnxscript": ("export/",),
    "onnxsim": ("export/",),
    "optuna": ("search/",),
    "paramiko": ("device/",),
    "rich": ("report/",),
    "safetensors": ("compress/", "learn/"),
    "securesystemslib": ("fleet/",),
    "sklearn": ("data/",),
    "sqlalchemy": ("fleet/log.py", "fleet/migrations/"),
    "tflite_micro": ("export/",),
    "tensorboardX": ("learn/logs",),
    "torch_pruning": ("compress/prune.py",),
    "torch": ("compress/", "export/torch", "learn/", "quantize/", "search/trial.py"),
    "tuf": ("fleet/",),
    "unicorn": ("mcu/unicorn_child.py",),  # GPL-2.0: only ever in a process of its own
    "ziglang": ("mcu/",),
}
ANYWHERE_BUT = {"numpy": ("cli/", "doctor.py", "errors.py", "store.py")}

# Programs that run alone, on a device or as a child under another licence: nothing of ours.
STANDALONE = ("device/agent/", "mcu/unicorn_child.py")
HEAVY = {
    "PIL",
    "capstone",
    "elftools",
    "onnx",
    "onnxruntime",
    "optuna",
    "paramiko",
    "sklearn",
    "torch",
    "unicorn",
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> Iterator[tuple[str, ...]]:
    """The dotted names that a module imports anywhere in it, relative ones resolved."""
    package = ["edgekd", *Path(module).parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            whole = base == ["edgekd"]  # from edgekd import api: the part is the name
            yield from ((*base, alias.name) for alias in node.names) if whole else iter([tuple(base)])


def parts_of(module: str) -> set[str]:
    """The parts of edgekd that a module imports, its own left out."""
    own = module.split("/")[0].removesuffix(".py")
    ours = {name[1] for name in imports(module) if name[0] == "edgekd" and len(name) > 1}
    return {part for part in ours if part != own and not part.startswith("__")}


def libraries_of(module: str) -> set[str]:
    names = {name[0] for name in imports(module)}
    return names - {"edgekd", "__future__"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", MODULES)
def test_a_part_imports_only_what_it_may(module: str) -> None:
    part = module.split("/")[0].removesuffix(".py")
    if part == "__init__":
        assert not parts_of(module)
        return
    assert part in ALLOWED, f"{module}: the part {part!r} has no line in ALLOWED"
    unwanted = parts_of(module) - set(ALLOWED[part].split())
    assert not unwanted, f"{module} imports {sorted(unwanted)}, which {part!r} may not know"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_where_they_belong(module: str) -> None:
    for library in libraries_of(module):
        if library in ANYWHERE_BUT:
            assert not module.startswith(ANYWHERE_BUT[library]), f"{module} imports {library}"
        else:
            assert library in PLACES, f"{module} imports {library}, which has no line in PLACES"
            assert module.startswith(PLACES[library]), (
                f"{module} imports {library}: it belongs in {PLACES[library]}"
            )


def test_the_table_has_no_circle() -> None:
    left = {part: set(allowed.split()) for part, allowed in ALLOWED.items()}
    while left:
        ready = {part for part, needs in left.items() if not needs & left.keys()}
        assert ready, f"a circle among {sorted(left)}"
        left = {part: needs for part, needs in left.items() if part not in ready}


def test_only_tasks_py_imports_the_command_line() -> None:
    assert (ROOT / "tasks.py").read_text("utf-8").count("from edgekd.cli import ns") == 1
    assert [part for part, allowed in ALLOWED.items() if "cli" in allowed.split()] == []
    assert [part for part, allowed in ALLOWED.items() if "pipeline" in allowed.split()] == ["api"]


@pytest.mark.parametrize("program", STANDALONE)
def test_programs_that_run_alone_import_nothing_of_ours(program: str) -> None:
    modules = [module for module in MODULES if module.startswith(program)]
    assert modules
    for module in modules:
        assert not parts_of(module)
        tree = ast.parse((PACKAGE / module).read_text("utf-8"))
        climbs = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level > 1]
        absolute = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import)]
        names = {a.name for n in absolute if isinstance(n, ast.Import) for a in n.names}
        names |= {str(n.module) for n in absolute if isinstance(n, ast.ImportFrom) and not n.level}
        assert not climbs and not {name for name in names if name.split(".")[0] == "edgekd"}


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `arguments`."""
    command = [sys.executable, "-X", "importtime", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in answer.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "invoke", "--search-root", str(ROOT), "--list"),
        ("-c", "import edgekd.cli"),
        ("-c", "import edgekd.api"),
        ("-c", "import edgekd.pipeline.graph, edgekd.pipeline.stages"),
    ],
    ids=["invoke --list", "cli", "api", "pipeline"],
)
def test_starting_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "edgekd" in loaded  # or this test would see nothing at all
    assert not loaded & HEAVY


def test_listing_the_tasks_does_not_even_load_numpy() -> None:
    assert "numpy" not in loaded_by("-m", "invoke", "--search-root", str(ROOT), "--list")


@pytest.mark.parametrize("target_kind", ["device.deploy", "device.bench", "device.ssh"])
def test_devices_are_reached_without_torch(target_kind: str) -> None:
    assert not loaded_by("-c", f"import edgekd.{target_kind}") & {"torch", "onnx", "sklearn"}
