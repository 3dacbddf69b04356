"""The main job on the default recipe: from a teacher to figures from the emulated core."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.data import load_dataset
from edgekd.export.onnx_session import run_onnx
from edgekd.mcu.bench import pack
from edgekd.mcu.emulator import run_image
from edgekd.mcu.host import HostModel
from edgekd.mcu.toolchain import find_compiler
from edgekd.qgraph.edges import quantize_input, strip_float_edges
from edgekd.qgraph.loader import load_graph
from edgekd.qgraph.reference import run
from edgekd.store import Store
from edgekd.target import load_target
from tests.graphs import inputs_for
from tests.qgraph.interpreters import ops_differing_from_litert, run_tflite_micro
from tests.spine.support import artifacts, digests, edgekd, make_project, record

pytestmark = pytest.mark.needs("torch", "ziglang", "unicorn")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("main job"))  # a blank in the path is a user's path, too


@pytest.fixture(scope="module")
def made(project: Path) -> dict[str, object]:
    return record(project, "--target", "mcu-sim")


def test_the_required_accuracy(made: dict[str, object]) -> None:
    assert made["samples"] == made["samples_on_device"] == 360 and made["split"] == "test"
    assert made["accuracy"] >= 0.975
    errors_int8, errors_float = (round(360 * (1 - made[k])) for k in ("accuracy", "accuracy_float"))
    assert errors_int8 <= errors_float + 3


def test_every_byte_equal_and_the_figures_are_there(made: dict[str, object]) -> None:
    assert made["bit_exact"] is True and made["agreement"] == 1.0
    layers = made["instructions"]["by_layer"]
    assert sum(row["instructions"] for row in layers) == pytest.approx(
        made["instructions"]["median"], rel=0.01
    )
    assert all(row["kernel"] for row in layers if row["op"])
    predicted = sum(row["predicted_cycles"] or 0 for row in layers)
    assert predicted == pytest.approx(made["estimated_cycles"]["median"], rel=0.05)
    assert made["flash_bytes"]["total"] == sum(
        made["flash_bytes"][k] for k in ("weights", "code", "constants")
    )
    assert made["ram_bytes"]["total"] == sum(made["ram_bytes"][k] for k in ("arena", "static", "stack"))
    assert made["latency_us"] is None and made["estimated_latency_us"] > 0


def test_the_second_run_makes_nothing(project: Path, made: dict[str, object]) -> None:
    before = {p: p.stat().st_mtime_ns for p in (project / ".edgekd" / "artifacts").rglob("*")}
    done = edgekd(project, "bench", "--target", "mcu-sim")
    assert done.returncode == 0 and " ..." not in done.stderr  # no stage said that it works
    assert {p: p.stat().st_mtime_ns for p in (project / ".edgekd" / "artifacts").rglob("*")} == before


def test_again_measures_anew_and_finds_the_same(project: Path, made: dict[str, object]) -> None:
    again = record(project, "--target", "mcu-sim", "--again")
    assert {k: v for k, v in again.items() if k != "when"} == {k: v for k, v in made.items() if k != "when"}


def test_the_student_keeps_its_limits(project: Path, made: dict[str, object]) -> None:
    metrics = json.loads((artifacts(project)["compress"][0] / "manifest.json").read_text())["metrics"]
    assert metrics["weight_bytes"] <= 4096 and metrics["macs"] <= 40_000
    teacher = json.loads((artifacts(project)["teacher"][0] / "manifest.json").read_text())["metrics"]
    assert teacher["accuracy_test"] >= 0.985


def test_reference_micro_and_c_agree_on_the_whole_test_split(project: Path, made: dict[str, object]) -> None:
    graph, x, _ = _model(project)
    inner = strip_float_edges(graph)
    inputs = [quantize_input(np.moveaxis(x, 1, -1), inner.tensors[inner.inputs[0]])]
    reference = run(inner, inputs)[0]
    micro = run_tflite_micro(inner, inputs)[0]
    on_core = np.fromfile(artifacts(project)["bench"][0] / "outputs.bin", np.int8).reshape(reference.shape)
    assert np.array_equal(reference, micro) and np.array_equal(reference, on_core)


def test_a_thousand_inputs_of_every_kind(project: Path, made: dict[str, object]) -> None:
    """A quarter each uniform, near the zero point, extremes, real: four executions, the same bytes."""
    graph, x, _ = _model(project)
    inner = strip_float_edges(graph)
    real = quantize_input(np.moveaxis(x, 1, -1), inner.tensors[inner.inputs[0]])
    inputs = inputs_for(inner, np.random.default_rng(11), 1000, real)
    expected = pack(run(inner, inputs))
    assert np.array_equal(expected, pack(run_tflite_micro(inner, inputs)))
    generated, image = artifacts(project)["export"][0] / "c", artifacts(project)["build"][0] / "firmware.elf"
    compiler = find_compiler("clang", project / ".edgekd" / "work" / "compiler")
    on_host = HostModel(generated, compiler, project / "host").run(pack(inputs))
    assert np.array_equal(expected, on_host.view(np.uint8))
    target = load_target("mcu-sim", [Path(__file__).parents[2] / "targets"])
    layers = generated / "layers.json"
    assert np.array_equal(
        expected, run_image(image, layers, target, pack(inputs), counted=1, watched=2).outputs
    )
    assert ops_differing_from_litert(inner, [part[:200] for part in inputs]) == []


def test_onnx_runtime_differs_by_rounding_only(project: Path, made: dict[str, object]) -> None:
    graph, x, model = _model(project)
    inner = strip_float_edges(graph)
    output = inner.tensors[inner.outputs[0]]
    inputs = [quantize_input(np.moveaxis(x, 1, -1), inner.tensors[inner.inputs[0]])]
    reference = run(inner, inputs)[0].reshape(len(x), -1)
    by_runtime = np.rint(run_onnx(model, x) / output.scale[0] + output.zero_point).astype(int)
    difference = np.abs(by_runtime.reshape(len(x), -1) - reference)
    assert (by_runtime.reshape(len(x), -1).argmax(1) == reference.argmax(1)).mean() >= 0.995
    assert np.bincount(difference.ravel())[:3].sum() >= 0.99 * difference.size


def test_the_walk_ends_at_the_data_sets_checksum(project: Path, made: dict[str, object]) -> None:
    image = artifacts(project)["build"][0]
    rows = json.loads(edgekd(project, "show", str(image / "firmware.elf"), "--json").stdout)
    assert rows[0]["stage"] == "build" and rows[-1]["stage"] == "dataset"
    checksum = load_dataset(artifacts(project)["dataset"][0]).sha256
    assert rows[-1]["metrics"]["sha256"] == checksum
    stages = {row["stage"] for row in rows}
    assert {"export", "quantize", "simplify", "compress", "distill", "knowledge", "teacher"} <= stages


def test_no_artifact_holds_a_path_of_this_machine(project: Path, made: dict[str, object]) -> None:
    import edgekd

    marks = [
        str(project).encode(),
        str(Path(edgekd.__file__).parent.parent).encode(),
        b"site-packages",
        b"/tmp/",
    ]
    for path in (project / ".edgekd" / "artifacts").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [mark for mark in marks if mark in data], path


def test_graph_shows_what_is_cached_and_where_the_time_went(project: Path, made: dict[str, object]) -> None:
    rows = json.loads(edgekd(project, "graph", "--target", "mcu-sim", "--json").stdout)
    assert rows[0]["stage"] == "dataset" and rows[-1]["stage"] == "bench"
    assert all(row["state"] == "cached" and row["seconds"] >= 0 and row["key"] for row in rows)
    other = json.loads(edgekd(project, "graph", "--recipe", "quick", "--target", "mcu-sim", "--json").stdout)
    assert all(row["state"] == "to do" for row in other if row["stage"] in ("teacher", "bench"))


def test_the_student_is_trained_without_the_teacher(
    project: Path, made: dict[str, object], tmp_path: Path
) -> None:
    """The teacher's weights are deleted and its module cannot be imported: the student is the same."""
    import shutil
    import subprocess
    import sys

    from tests.spine.support import environment

    shutil.copytree(project / ".edgekd" / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "teacher")
    knowledge = next((tmp_path / "artifacts" / "knowledge").iterdir())
    dataset = next((tmp_path / "artifacts" / "dataset").iterdir())
    code = (
        "import sys; sys.modules['edgekd.learn.teacher'] = None; from pathlib import Path; "
        "from edgekd import api; "
        "from edgekd.learn.distill import distill_student; recipe = api.recipes()['digits']; "
        "distill_student(Path(sys.argv[1]), Path(sys.argv[2]), recipe, Path(sys.argv[3]))"
    )
    out = tmp_path / "student"
    out.mkdir()
    command = [sys.executable, "-c", code, str(dataset), str(knowledge), str(out)]
    subprocess.run(command, env=environment(), check=True, cwd=project, timeout=300)
    stored = Store(project / ".edgekd").read(artifacts(project)["distill"][0])
    assert {p.name for p in out.iterdir()} == set(stored.manifest["files"])
    for name in stored.manifest["files"]:
        assert (out / name).read_bytes() == (stored.path / name).read_bytes()


def test_the_same_recipe_on_an_emptied_store_gives_the_same_bytes(
    project: Path, made: dict[str, object], tmp_path: Path
) -> None:
    second = make_project(tmp_path / "elsewhere")
    record(second, "--target", "mcu-sim")
    before, after = digests(project), digests(second)
    for stage in (
        "dataset",
        "teacher",
        "knowledge",
        "distill",
        "compress",
        "simplify",
        "quantize",
        "export",
        "build",
    ):
        assert before[stage] == after[stage], stage


def _model(project: Path):
    path = artifacts(project)["quantize"][0] / "int8.onnx"
    x, _ = load_dataset(artifacts(project)["dataset"][0]).part("test")
    return load_graph(path.read_bytes(), path.name), x, path.read_bytes()
