"""The exported C from end to end: labels, prefix, updatable firmware, weights that replace its own."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from edgekd import api
from edgekd.errors import ArtifactError, ConfigError
from edgekd.pipeline.libraries import SELFTEST_VECTORS, labels_of
from edgekd.qgraph.tflite_writer import write_tflite
from tests.graphs import conv_graph, small_net
from tests.spine.support import edgekd, make_project


def model_file(folder: Path, seed: int) -> str:
    path = folder / f"net{seed}.tflite"
    path.write_bytes(write_tflite(small_net(np.random.default_rng(seed))))
    return str(path)


def request(folder: Path, seed: int = 1, **options: object) -> api.Request:
    given = {"target": "mcu-sim"} | options
    return api.request(model=model_file(folder, seed), store=str(folder / "store"), **given)  # type: ignore[arg-type]


def test_an_export_tests_itself_and_says_its_sizes(tmp_path: Path) -> None:
    text = (api.make(request(tmp_path), "export").path / "c/model.h").read_text()
    assert f"#define MODEL_SELFTEST_COUNT {SELFTEST_VECTORS}\n" in text
    assert int(re.search(r"#define MODEL_STACK_BYTES (\d+)", text)[1]) > 100  # type: ignore[index]
    assert text.count(" of stack\n") == 2 and "#define MODEL_LABEL_COUNT 0\n" in text


def test_an_updatable_export_takes_the_weights_of_a_fine_tuned_model(tmp_path: Path) -> None:
    made = api.make(request(tmp_path, updatable=True, prefix="kws"), "export")
    deployed = (made.path / "c/kws_weights.bin").read_bytes()
    assert made.metrics["updatable_cost"]["state_bytes"] == 8
    assert (made.path / "c/kws_selftest.c").is_file() and not list((made.path / "c").glob("model*"))
    out = tmp_path / "new.bin"
    found = api.weights(request(tmp_path, 2), made.key, out)
    blob = out.read_bytes()
    assert len(blob) == len(deployed) == found["bytes"] == struct.unpack_from("<I", blob, 8)[0]
    assert blob[16:24] == deployed[16:24] and blob[24:] != deployed[24:]
    assert api.weights(request(tmp_path, 1), made.key, out)["for"] == made.key
    assert out.read_bytes() == deployed


def test_weights_that_cannot_replace_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    fixed = api.make(request(tmp_path), "export")
    updatable = api.make(request(tmp_path, updatable=True), "export")
    other = tmp_path / "other.tflite"
    other.write_bytes(write_tflite(conv_graph(np.random.default_rng(1))))
    out = tmp_path / "new.bin"
    with pytest.raises(ConfigError, match=r"is no export with --updatable.*cannot be replaced"):
        api.weights(request(tmp_path, 2), fixed.key, out)
    another = api.request(model=str(other), store=str(tmp_path / "store"))
    with pytest.raises(ArtifactError, match=r"^the weights of \S+ cannot replace .*it has 1 ops and"):
        api.weights(another, updatable.key, out)
    with pytest.raises(ArtifactError, match="no artifact"):
        api.weights(another, "feed", out)
    assert not out.exists()


@pytest.mark.needs("unicorn")
def test_an_updatable_model_under_another_name_benches_bit_exact(tmp_path: Path) -> None:
    record = api.bench(request(tmp_path, updatable=True, prefix="kws", samples=3))
    assert record["bit_exact"] is True and record["ram_bytes"]["arena"] > 0


def test_options_of_the_c_are_refused_for_a_linux_target(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes a bundle, not C; leave --updatable and --prefix out"):
        api.make(request(tmp_path, target="rpi4", updatable=True), "export")
    with pytest.raises(ConfigError, match="prefix is 'Kws'"):
        request(tmp_path, prefix="Kws")


def test_labels_only_where_each_output_has_one(tmp_path: Path) -> None:
    digits = api.make(api.request(recipe="digits", store=str(tmp_path / "store")), "dataset")
    assert labels_of(small_net(np.random.default_rng(1)), digits) == tuple("0123456789")
    assert labels_of(small_net(np.random.default_rng(1)), None) == ()
    assert labels_of(conv_graph(np.random.default_rng(1)), digits) == ()


def test_the_command_line(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for seed in (1, 2):
        model_file(project, seed)
    export = ("export", "--model", "net1.tflite", "--target", "mcu-sim", "--updatable", "--json")
    key = json.loads(edgekd(project, *export).stdout)["key"]
    command = ("weights", key, "--model", "net2.tflite", "--json")
    found = json.loads(edgekd(project, *command, "--out", "new.bin").stdout)
    assert found["bytes"] == (project / "new.bin").stat().st_size and found["for"] == key
    done = edgekd(project, *command)
    assert done.returncode == 2 and "add --out FILE.bin" in done.stderr
