"""From a model to a release through the pipeline and the public functions: a Linux device, and a core."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import api, api_fleet
from edgekd.errors import ArtifactError, ConfigError
from edgekd.fleet import formats, keys, payload
from edgekd.fleet.bom import check_bom, write_bom
from edgekd.fleet.formats import Release
from edgekd.fleet.home import open_home
from edgekd.pipeline.releasing import facts_of
from edgekd.store import Artifact
from tests.device.support import conv_net, quantized
from tests.fleet.test_releasing import FACTS

SAMPLES = 24


def ask(name: str) -> str:
    return f"a long passphrase of {name}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an int8 model of its own, samples, a BOM, and a fleet."""
    folder = tmp_path_factory.mktemp("project")
    (folder / ".edgekd").mkdir()
    x = np.random.default_rng(3).normal(size=(SAMPLES, 1, 8, 8)).astype(np.float32)
    (folder / "net.onnx").write_bytes(quantized(conv_net(1, channels=4), x, folder))
    np.savez(folder / "data.npz", x=x, y=np.zeros(SAMPLES, np.int64))
    (folder / "bom.json").write_bytes(write_bom(FACTS))
    keys.init(folder / "fleet", "plant", datetime.now(UTC), ask, rounds=1)
    return folder


def request(project: Path, target: str) -> Any:
    return api.request(
        model=str(project / "net.onnx"), data=str(project / "data.npz"), target=target, start=project
    )


def release(project: Path, target: str, **changes: Any) -> dict[str, Any]:
    options = {"bom": project / "bom.json"} | changes
    return api_fleet.release_create(project / "fleet", request=request(project, target), **options)


def published(project: Path, made: dict[str, Any]) -> Release:
    """Sign, publish, and read the release back from the host's folder."""
    api_fleet.release_sign(project / "fleet", ask=ask)
    api_fleet.release_publish(project / "fleet")
    home = open_home(project / "fleet", datetime.now(UTC) + timedelta(minutes=1))
    role = formats.model_role(made["model"])
    path = formats.release_path(made["model"], made["release"])
    target = home.open().releases.targets(role).targets[path]
    data = payload.place(home.host, path, target.hashes["sha256"]).read_bytes()
    found = formats.parse_release(data, made["model"], made["release"])
    assert payload.missing(home.host, [found]) == []
    return found


def test_a_linux_bundle_needs_its_bench_and_becomes_a_release(project: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"never benched on linux-local.*invoke bench --target linux-local"
    ):
        release(project, "linux-local")
    with pytest.raises(ConfigError, match=r"net\.onnx is your own model.*add --bom FILE"):
        api.bench(request(project, "linux-local"))
        release(project, "linux-local", bom=None)
    made = release(project, "linux-local")
    found = published(project, made)
    assert (found.model, found.kind, found.hardware) == ("net", "linux", ("linux-local",))
    assert "bundle/golden_int8.npy" in found.golden and "bundle/int8.onnx" in found.files
    assert found.health.golden_steps == 2 and (found.health.max_peak_rss_bytes or 0) >= 64 << 20
    assert [row["release"] for row in api_fleet.releases(project / "fleet")] == [made["release"]]


def test_a_firmware_image_becomes_a_release_with_what_the_core_answered(project: Path) -> None:
    made = release(project, "mcu-sim", number=100, label="for the core")
    home = open_home(project / "fleet", datetime.now(UTC))
    found = published(project, made)
    assert (found.kind, found.release, found.health.golden_steps) == ("mcu", 100, 0)
    assert {"bundle/firmware.elf", "bundle/image.json"} <= set(found.files)
    arrays = {}
    for path in found.golden:
        file = payload.place(home.host, formats.payload_path("net", path), found.files[path].sha256)
        arrays[path] = np.load(io.BytesIO(file.read_bytes()))
    assert arrays["bundle/golden_inputs.npy"].shape == (SAMPLES, 64)
    assert arrays["bundle/golden_outputs.npy"].shape[0] == SAMPLES


def walk() -> list[tuple[int, Any]]:
    def artifact(stage: str, params: dict[str, Any], metrics: dict[str, Any], **tools: str) -> Artifact:
        manifest = {"params": params, "metrics": metrics, "tools": tools, "digest": stage[0] * 64}
        return Artifact(stage, f"key-{stage}", Path("/nowhere"), manifest)

    dataset = artifact(
        "dataset", {"data": {"name": "digits"}}, {"sha256": "cd" * 32, "train_samples": 9}, numpy="2"
    )
    teacher = artifact("teacher", {"teacher": {"model": "convnet"}}, {}, torch="2.13")
    return [(1, teacher), (2, dataset), (1, dataset)]


def test_the_bom_is_told_by_the_walk_to_the_data(tmp_path: Path) -> None:
    (tmp_path / "firmware.elf").write_bytes(b"image")
    build = Artifact(
        "build", "k", tmp_path, {"params": {}, "metrics": {}, "tools": {"zig": "1"}, "digest": "b" * 64}
    )
    facts = facts_of([(0, build), *walk()], "digits", "7", "MIT")
    assert [each.name for each in facts.data] == ["digits"] and facts.data[0].sha256 == "cd" * 32
    assert [each.name for each in facts.teachers] == ["convnet"]
    assert facts.tools == {"zig": "1", "torch": "2.13", "numpy": "2"}
    check_bom(write_bom(facts), "here")


def test_an_artifact_that_is_gone_makes_no_bom(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="teacher 0123 is gone from the store"):
        facts_of([(0, {"stage": "teacher", "key": "0123", "digest": ""})], "digits", "7", "MIT")
