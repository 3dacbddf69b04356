"""docs/formats/linux.md names what the code writes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from edgekd.device import agent
from edgekd.device.deploy import deploy, make_release
from edgekd.device.session import AGENT, ERRORS, MARK, AgentSession
from edgekd.device.transport import LocalTransport

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "formats" / "linux.md").read_text(encoding="utf-8")


def test_every_key_and_file_of_a_bundle_and_a_release_is_documented(bundle: Path) -> None:
    table = json.loads((bundle / "bundle.json").read_text())
    manifest = json.loads(make_release(bundle).manifest)
    rule = table["variants"]["int8"]["golden"]
    for word in (
        *table,
        *table["files"],
        *table["samples"],
        *table["runtime"],
        *table["input"],
        *rule,
        *manifest,
    ):
        assert f"`{word}`" in TEXT, word


def test_every_message_field_is_documented(bundle: Path, tmp_path: Path) -> None:
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, bundle, "root")
    for command in (["bench", "--runs", "10"], ["status"]):
        with AgentSession(transport, [*command, "--root", "root"], stall_s=60, total_s=60) as session:
            result = session.receive()
        nested = [*result, *result["machine"], *result.get("golden", {}), *result.get("tools", {})]
        for word in nested:
            assert f"`{word}`" in TEXT, word


def test_every_error_kind_is_documented_and_mapped() -> None:
    source = Path(agent.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r'AgentError\(\s*"(\w+)"', source))
    assert used == set(ERRORS)
    assert all(f"| `{kind}` |" in TEXT for kind in used)
    assert MARK.decode() == agent.MARK and agent.MARK.strip() in TEXT


def test_the_agent_needs_the_standard_library_alone() -> None:
    tree = ast.parse(AGENT.read_text(encoding="utf-8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_deploying_imports_no_heavy_library() -> None:
    """`deploy` and `bench` start without torch, onnx, onnxruntime; and without fcntl, which Windows lacks."""
    code = "import sys, edgekd.device.deploy, edgekd.device.bench, edgekd.device.connect; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "paramiko", "edgekd.device.agent"} & set(done.stdout.split())


def test_the_directory_is_documented(bundle: Path, tmp_path: Path) -> None:
    deploy(LocalTransport(tmp_path, sys.executable), bundle, "root")
    for path in (tmp_path / "root").iterdir():
        assert re.search(rf"^  {re.escape(path.name)}\b", TEXT, re.MULTILINE), path.name
