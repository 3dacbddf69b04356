"""`check`: predictions beside linked images, what does not fit, what cannot run, and what is not known."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from benchmarks.kernel_sizes import CORES, structs, table_of
from edgekd.errors import ArtifactError, ConfigError
from edgekd.mcu.check import check, check_file, fitting
from edgekd.mcu.codegen import generate
from edgekd.mcu.emulator import run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.footprint import (
    BOARDS,
    CORE,
    digest_of_source,
    harness_sources,
    kernel_folder,
    load_table,
    normal_leaf,
    predict,
)
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.codebook import share_weights
from edgekd.qgraph.ir import QGraph
from edgekd.qgraph.tflite_reader import read_tflite
from edgekd.qgraph.tflite_writer import write_tflite
from edgekd.report.check import show_check
from edgekd.target import Core, Target, load_target
from tests.graphs import Builder, inputs_for, small_net
from tests.mcu.firmware_models import mcu_target
from tests.mcu.generated import pack, write
from tests.mcu.test_dsp import net
from tests.random_graphs import wide_graph

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
FAMILIES = ("portable", "dsp")


@pytest.fixture(scope="session")
def table(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return table_for(compiler, CORES[0], tmp_path_factory.mktemp("sizes"))


def table_for(compiler: Compiler, core: Core, folder: Path) -> dict[str, Any]:
    """The committed table where it holds this compiler, else one that is measured now."""
    committed = load_table(core.cpu)
    sizes = committed["compilers"].get(compiler.version)
    if sizes is not None and not stale(sizes, core.cpu):
        return dict(committed)
    measured = table_of(compiler, folder, core)
    found = {"structs": structs(compiler, folder), "compilers": {compiler.version: measured}}
    return {"core": core.cpu} | found


def stale(sizes: dict[str, Any], cpu: str = CORE) -> list[str]:
    """The sources whose text is not the one that was measured."""
    fresh = {path.name: digest_of_source(path) for path in sorted(kernel_folder().glob("*.c"))}
    rows = {name: row["digest"] for name, row in sizes["sources"].items()}
    harness = {path.name: digest_of_source(path) for path in harness_sources(cpu)}
    changed = [name for name in fresh if fresh[name] != rows.get(name)]
    return changed + [name for name in harness if harness[name] != sizes["harness_digests"].get(name)]


@pytest.mark.parametrize("cpu", BOARDS)
@pytest.mark.parametrize("kind", ["clang", "gcc"])
def test_the_committed_table_is_of_these_kernels(kind: str, cpu: str) -> None:
    sizes = next(row for row in load_table(cpu)["compilers"].values() if row["kind"] == kind)
    assert stale(sizes, cpu) == [], "run benchmarks/kernel_sizes.py and commit edgekd/mcu/code_sizes.json"


def hold_to_the_image(
    graph: QGraph, family: str, compiler: Compiler, table: Any, folder: Path, target: Target | None = None
) -> Any:
    """Build and run the image; the prediction is exact, or above by no more than is promised.

    Returns the run's result, counted.
    """
    model = generate(graph, family, Options(compiler=compiler.kind))
    found = predict(model, compiler.kind, table)
    target = target or mcu_target(stack_bytes=4096)
    build_image(write(model, folder / "c"), target, compiler, folder / "image")
    image = json.loads((folder / "image" / "image.json").read_text())
    flash, ram = image["flash_bytes"], image["ram_bytes"]
    assert found.missing == ()
    assert (found.weights, found.constants) == (flash["weights"], flash["constants"])
    assert (found.arena, found.static) == (ram["arena"], ram["static"])
    assert found.code is not None and flash["code"] <= found.code <= 1.05 * flash["code"]
    inputs = pack(inputs_for(graph, np.random.default_rng(1), 3))
    elf, layers = folder / "image" / "firmware.elf", folder / "c" / "layers.json"
    result = run_image(elf, layers, target, inputs, counted=1, watched=0)
    peak = result.peak_stack_bytes
    assert found.stack is not None and peak is not None and peak <= found.stack <= peak + 64
    return result


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_predictions_beside_random_images(
    seed: int, family: str, compiler: Compiler, table: Any, tmp_path: Path
) -> None:
    graph = wide_graph(np.random.default_rng([11, seed]))
    hold_to_the_image(graph, family, compiler, table, tmp_path)


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("name", ["mcu-sim-m7", "mcu-sim-m33"])
def test_predictions_beside_images_of_other_cores(
    name: str, compiler: Compiler, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = load_target(name, [ROOT / "targets"])
    assert target.core is not None
    measured = table_for(compiler, target.core, tmp_path_factory.mktemp("sizes"))
    graph = wide_graph(np.random.default_rng([11, 5]))
    hold_to_the_image(graph, "dsp", compiler, measured, tmp_path, target)


@pytest.mark.shared
@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", MODELS)
def test_predictions_beside_known_models(
    name: str, family: str, compiler: Compiler, table: Any, tmp_path: Path, shared: Path
) -> None:
    graph = read_tflite((shared / f"data/mlperf_tiny/models/{name}.tflite").read_bytes(), name)
    result = hold_to_the_image(graph, family, compiler, table, tmp_path)
    hold_costs(result, of_model=0.02, of_layer=0.15)


def hold_costs(result: Any, of_model: float, of_layer: float) -> None:
    """Predicted cycles are near the emulator's: of the model, and of each layer that is a hundredth of it."""
    total = result.cycles[0]
    predicted = sum(row["predicted_cycles"] or 0 for row in result.by_layer)
    assert abs(predicted - total) <= of_model * total
    for row in result.by_layer:
        if row["cycles"] >= total / 100 and row["predicted_cycles"] is not None:
            assert abs(row["predicted_cycles"] - row["cycles"]) <= of_layer * row["cycles"], row


def test_costs_beside_a_small_net(compiler: Compiler, table: Any, tmp_path: Path) -> None:
    result = hold_to_the_image(small_net(np.random.default_rng(4)), "dsp", compiler, table, tmp_path)
    hold_costs(result, of_model=0.05, of_layer=0.15)


def test_latency_is_the_kernels_cycles_at_the_clock() -> None:
    graph = small_net(np.random.default_rng(1))
    answer = check(graph, profiles(), "clang")
    cycles = sum(layer.cycles or 0 for layer in generate(graph, "dsp").layers)
    for row, target in zip(answer["targets"], profiles(), strict=True):
        assert row["cycles"] == cycles
        assert row["latency_us"] == pytest.approx(cycles * 1e6 / target.core.clock_hz)


def test_flash_is_spared_by_choice() -> None:
    graph = net("separable-chain")
    speed, flash = (check(graph, profiles()[:1], "clang", mode)["targets"][0] for mode in ("speed", "flash"))
    assert flash["flash_need"] < speed["flash_need"] and flash["cycles"] > speed["cycles"]


def profiles() -> list[Any]:
    return [load_target(name, [ROOT / "targets"]) for name in ("mcu-sim", "nrf52840dk", "nucleo-l4r5zi")]


def test_a_small_model_fits_everywhere() -> None:
    answer = check(small_net(np.random.default_rng(1)), profiles(), "clang")
    assert len(answer["targets"]) == 3 and answer["unsupported"] == answer["obstacles"] == []
    assert fitting(answer) == [row["target"] for row in answer["targets"]]
    assert {row["op"]: row["count"] for row in answer["ops"]}["CONV_2D"] == 2
    assert answer["peak"]["bytes"] > 0 and json.dumps(answer)
    assert answer["passes"] == []


def test_what_the_passes_saved_is_said() -> None:
    b = Builder(np.random.default_rng(1))
    x = b.pad(b.input((1, 6, 6, 3)), [[0, 0], [1, 1], [1, 1], [0, 0]])
    graph = b.graph(b.unary("TANH", b.unary("LOGISTIC", b.conv(x, 4, padding="VALID"))))
    assert check(graph, profiles(), "clang")["passes"] == [
        "1 PAD (192 bytes written) folded into the windows behind",
        "2 functions of one byte: 1 look-up",
    ]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"flash_bytes": 4096}, r"flash: [\d,]+ bytes too many"),
        ({"ram_bytes": 1400}, r"RAM: [\d,]+ bytes too many; most are alive in op \d"),
        ({"stack_bytes": 256}, r"stack: up to [\d,]+ bytes, 256 are reserved"),
    ],
)
def test_what_does_not_fit_is_said_with_its_mend(limits: dict[str, int], message: str) -> None:
    import re

    answer = check(small_net(np.random.default_rng(1)), [mcu_target(**limits)], "clang")
    row = answer["targets"][0]
    assert row["fits"] is False and any(re.match(message, sentence) for sentence in row["advice"])


def test_what_the_table_does_not_hold_is_null() -> None:
    model = generate(small_net(np.random.default_rng(1)))
    table = copy.deepcopy(dict(load_table()))
    sizes = next(row for row in table["compilers"].values() if row["kind"] == "clang")
    sizes["sources"]["k_gemm_s8.c"]["digest"] = "another"
    found = predict(model, "clang", table)
    assert (found.code, found.constants, found.stack, found.flash_bytes) == (None,) * 4
    assert found.weights > 0 and found.missing == (
        "the table of code sizes does not hold this version of k_gemm_s8.c",
    )
    assert predict(model, "tcc", table).missing == ("the table of code sizes holds nothing for tcc",)


def test_a_leaf_is_known_by_its_instructions() -> None:
    text = ".text.k_a\nk_a:\n    asr r0, r1, #{}\n    ldr r2, [sp, #8]\n"
    assert normal_leaf(text.format(9)) == normal_leaf(text.format(11).replace("k_a", "k_b"))
    assert normal_leaf(text.format(9)) != normal_leaf(text.format(900))


def with_unknown_op(data: bytes) -> bytes:
    """The file with its SOFTMAX turned into an operator that edgekd has not."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.SOFTMAX:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LOG_SOFTMAX
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_op_that_cannot_run_is_an_answer() -> None:
    data = with_unknown_op(write_tflite(small_net(np.random.default_rng(1))))
    answer = check_file(data, "net.tflite", profiles(), "clang")
    (row,) = answer["unsupported"]
    assert row["op"] == "LOG_SOFTMAX" and row["layer"] and row["inputs"] == ((1, 10),)
    assert "LOG_SOFTMAX" in answer["obstacles"][0] and fitting(answer) == []
    assert all(row["fits"] is None and row["flash_need"] is None for row in answer["targets"])


@pytest.mark.parametrize("data", [b"", b"\x1c\x00\x00\x00TFL3\x14", bytes(100)])
def test_a_broken_file_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"net\.tflite"):
        check_file(data, "net.tflite", profiles(), "clang")


@pytest.mark.shared
def test_an_answer_takes_less_than_two_seconds(shared: Path) -> None:
    data = (shared / "data/mlperf_tiny/models/vww_96_int8.tflite").read_bytes()
    began = time.process_time()
    assert len(fitting(check_file(data, "vww.tflite", profiles(), "clang"))) == 3
    assert time.process_time() - began < 2


@pytest.mark.needs("unicorn")
def test_a_profile_with_its_own_link_map_runs_on_unicorn_and_not_on_qemu(
    clang: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.mcu import qemu

    target, graph = load_target("nucleo-l4r5zi", [ROOT / "targets"]), small_net(np.random.default_rng(1))
    inputs = pack(inputs_for(graph, np.random.default_rng(1), 4))
    generated = write(generate(graph, "dsp"), tmp_path / "c")
    build_image(generated, target, clang, tmp_path)
    elf, layers = tmp_path / "firmware.elf", generated / "layers.json"
    result = run_image(elf, layers, target, inputs, counted=1, watched=1)
    assert result.outputs.shape == (4, 10) and result.instructions[0] > 0
    monkeypatch.setattr(qemu.shutil, "which", lambda name: "/bin/true")
    with pytest.raises(ConfigError, match=r"nucleo-l4r5zi has flash at 0x08000000.*take --engine unicorn"):
        run_image(elf, layers, target, inputs, engine="qemu", counted=0, watched=0)


def test_bits_are_told_a_layer_and_packed_images_predicted_to_the_byte(
    capsys: pytest.CaptureFixture[str], clang: Compiler, tmp_path: Path
) -> None:
    b = Builder(np.random.default_rng(3))
    x = b.conv(b.input((1, 6, 6, 32)), 32, stride=(2, 2))
    graph = share_weights(b.graph(b.dense(b.reshape(x, (1, 288)), 8)))
    answer = check(graph, [mcu_target()], "clang")
    conv, dense = answer["weights"]
    assert (conv["bits"], conv["tables"], conv["weights"]) == (4, 1, 9216)
    assert set(conv["stored"].values()) == {4} and set(dense["stored"].values()) == {8}
    show_check(answer)
    assert "stored, dsp" in capsys.readouterr().out
    model = generate(graph, "dsp")
    folder = write(model, tmp_path / "generated")
    build_image(folder, mcu_target(), clang, tmp_path / "image")
    flash = json.loads((tmp_path / "image/image.json").read_text("utf-8"))["flash_bytes"]
    found = predict(model, "clang")
    assert (found.weights, found.constants) == (flash["weights"], flash["constants"])
    assert found.code is not None and flash["code"] <= found.code <= 1.05 * flash["code"]
