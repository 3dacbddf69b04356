"""The code behind each stage, as one digest: what the stage's function reaches by import, and its C sources.

`python tests/stage_closure.py` writes tests/stage_digests.json. It refuses a stage whose code changed
under the same version, for then old artifacts would pass for new ones: raise the stage's `version` in
edgekd/pipeline/stages.py, or say `--same-result` where the change cannot touch any byte of the result.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = Path(__file__).with_name("stage_digests.json")
# What decides no byte of an artifact: messages, progress, the pipeline's own plumbing.
NEUTRAL = (
    "edgekd",
    "edgekd.errors",
    "edgekd.progress",
    "edgekd.store",
    "edgekd.report",
    "edgekd.pipeline.request",
)


def digests() -> dict[str, dict[str, object]]:
    """Stage -> version and digest of its source closure."""
    sys.path.insert(0, str(ROOT))
    from edgekd.pipeline.stages import STAGES

    return {name: {"version": stage.version, "digest": _digest(stage.run)} for name, stage in STAGES.items()}


def closure(function: FunctionType) -> tuple[list[str], list[str]]:
    """(module-level functions of the same file, edgekd modules) that `function` reaches."""
    helpers, pending, modules = {function.__name__: function}, [function], set()
    while pending:
        tree = ast.parse(inspect.getsource(pending.pop()))
        modules |= _imports(tree)
        for node in ast.walk(tree):
            found = function.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            if (
                isinstance(found, FunctionType)
                and found.__module__ == function.__module__
                and node.id not in helpers
            ):
                helpers[node.id] = found
                pending.append(found)
    reached: set[str] = set()
    while modules:
        module = modules.pop()
        if module in reached or module in NEUTRAL or _path(module) is None:
            continue
        reached.add(module)
        if not module.startswith("edgekd.pipeline.shipping"):
            modules |= _imports(_tree(module))
    return sorted(inspect.getsource(f) for f in helpers.values()), sorted(
        reached - {"edgekd.pipeline.shipping"}
    )


def _digest(function: FunctionType) -> str:
    sources, modules = closure(function)
    digest = hashlib.sha256()
    for source in sources:
        digest.update(_meaning(ast.parse(source)).encode())
    for module in modules:
        digest.update(module.encode() + _meaning(_tree(module)).encode())
    if any("firmware_stubs" in _text(module) for module in modules):
        for path in sorted(p for p in (ROOT / "firmware_stubs").rglob("*") if p.is_file()):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("edgekd"):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("edgekd")}
    return found


def _path(module: str) -> Path | None:
    base = ROOT / Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _text(module: str) -> str:
    path = _path(module)
    return path.read_text("utf-8") if path else ""


def _tree(module: str) -> ast.AST:
    return ast.parse(_text(module))


def _meaning(tree: ast.AST) -> str:
    """The code without comments, layout and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return ast.dump(tree)


def main(arguments: list[str]) -> int:
    new, old = digests(), json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.is_file() else {}
    stale = [
        name
        for name, row in new.items()
        if name in old and old[name]["version"] == row["version"] and old[name]["digest"] != row["digest"]
    ]
    if stale and "--same-result" not in arguments:
        print(
            f"changed under the same version: {', '.join(stale)}; see this file's first lines",
            file=sys.stderr,
        )
        return 1
    COMMITTED.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
