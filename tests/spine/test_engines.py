"""Two compilers and two engines: four combinations, the same bytes, counts within 0.1 %."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.spine.support import artifacts, make_project, record

pytestmark = pytest.mark.needs("torch", "ziglang", "unicorn", "gcc-arm", "qemu-arm")
PAIRS = [(compiler, engine) for compiler in ("clang", "gcc") for engine in ("unicorn", "qemu")]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    project = make_project(tmp_path_factory.mktemp("engines"))
    found = {}
    for compiler, engine in PAIRS:
        arguments = ("--recipe", "wider", "--target", "mcu-sim", "--compiler", compiler, "--engine", engine)
        found[compiler, engine] = record(project, *arguments) | {"project": project}
    return found


@pytest.mark.parametrize(("compiler", "engine"), PAIRS)
def test_each_gives_the_references_bytes(records: dict, compiler: str, engine: str) -> None:
    found = records[compiler, engine]
    assert found["bit_exact"] is True and found["samples_on_device"] == 360
    assert engine in found["device"]["engine"].lower()


def test_the_four_outputs_are_the_same_bytes(records: dict) -> None:
    project: Path = records["clang", "unicorn"]["project"]
    outputs = [np.fromfile(path / "outputs.bin", np.uint8) for path in artifacts(project)["bench"]]
    assert len(outputs) == 4 and all(np.array_equal(outputs[0], other) for other in outputs[1:])


@pytest.mark.parametrize("compiler", ["clang", "gcc"])
def test_the_engines_count_the_same(records: dict, compiler: str) -> None:
    by_block = records[compiler, "unicorn"]["instructions"]["median"]
    by_clock = records[compiler, "qemu"]["instructions"]["median"]
    assert abs(by_block - by_clock) < 0.001 * by_block


def test_what_an_engine_cannot_measure_is_null(records: dict) -> None:
    found = records["clang", "qemu"]
    assert found["estimated_cycles"] is None and found["estimated_latency_us"] is None
