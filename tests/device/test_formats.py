"""docs/formats/linux.md names what the code writes."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.device.agent import messages
from edgekd.device.archive import AGENT, PACKAGE, agent_archive
from edgekd.device.deploy import deploy, make_release
from edgekd.device.session import ERRORS, MARK, AgentSession
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
        *table["variants"]["int8"],
        *table["budget"],
        *table["reference"],
        *table["input"],
        *rule,
        *manifest,
    ):
        assert f"`{word}`" in TEXT, word


def test_every_message_field_is_documented(bundle: Path, tmp_path: Path) -> None:
    transport = LocalTransport(tmp_path, sys.executable)
    deploy(transport, bundle, "root")
    for command in (["bench", "--runs", "10", "--threads", "1", "--max-seconds", "0.2"], ["status"]):
        with AgentSession(transport, [*command, "--root", "root"], stall_s=60, total_s=60) as session:
            result = session.receive()
        for word in keys_of(result):
            assert f"`{word}`" in TEXT, word


def keys_of(value: Any) -> Iterator[str]:
    """Every key in a message, of whatever depth; names of packages are no keys."""
    if isinstance(value, list):
        yield from (key for each in value for key in keys_of(each))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in ("tools", "engines"):
                yield from keys_of(inner)


def test_every_error_kind_is_documented_and_mapped() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in AGENT.glob("*.py"))
    used = set(re.findall(r'AgentError\(\s*"(\w+)"', source))
    assert used == set(ERRORS)
    assert all(f"| `{kind}` |" in TEXT for kind in used)
    assert MARK.decode() == messages.MARK and messages.MARK.strip() in TEXT


def test_the_agent_needs_the_standard_library_alone() -> None:
    for path in AGENT.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        names += [str(n.module) for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names, path.name


def test_the_archive_holds_every_file_of_the_agent_and_nothing_of_where_it_was_packed() -> None:
    agent_archive.cache_clear()
    data = agent_archive()
    agent_archive.cache_clear()
    assert agent_archive() == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    assert [e.filename for e in entries] == sorted(
        ["__main__.py", *(f"{PACKAGE}/{path.name}" for path in AGENT.glob("*.py"))]
    )
    told = {(e.date_time, e.compress_type, e.create_system, e.external_attr >> 16) for e in entries}
    assert told == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3, 0o100644)}


def test_deploying_imports_no_heavy_library() -> None:
    """`deploy` and `bench` start without torch, onnx, onnxruntime; and without fcntl, which Windows lacks."""
    code = "import sys, edgekd.device.deploy, edgekd.device.bench, edgekd.device.connect; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "paramiko", "edgekd.device.agent.main"} & set(
        done.stdout.split()
    )


def test_the_directory_is_documented(bundle: Path, tmp_path: Path) -> None:
    deploy(LocalTransport(tmp_path, sys.executable), bundle, "root")
    for path in (tmp_path / "root").iterdir():
        assert re.search(rf"^  {re.escape(path.name)}\b", TEXT, re.MULTILINE), path.name
